"""The commands in the deployment documents, run as they stand; those for a cluster as far as they go without one."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from service.runtime import providers
from tests.conftest import Exported
from tests.deploy import pod, rendering, schemas
from tests.wire import callers

ROOT = rendering.ROOT
DOCUMENTS = (ROOT / "README.md", ROOT / "deploy/README.md")

WITHIN_S = 300.0
"""Far more than the commands take."""

# Stands in for kubectl: what is applied is rendered by the real one and kept, what else needs a cluster is noted.
KUBECTL = """#!/bin/sh
printf "%s\\n" "$*" >> "$KEPT/commands"
case "$*" in
    "apply -k "*) "$REAL" kustomize "$3" > "$KEPT/$(echo "$3" | tr / _).yaml" ;;
    "apply -n "*" -f "*) cp "$5" "$KEPT/" ;;
    *apply*) echo "not rendered: $*" >&2; exit 1 ;;
esac
"""


def blocks(heading: str, language: str) -> list[str]:
    """The code of a section, which one of the documents has."""
    texts = [path.read_text() for path in DOCUMENTS]
    sections = [part for text in texts for part in re.split(r"^(?=## )", text, flags=re.M)]
    (section,) = [part for part in sections if part.startswith(f"## {heading}\n")]
    found = re.findall(rf"^```{language}\n(.*?)^```$", section, flags=re.M | re.S)
    assert found
    return found


def run_here(code: str, folder: pathlib.Path) -> str:
    """Run code for a shell in a network of its own, because servers in documents have fixed ports."""
    pod.require_namespaces()
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    script = f"ip link set lo up\nset -euo pipefail -m\n{code}\nwait\n"
    # A process namespace too, so that nothing outlives a failure.
    entered = ["unshare", "-n", "-p", "-f", "--kill-child", "--mount-proc", "bash", "-c", script]
    result = subprocess.run(
        entered, cwd=folder, env=environment, capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def applied(code: str, folder: pathlib.Path) -> tuple[list[rendering.Manifest], list[str]]:
    """Run code for a cluster; what it would apply, and all commands that it gave kubectl."""
    real = shutil.which("kubectl")
    if real is None:
        pytest.skip("NOT CHECKED: the commands for Kubernetes, because kubectl is not installed here")
    kept = folder / "kept"
    kept.mkdir()
    (folder / "bin").mkdir()
    (folder / "bin/kubectl").write_text(KUBECTL)
    (folder / "bin/kubectl").chmod(0o755)
    shutil.copytree(ROOT / "deploy", folder / "deploy")
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "REAL": real, "KEPT": str(kept)}
    command = ["bash", "-euo", "pipefail", "-c", code]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    manifests = [one for path in sorted(kept.glob("*.yaml")) for one in yaml.safe_load_all(path.read_text())]
    return manifests, (kept / "commands").read_text().splitlines()


@pytest.mark.slow
def test_laptop(exported: Exported, pngs: list[bytes], tmp_path: pathlib.Path) -> None:
    """With weights that are trained already: training is the demo's test."""
    (tmp_path / "digit.png").write_bytes(pngs[0])
    (code,) = blocks("Laptop", "sh")
    trained = f"fovea export lenet5 --weights {exported.weights_path}"
    said = run_here(code.replace("fovea export lenet5", trained), tmp_path)
    assert re.search(r"digit\.png\s", said)
    assert "requests answered with OK, 0 with an error" in said


@pytest.mark.slow
def test_one_gpu_server(tmp_path: pathlib.Path) -> None:
    """Where there is no GPU: all but that word."""
    (code,) = blocks("One GPU server", "sh")
    assert "--device cuda" in code
    if providers.choose("auto").name != providers.CUDA:
        code = code.replace("--device cuda", "--device cpu")
    said = run_here(code, tmp_path)
    assert "requests answered with OK, 0 with an error" in said


def test_kubernetes(tmp_path: pathlib.Path) -> None:
    (code,) = blocks("Kubernetes", "sh")
    manifests, commands = applied(code, tmp_path)
    for manifest in manifests:
        schemas.validate(manifest, schemas.VERSIONS[-1])
    by_kind = {manifest["kind"]: manifest for manifest in manifests}
    assert {"Deployment", "Service", "ConfigMap", "PodDisruptionBudget", "NetworkPolicy"} == by_kind.keys()
    assert by_kind["ConfigMap"]["data"]["FOVEA_QUEUE_SAMPLES_MAX"] == "4096"
    (container,) = by_kind["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("registry.example/fovea:")
    namespace = by_kind["Deployment"]["metadata"]["namespace"]
    assert commands[0] == f"create namespace {namespace}"
    assert commands[-1] == f"-n {namespace} rollout status deployment/{by_kind['Deployment']['metadata']['name']}"


def test_kserve(tmp_path: pathlib.Path) -> None:
    (code,) = blocks("KServe", "sh")
    manifests, commands = applied(code, tmp_path)
    for manifest in manifests:
        schemas.validate(manifest, schemas.VERSIONS[-1])
    names = {manifest["kind"]: manifest["metadata"]["name"] for manifest in manifests}
    assert names == {"ClusterServingRuntime": "fovea", "InferenceService": "lenet5"}
    assert f"inferenceservice/{names['InferenceService']}" in commands[-1]


def test_the_service_config_for_stock_clients_is_the_one_that_was_tried() -> None:
    (text,) = blocks("Kubernetes", "json")
    assert json.loads(text) == json.loads(callers.SERVICE_CONFIG)


def test_every_component_is_in_the_table() -> None:
    text = (ROOT / "deploy/README.md").read_text()
    named = set(re.findall(r"^\| `([a-z-]+)` \|", text[text.index("## Kubernetes") :], flags=re.M))
    assert named == set(rendering.folders("components"))
