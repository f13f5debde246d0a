"""The manifests as kubectl renders them: every overlay alone, with each component, and with all that go together."""

import functools
import itertools
import os
import pathlib
import shutil
import subprocess
import tempfile
from typing import Any, NamedTuple

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"

Manifest = dict[str, Any]

ALTERNATIVES = ({"hpa", "keda"}, {"models-image", "models-init"})
"""Components of which a deployment has one at most."""


class Case(NamedTuple):
    """An overlay and the components beside it."""

    overlay: str
    components: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "+".join((self.overlay, *self.components))


def folders(kind: str) -> list[str]:
    """The overlays or components that there are."""
    return sorted(path.name for path in (KUBERNETES / kind).iterdir())


def cases() -> list[Case]:
    """Every overlay alone and with each component; and with everything, once for each choice among alternatives."""
    components = folders("components")
    others = [name for name in components if not any(name in group for group in ALTERNATIVES)]
    alone = [()] + [(name,) for name in components]
    together = [(*others, *chosen) for chosen in itertools.product(*map(sorted, ALTERNATIVES))]
    return [Case(overlay, chosen) for overlay in folders("overlays") for chosen in (*alone, *together)]


class Rendered(NamedTuple):
    """The documents of a case, and the parts of them that tests ask for."""

    case: Case
    documents: tuple[Manifest, ...]

    def of(self, kind: str) -> Manifest:
        """The only document of a kind."""
        (manifest,) = [manifest for manifest in self.documents if manifest["kind"] == kind]
        return manifest

    @property
    def deployment(self) -> Manifest:
        return self.of("Deployment")["spec"]

    @property
    def pod(self) -> Manifest:
        return self.deployment["template"]["spec"]

    @property
    def container(self) -> Manifest:
        (only,) = self.pod["containers"]
        return only

    @property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.container["ports"]}

    @property
    def environment(self) -> dict[str, str]:
        """What the kubelet gives the container: its ConfigMaps, and over them its own variables."""
        maps = {one["metadata"]["name"]: one["data"] for one in self.documents if one["kind"] == "ConfigMap"}
        given: dict[str, str] = {}
        for source in self.container.get("envFrom", ()):
            given |= maps[source["configMapRef"]["name"]]
        return given | environment(self.container)


def environment(container: Manifest) -> dict[str, str]:
    """The variables of a container, each of which must be there once and have a plain value."""
    names = [variable["name"] for variable in container.get("env", ())]
    assert len(set(names)) == len(names)
    return {variable["name"]: variable["value"] for variable in container.get("env", ())}


def build(folder: pathlib.Path) -> tuple[Manifest, ...]:
    """What `kubectl kustomize` makes of a folder."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("NOT CHECKED: the Kubernetes manifests, because kubectl is not installed here")
    result = subprocess.run(
        [kubectl, "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "deprecated" not in result.stderr, result.stderr
    return tuple(yaml.safe_load_all(result.stdout))


@functools.cache
def render(case: Case) -> Rendered:
    """Build a case as a user would: from a kustomization of one's own."""
    with tempfile.TemporaryDirectory() as folder:
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "vision",
            "resources": [_from(folder, f"overlays/{case.overlay}")],
            "components": [_from(folder, f"components/{name}") for name in case.components],
        }
        (pathlib.Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return Rendered(case, build(pathlib.Path(folder)))


def _from(folder: str, target: str) -> str:
    return os.path.relpath(KUBERNETES / target, pathlib.Path(folder).resolve())
