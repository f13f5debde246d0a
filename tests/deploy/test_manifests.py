"""deploy/kubernetes as rendered: valid for Kubernetes, and its parts agree with each other and with the server.

The Pod: test_pods.py. How many of them: test_scaling.py.
"""

import pathlib
import tomllib
from typing import Any

import kubernetes_validate
import pytest

from service import settings
from tests.deploy import operator_rules, rendering, schemas
from tests.deploy.rendering import Case, Rendered

# What somebody else makes, and the manifests only name.
MADE_ELSEWHERE = {"fovea-models", "fovea-tls", "fovea-tokens"}

KNOWN = {f"FOVEA_{name.upper()}" for name in settings.Settings.model_fields}


def test_every_overlay_and_component_is_walked() -> None:
    walked = rendering.cases()
    assert {case.overlay for case in walked} == {"cpu", "gpu"}
    issue = {"hpa", "keda", "prometheus-operator", "network-policy", "tls"}
    assert issue <= set(rendering.folders("components"))
    for overlay in rendering.folders("overlays"):
        assert Case(overlay) in walked
        assert {Case(overlay, (name,)) for name in rendering.folders("components")} <= set(walked)


@pytest.mark.parametrize("version", schemas.VERSIONS)
def test_every_document_is_valid(rendered: Rendered, version: str) -> None:
    assert len(rendered.documents) >= 4
    for manifest in rendered.documents:
        schemas.validate(manifest, version)


def test_validation_is_strict() -> None:
    documents = rendering.render(Case("cpu", ("keda", "prometheus-operator"))).documents
    for manifest in documents:
        if manifest["kind"] == "ConfigMap":
            continue  # has no spec
        broken = manifest | {"spec": manifest["spec"] | {"spce": {}}}
        with pytest.raises((kubernetes_validate.ValidationError, schemas.jsonschema.ValidationError), match="spce"):
            schemas.validate(broken, schemas.VERSIONS[-1])


def test_the_namespace_reaches_everything(rendered: Rendered) -> None:
    assert {manifest["metadata"]["namespace"] for manifest in rendered.documents} == {"vision"}


def test_what_is_named_is_there(rendered: Rendered) -> None:
    """Claims, secrets and ConfigMaps that a volume or variable refers to; and volumes that a mount does."""
    there = {manifest["metadata"]["name"] for manifest in rendered.documents} | MADE_ELSEWHERE
    for volume in rendered.pod["volumes"]:
        source = volume.get("persistentVolumeClaim", {}).get("claimName") or volume.get("secret", {}).get("secretName")
        assert source is None or source in there
    for source in rendered.container["envFrom"]:
        assert source["configMapRef"]["name"] in there
    volumes = {volume["name"] for volume in rendered.pod["volumes"]}
    for container in (rendered.container, *rendered.pod.get("initContainers", ())):
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


# --- settings ---------------------------------------------------------------------------------------


def fovea_names(environment: dict[str, str]) -> set[str]:
    return {name for name in environment if name.startswith("FOVEA_")}


def test_environment_holds_settings_only(rendered: Rendered, image_environment: dict[str, str]) -> None:
    require_transport(rendered)
    assert fovea_names(rendered.environment) - KNOWN == set()
    assert fovea_names(image_environment) - KNOWN == set()


def require_transport(rendered: Rendered) -> None:
    """Skip what needs settings of TLS and tokens, in a tree that has none at all."""
    if {"tls", "tokens"} & set(rendered.case.components) and not any("TLS" in name for name in KNOWN):
        pytest.skip("NOT CHECKED: components tls and tokens, because service.settings knows nothing of TLS")


def test_config_map_holds_nothing_that_the_deployment_overrides(rendered: Rendered) -> None:
    """Otherwise a change there would do nothing, and nobody would know."""
    assert rendered.of("ConfigMap")["data"].keys() & rendering.environment(rendered.container).keys() == set()


def test_server_accepts_its_environment(rendered: Rendered, image_environment: dict[str, str]) -> None:
    require_transport(rendered)
    device = {"cpu": "cpu", "gpu": "cuda"}[rendered.case.overlay]
    given = settings.load({}, image_environment | {"FOVEA_DEVICE": device} | rendered.environment)
    assert given.device == device
    assert {"grpc": given.grpc_port, "metrics": given.metrics_port} == rendered.ports
    assert given.host == "0.0.0.0"  # a container's loopback is reached by neither probes nor clients
    assert str(given.repository) in {mount["mountPath"] for mount in rendered.container["volumeMounts"]}
    assert given.model_control_mode == ("poll" if "poll" in rendered.case.components else "none")


def test_no_service_links(rendered: Rendered) -> None:
    """A Service `fovea` would inject FOVEA_SERVICE_HOST, which the server takes for a mistyped setting."""
    assert rendered.of("Service")["metadata"]["name"].upper().startswith("FOVEA")
    assert rendered.pod["enableServiceLinks"] is False


# --- the Service ---------------------------------------------------------------------------------------


def test_service_selects_the_pods(rendered: Rendered) -> None:
    labels = rendered.deployment["template"]["metadata"]["labels"].items()
    assert rendered.of("Service")["spec"]["selector"].items() <= labels
    assert rendered.deployment["selector"]["matchLabels"].items() <= labels


def test_service_is_headless_and_targets_named_ports(rendered: Rendered) -> None:
    service = rendered.of("Service")["spec"]
    assert service["clusterIP"] == "None"
    assert {port["name"]: port["targetPort"] for port in service["ports"]} == {name: name for name in rendered.ports}
    # Headless: a client goes to the Pod itself, so the Service's number has to be the Pod's.
    assert {port["name"]: port["port"] for port in service["ports"]} == rendered.ports


def test_prometheus_scrapes_the_metrics_port_once(rendered: Rendered) -> None:
    annotations = rendered.deployment["template"]["metadata"].get("annotations", {})
    if "prometheus-operator" in rendered.case.components:
        monitor = rendered.of("ServiceMonitor")["spec"]
        assert monitor["selector"]["matchLabels"].items() <= rendered.of("Service")["metadata"]["labels"].items()
        assert [endpoint["port"] for endpoint in monitor["endpoints"]] == ["metrics"]
        assert rendered.of("Service")["metadata"]["labels"][monitor["jobLabel"]] == "fovea"
        assert annotations == {}
    else:
        assert annotations["prometheus.io/scrape"] == "true"
        assert int(annotations["prometheus.io/port"]) == rendered.ports["metrics"]
        assert annotations["prometheus.io/path"] == "/metrics"


def test_the_operators_rules_are_those_of_prometheus(root: pathlib.Path) -> None:
    """To write them anew: python -m tests.deploy.operator_rules"""
    rules = rendering.render(Case("cpu", ("prometheus-operator",))).of("PrometheusRule")["spec"]
    assert rules == operator_rules.resource(root)["spec"]


@pytest.mark.parametrize("overlay", rendering.folders("overlays"))
def test_network_policy_opens_the_pods_ports(overlay: str) -> None:
    rendered = rendering.render(Case(overlay, ("network-policy",)))
    policy = rendered.of("NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= rendered.deployment["template"]["metadata"]["labels"].items()
    opened = {port["port"]: rule["from"] for rule in policy["ingress"] for port in rule["ports"]}
    assert opened.keys() == rendered.ports.keys()
    assert all(opened.values())  # an empty list of callers would mean everybody
    assert (policy["policyTypes"], policy["egress"]) == (["Ingress", "Egress"], [])


# --- the image -------------------------------------------------------------------------------------------


def test_image_is_this_version_for_this_device(root: pathlib.Path, rendered: Rendered) -> None:
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    device = {"cpu": "cpu", "gpu": "cuda"}[rendered.case.overlay]
    assert rendered.container["image"] == f"fovea:{version}-{device}"


def test_arguments_are_a_verb_of_the_entry_point(rendered: Rendered, served: dict[str, Any]) -> None:
    assert "command" not in rendered.container  # the image's ENTRYPOINT, exec form, gets SIGTERM
    assert served["ENTRYPOINT"] == ['["fovea"]']
    assert rendered.container["args"] == ["serve"]
