"""deploy/kserve: valid, and the runtime's container serves what KServe mounts."""

import pathlib
import subprocess

import pytest
import yaml

from service import settings
from tests.conftest import FOVEA
from tests.deploy import pod, rendering, schemas
from tests.deploy.rendering import Manifest
from tests.deploy.test_probes import image, live_and_die, models, picture

__all__ = ["image", "models", "picture"]  # fixtures

KSERVE = rendering.ROOT / "deploy/kserve"
MARGIN_S = 5


@pytest.fixture
def runtime() -> Manifest:
    (only,) = rendering.build(KSERVE)
    return only


@pytest.fixture
def service() -> Manifest:
    manifest: Manifest = yaml.safe_load((KSERVE / "inferenceservice.yaml").read_text())
    return manifest


@pytest.mark.parametrize("version", schemas.VERSIONS)
def test_both_are_valid(runtime: Manifest, service: Manifest, version: str) -> None:
    for manifest in (runtime, service):
        schemas.validate(manifest, version)


def test_a_mistyped_field_is_found(runtime: Manifest) -> None:
    (container,) = runtime["spec"]["containers"]
    broken = runtime | {"spec": runtime["spec"] | {"containers": [container | {"prots": []}]}}
    with pytest.raises(schemas.kubernetes_validate.ValidationError, match="prots"):
        schemas.validate(broken, schemas.VERSIONS[-1])


def test_the_service_asks_for_what_the_runtime_offers(runtime: Manifest, service: Manifest) -> None:
    asked = service["spec"]["predictor"]["model"]
    formats = {(one["name"], one["version"]) for one in runtime["spec"]["supportedModelFormats"]}
    assert asked["runtime"] == runtime["metadata"]["name"]
    assert (asked["modelFormat"]["name"], asked["modelFormat"]["version"]) in formats
    assert asked["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert service["spec"]["predictor"]["enableServiceLinks"] is False


def test_container_is_what_kserve_looks_for(runtime: Manifest) -> None:
    (container,) = runtime["spec"]["containers"]
    assert container["name"] == "kserve-container"
    (port,) = container["ports"]  # Knative takes one
    given = settings.load({}, rendering.environment(container))
    assert (port["name"], port["containerPort"]) == ("h2c", given.grpc_port)
    assert str(given.repository) == "/mnt/models"
    assert str(given.metrics_port) == runtime["spec"]["annotations"]["prometheus.kserve.io/port"]
    assert container["readinessProbe"]["grpc"] == {"port": given.grpc_port}
    assert given.drain_delay_s + given.drain_grace_s + MARGIN_S <= 30  # Kubernetes' own grace period


def test_the_runtime_lives_and_dies_as_its_probes_expect(
    runtime: Manifest, image: pod.Image, models: pathlib.Path, picture: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (container,) = runtime["spec"]["containers"]
    mounted = {"/mnt/models": models}
    with pod.running(container, rendering.environment(container), image, mounted, tmp_path) as served:
        live_and_die(served, picture, served.ports["h2c"])


def test_a_model_in_place_of_a_repository_is_named(models: pathlib.Path) -> None:
    """What happens if storageUri points at one model's folder."""
    flags = ("--repository", str(models / "lenet5"), "--grpc-port", "0", "--metrics-port", "0")
    result = subprocess.run([FOVEA, "serve", *flags], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "is the folder of one model, not a repository of models; name the folder above it" in result.stderr
