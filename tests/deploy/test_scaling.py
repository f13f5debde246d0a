"""The autoscalers in deploy/kubernetes as rendered: they agree, and a server publishes what they scale by."""

import re

import yaml

from tests.conftest import RunningServer
from tests.deploy import rendering
from tests.deploy.rendering import Case, Manifest, Rendered


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
