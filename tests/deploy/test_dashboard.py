"""The dashboard has what Grafana needs, and rules and dashboard ask for metrics that a server has."""

import itertools
import re

from prometheus_client import parser

from tests.conftest import RunningServer
from tests.deploy import expressions

UNITS = {"s", "short", "percentunit", "reqps", "bytes", "watt"}  # Grafana's names
GPU_ONLY = re.compile(r"^nv_gpu_")


def test_every_metric_that_is_asked_for_is_there(server: RunningServer) -> None:
    families = list(parser.text_string_to_metric_families(server.get("/metrics")))
    there = {line.split()[2] for line in server.get("/metrics").splitlines() if line.startswith("# TYPE ")}
    there |= {
        family.name + ending
        for family in families
        if family.type == "histogram"
        for ending in ("_bucket", "_sum", "_count")
    }
    for name, expression in expressions.that_answer().items():
        asked = {metric for metric in expressions.metrics(expression) if not GPU_ONLY.match(metric)}
        assert asked <= there, f"{name} asks for {asked - there}"


def test_the_names_in_expressions_are_found() -> None:
    found = expressions.metrics('sum(rate(nv_x_us{a="fovea_y"}[5m])) / job:fovea_z:avg + process_q > fovea_w')
    assert found == {"nv_x_us", "process_q", "fovea_w"}


def test_panels_have_what_grafana_needs() -> None:
    board = expressions.dashboard()
    assert (board["uid"], board["schemaVersion"] >= 39, "id" in board) == ("fovea-serving", True, False)
    everything = board["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    for panel in expressions.panels():
        title = panel["title"]
        assert panel["type"] in {"stat", "timeseries", "heatmap"}, title
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, title
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, title
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0, title
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"], title
            assert (target.get("format") == "heatmap") == (panel["type"] == "heatmap"), title
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                of_metric = label in {"instance", "gpu_uuid"}
                assert label == "le" or of_metric or re.search(rf"by \([^)]*\b{label}\b", target["expr"]), title
        if panel["type"] == "heatmap":
            assert panel["options"]["calculate"] is False, title  # the buckets are Prometheus' own
    assert len({panel["title"] for panel in expressions.panels()}) == len(expressions.panels())


def test_panels_lie_beside_each_other() -> None:
    for one, other in itertools.combinations(expressions.dashboard()["panels"], 2):
        a, b = one["gridPos"], other["gridPos"]
        assert 0 <= a["x"] <= a["x"] + a["w"] <= 24
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below, (one["title"], other["title"])


def test_variables_are_used_and_known() -> None:
    board = expressions.dashboard()
    known = {one["name"] for one in board["templating"]["list"]}
    asked = {target["expr"] for panel in expressions.panels() for target in panel["targets"]}
    used = {name for expression in asked for name in re.findall(r"\$(?!__)(\w+)", expression)}
    assert used | {"datasource"} == known
    assert all("$__rate_interval" in expression for expression in asked if "rate(" in expression)
