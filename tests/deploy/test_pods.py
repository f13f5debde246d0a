"""The Pod in deploy/kubernetes as rendered: how it starts and ends, what it may do and what it gets."""

import pytest

from tests.deploy.rendering import Rendered

# What the process may take to end after its drain, in seconds.
EXIT_MARGIN_S = 5


# --- life and death of a Pod ----------------------------------------------------------------------------


def test_grace_period_covers_the_whole_end(rendered: Rendered) -> None:
    """The kubelet's clock runs from before preStop on."""
    before_s = rendered.container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain_s = sum(float(rendered.environment[f"FOVEA_DRAIN_{part}_S"]) for part in ("DELAY", "GRACE"))
    assert rendered.pod["terminationGracePeriodSeconds"] >= before_s + drain_s + EXIT_MARGIN_S


def test_a_pod_serves_on_while_its_end_gets_round(rendered: Rendered) -> None:
    before_s = rendered.container["lifecycle"]["preStop"]["sleep"]["seconds"]
    delay_s = float(rendered.environment["FOVEA_DRAIN_DELAY_S"])
    ready = rendered.container["readinessProbe"]
    assert before_s + delay_s >= ready["periodSeconds"] * ready["failureThreshold"]


@pytest.mark.parametrize(
    ("probe", "service_name", "path"),
    [
        ("startupProbe", "", "/v2/health/ready"),
        ("readinessProbe", "", "/v2/health/ready"),
        ("livenessProbe", "liveness", "/v2/health/live"),
    ],
)
def test_probe_asks_the_right_port(rendered: Rendered, probe: str, service_name: str, path: str) -> None:
    asked = rendered.container[probe]
    if "tls" in rendered.case.components:  # the kubelet's gRPC probes speak no TLS
        assert asked["httpGet"] == {"port": "metrics", "path": path}
        assert "grpc" not in asked
    else:
        assert asked["grpc"] == {"port": rendered.ports["grpc"]} | ({"service": service_name} if service_name else {})
    assert asked["timeoutSeconds"] <= asked["periodSeconds"]


def test_probes_are_patient_in_the_right_order(rendered: Rendered) -> None:
    """Starting may take longest; a busy server leaves the rotation before it is killed."""
    patience_s = {
        probe: rendered.container[probe]["periodSeconds"] * rendered.container[probe]["failureThreshold"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert patience_s["startupProbe"] > patience_s["livenessProbe"] > patience_s["readinessProbe"]


def test_rollout_keeps_capacity_or_needs_no_spare_gpu(rendered: Rendered) -> None:
    strategy = rendered.deployment["strategy"]
    assert strategy["type"] == "RollingUpdate"
    wanted = {"cpu": {"maxUnavailable": 0, "maxSurge": 1}, "gpu": {"maxUnavailable": 1, "maxSurge": 0}}
    assert strategy["rollingUpdate"] == wanted[rendered.case.overlay]


def test_disruption_budget_and_spread_select_the_pods(rendered: Rendered) -> None:
    labels = rendered.deployment["template"]["metadata"]["labels"].items()
    budget = rendered.of("PodDisruptionBudget")["spec"]
    assert budget["selector"]["matchLabels"].items() <= labels
    assert budget["maxUnavailable"] == 1
    spread = rendered.pod["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert all(one["labelSelector"]["matchLabels"].items() <= labels for one in spread)


# --- rights and resources ---------------------------------------------------------------------------------


def test_pod_meets_the_restricted_standard(rendered: Rendered) -> None:
    assert rendered.pod["securityContext"]["runAsNonRoot"] is True
    assert rendered.pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert rendered.pod["automountServiceAccountToken"] is False
    for container in (rendered.container, *rendered.pod.get("initContainers", ())):
        rights = {name: value for name, value in container["securityContext"].items() if name != "runAsUser"}
        assert rights == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_server_can_write_nowhere(rendered: Rendered) -> None:
    assert all(mount["readOnly"] is True for mount in rendered.container["volumeMounts"])


def test_repository_has_one_source(rendered: Rendered) -> None:
    (models,) = [volume for volume in rendered.pod["volumes"] if volume["name"] == "models"]
    sources = models.keys() - {"name"}
    if "models-image" in rendered.case.components:
        assert sources == {"image"}
    elif "models-init" in rendered.case.components:
        assert sources == {"emptyDir"}
        (copier,) = rendered.pod["initContainers"]
        assert copier["volumeMounts"] == [{"name": "models", "mountPath": "/models"}]
    else:
        assert models["persistentVolumeClaim"] == {"claimName": "fovea-models", "readOnly": True}


def test_limits_equal_requests(rendered: Rendered) -> None:
    """The server counts its threads from the CPU limit: without one it would take the whole node for its own."""
    resources = rendered.container["resources"]
    assert {"cpu", "memory"} <= resources["limits"].keys()
    assert resources["requests"] == resources["limits"]
    assert resources["limits"].get("nvidia.com/gpu") == {"cpu": None, "gpu": "1"}[rendered.case.overlay]
