"""deploy/kubernetes as rendered: valid for Kubernetes, and its parts agree with each other and with the server."""

import pathlib
import re
import tomllib
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service import settings
from tests.conftest import RunningServer
from tests.deploy import operator_rules, rendering, schemas
from tests.deploy.rendering import Case, Manifest, Rendered

# What the process may take to end after its drain, in seconds.
EXIT_MARGIN_S = 5
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


# --- scaling ----------------------------------------------------------------------------------------------


def test_an_autoscaler_owns_the_number(rendered: Rendered) -> None:
    is_scaled = {"hpa", "keda"} & set(rendered.case.components)
    assert ("replicas" in rendered.deployment) == (not is_scaled)


def signals() -> dict[str, str]:
    """Where a metric is asked for → the text that asks."""
    scaled = rendering.render(Case("cpu", ("hpa",))).of("HorizontalPodAutoscaler")["spec"]
    asked = {f"hpa {n}": one["pods"]["metric"]["name"] for n, one in enumerate(scaled["metrics"])}
    queries = rendering.render(Case("cpu", ("keda",))).of("ScaledObject")["spec"]["triggers"]
    asked |= {f"keda {n}": one["metadata"]["query"] for n, one in enumerate(queries)}
    rules = adapter()["rules"]["custom"]
    return asked | {f"adapter {n}": rule["seriesQuery"] for n, rule in enumerate(rules)}


def adapter() -> Manifest:
    text = (rendering.KUBERNETES / "components/hpa/adapter.yaml").read_text()
    values: Manifest = yaml.safe_load(text)
    return values


def metrics(text: str) -> set[str]:
    return set(re.findall(r"\bfovea_\w+", text))


def test_scaling_is_on_saturation_and_queue_age_in_both_ways() -> None:
    asked = signals()
    for way in ("hpa", "keda", "adapter"):
        names = {name for where, text in asked.items() if where.startswith(way) for name in metrics(text)}
        assert names == {"fovea_saturation_ratio", "fovea_queue_oldest_age_seconds"}


def test_a_server_publishes_what_scaling_asks_for(server: RunningServer) -> None:
    published = metrics(server.get("/metrics"))
    missing = {where: metrics(text) - published for where, text in signals().items() if metrics(text) - published}
    assert missing == {}


def test_both_autoscalers_agree() -> None:
    hpa = rendering.render(Case("cpu", ("hpa",))).of("HorizontalPodAutoscaler")["spec"]
    keda = rendering.render(Case("cpu", ("keda",))).of("ScaledObject")["spec"]
    deployment = rendering.render(Case("cpu", ("hpa",))).of("Deployment")
    assert hpa["scaleTargetRef"] == {key: deployment[key] for key in ("apiVersion", "kind")} | {"name": "fovea"}
    assert keda["scaleTargetRef"] == {"name": "fovea"}
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (keda["minReplicaCount"], keda["maxReplicaCount"])
    assert hpa["behavior"] == keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    targets = [one["pods"]["target"]["averageValue"] for one in hpa["metrics"]]
    assert [float(text.removesuffix("m")) / 1e3 for text in targets] == [
        float(one["metadata"]["threshold"]) for one in keda["triggers"]
    ]


# --- the image -------------------------------------------------------------------------------------------


def test_image_is_this_version_for_this_device(root: pathlib.Path, rendered: Rendered) -> None:
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    device = {"cpu": "cpu", "gpu": "cuda"}[rendered.case.overlay]
    assert rendered.container["image"] == f"fovea:{version}-{device}"


def test_arguments_are_a_verb_of_the_entry_point(rendered: Rendered, served: dict[str, Any]) -> None:
    assert "command" not in rendered.container  # the image's ENTRYPOINT, exec form, gets SIGTERM
    assert served["ENTRYPOINT"] == ['["fovea"]']
    assert rendered.container["args"] == ["serve"]
