"""deploy/kubernetes as rendered: valid for Kubernetes, and its parts agree with each other and with the server."""

import importlib.util
import tomllib
from typing import Any

import kubernetes_validate
import pytest

Manifest = dict[str, Any]

# grpc probes are stable since 1.27; the oldest release here is the oldest one checked, not the oldest that works.
KUBERNETES_VERSIONS = ["1.32", kubernetes_validate.latest_version()]
# What the process may take to end after its drain, in seconds.
EXIT_MARGIN_S = 5


def of_kind(manifests: list[Manifest], kind: str) -> Manifest:
    (manifest,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return manifest


@pytest.fixture
def deployment(manifests: list[Manifest]) -> Manifest:
    return of_kind(manifests, "Deployment")["spec"]


@pytest.fixture
def service(manifests: list[Manifest]) -> Manifest:
    return of_kind(manifests, "Service")["spec"]


@pytest.fixture
def pod(deployment: Manifest) -> Manifest:
    return deployment["template"]["spec"]


@pytest.fixture
def container(pod: Manifest) -> Manifest:
    (only,) = pod["containers"]
    return only


@pytest.fixture
def ports(container: Manifest) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container["ports"]}


@pytest.fixture
def pod_environment(container: Manifest) -> dict[str, str]:
    names = [variable["name"] for variable in container["env"]]
    assert len(set(names)) == len(names)
    return {variable["name"]: variable["value"] for variable in container["env"]}


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_every_document_is_valid(manifests: list[Manifest], version: str) -> None:
    assert manifests
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_validation_is_strict(manifests: list[Manifest]) -> None:
    manifest = of_kind(manifests, "Deployment") | {"spce": {}}
    with pytest.raises(kubernetes_validate.ValidationError, match="spce"):
        kubernetes_validate.validate(manifest, KUBERNETES_VERSIONS[-1], strict=True)


# --- settings ---------------------------------------------------------------------------------------


def fovea_names(environment: dict[str, str]) -> set[str]:
    return {name for name in environment if name.startswith("FOVEA_")}


def test_environment_holds_settings_only(pod_environment: dict[str, str], image_environment: dict[str, str]) -> None:
    settings = settings_module()
    known = {f"FOVEA_{name.upper()}" for name in settings.Settings.model_fields}
    assert fovea_names(pod_environment) - known == set()
    assert fovea_names(image_environment) - known == set()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_server_accepts_its_environment(
    pod_environment: dict[str, str],
    image_environment: dict[str, str],
    container: Manifest,
    ports: dict[str, int],
    device: str,
) -> None:
    settings = settings_module()
    environment = image_environment | {"FOVEA_DEVICE": device} | pod_environment
    given = settings.load({}, environment)
    assert given.device == device
    assert {"grpc": given.grpc_port, "metrics": given.metrics_port} == ports
    assert given.host == "0.0.0.0"  # a container's loopback is reached by neither probes nor clients
    assert str(given.repository) in {mount["mountPath"] for mount in container["volumeMounts"]}


def settings_module() -> Any:
    if importlib.util.find_spec("service") is None or importlib.util.find_spec("service.settings") is None:
        pytest.skip("NOT CHECKED: the manifests' settings, because service.settings does not exist")
    from service import settings

    return settings


def test_no_service_links(pod: Manifest, manifests: list[Manifest]) -> None:
    """A Service `fovea` would inject FOVEA_SERVICE_HOST, which the server takes for a mistyped setting."""
    assert of_kind(manifests, "Service")["metadata"]["name"].upper().startswith("FOVEA")
    assert pod["enableServiceLinks"] is False


# --- life and death of a Pod ----------------------------------------------------------------------------


def test_grace_period_covers_the_drain(pod: Manifest, pod_environment: dict[str, str]) -> None:
    drain_s = float(pod_environment["FOVEA_DRAIN_DELAY_S"]) + float(pod_environment["FOVEA_DRAIN_GRACE_S"])
    assert pod["terminationGracePeriodSeconds"] >= drain_s + EXIT_MARGIN_S


def test_drain_delay_covers_an_endpoint_update(pod_environment: dict[str, str]) -> None:
    assert float(pod_environment["FOVEA_DRAIN_DELAY_S"]) >= 5


@pytest.mark.parametrize(
    ("probe", "service_name"),
    [("startupProbe", ""), ("readinessProbe", ""), ("livenessProbe", "liveness")],
)
def test_probe_asks_the_grpc_port(container: Manifest, ports: dict[str, int], probe: str, service_name: str) -> None:
    assert container[probe]["grpc"]["port"] == ports["grpc"]
    assert container[probe]["grpc"].get("service", "") == service_name
    assert container[probe]["timeoutSeconds"] <= container[probe]["periodSeconds"]


def test_probes_are_patient_in_the_right_order(container: Manifest) -> None:
    """Starting may take longest; a busy server leaves the rotation before it is killed."""
    patience_s = {
        probe: container[probe]["periodSeconds"] * container[probe]["failureThreshold"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert patience_s["startupProbe"] > patience_s["livenessProbe"] > patience_s["readinessProbe"]


def test_rollout_keeps_capacity(deployment: Manifest) -> None:
    strategy = deployment["strategy"]
    assert strategy["type"] == "RollingUpdate"
    assert strategy["rollingUpdate"]["maxUnavailable"] == 0
    assert strategy["rollingUpdate"]["maxSurge"] >= 1


# --- the Service ---------------------------------------------------------------------------------------


def test_service_selects_the_pods(deployment: Manifest, service: Manifest) -> None:
    labels = deployment["template"]["metadata"]["labels"].items()
    assert service["selector"].items() <= labels
    assert deployment["selector"]["matchLabels"].items() <= labels


def test_service_is_headless_and_targets_named_ports(service: Manifest, ports: dict[str, int]) -> None:
    assert service["clusterIP"] == "None"
    assert {port["name"]: port["targetPort"] for port in service["ports"]} == {name: name for name in ports}
    # Headless: a client goes to the Pod itself, so the Service's number has to be the Pod's.
    assert {port["name"]: port["port"] for port in service["ports"]} == ports


def test_prometheus_scrapes_the_metrics_port(deployment: Manifest, ports: dict[str, int]) -> None:
    annotations = deployment["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "true"
    assert int(annotations["prometheus.io/port"]) == ports["metrics"]
    assert annotations["prometheus.io/path"] == "/metrics"


# --- rights and resources ---------------------------------------------------------------------------------


def test_pod_meets_the_restricted_standard(pod: Manifest, container: Manifest) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_repository_is_mounted_read_only(pod: Manifest, container: Manifest) -> None:
    claims = {volume["name"]: volume["persistentVolumeClaim"] for volume in pod["volumes"]}
    (mount,) = container["volumeMounts"]
    assert mount["readOnly"] is True
    assert claims[mount["name"]]["readOnly"] is True


def test_limits_equal_requests(container: Manifest) -> None:
    """The server counts its threads from the CPU limit: without one it would take the whole node for its own."""
    assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
    assert container["resources"]["requests"] == container["resources"]["limits"]


# --- the image -------------------------------------------------------------------------------------------


def test_image_is_this_version(root: Any, container: Manifest) -> None:
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    name, tag = container["image"].split(":")
    assert (name, tag) == ("fovea", f"{version}-cpu")


def test_arguments_are_a_verb_of_the_entry_point(container: Manifest, served: dict[str, list[str]]) -> None:
    assert "command" not in container  # the image's ENTRYPOINT, exec form, gets SIGTERM
    assert served["ENTRYPOINT"] == ['["fovea"]']
    assert container["args"] == ["serve"]
