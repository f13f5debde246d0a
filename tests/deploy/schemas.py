"""Whether a manifest is valid: Kubernetes' own schemas, and those of custom_resources.yaml."""

import pathlib

import jsonschema
import kubernetes_validate
import yaml

from tests.deploy.rendering import Manifest

VERSIONS = ["1.32", kubernetes_validate.latest_version()]
"""The oldest one here is the oldest one checked; what is used needs 1.30, image volumes 1.35."""

CUSTOM = yaml.safe_load(pathlib.Path(__file__).with_name("custom_resources.yaml").read_text())


def validate(manifest: Manifest, version: str) -> None:
    """Raise if it is not: kubernetes_validate.ValidationError, or jsonschema's."""
    kind = manifest["kind"]
    if kind in CUSTOM:
        jsonschema.Draft202012Validator(CUSTOM[kind]).validate(manifest)
        for part in _parts(manifest):
            validate(part, version)
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


def _parts(manifest: Manifest) -> list[Manifest]:
    """What Kubernetes knows of a custom resource, as resources of its own."""
    spec = manifest["spec"]
    if manifest["kind"] == "ClusterServingRuntime":
        pod = {name: spec[name] for name in ("containers", "volumes", "tolerations") if name in spec}
        return [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "part"}, "spec": pod}]
    if manifest["kind"] == "ScaledObject":
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        scales = {"scaleTargetRef": {"kind": "Deployment", "name": "part"}, "maxReplicas": 1, "behavior": behavior}
        head = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "part"}}
        return [head | {"spec": scales}]
    return []
