"""All PromQL in deploy/, by the name of what it is for."""

import json
import pathlib
import re
from typing import Any

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
DASHBOARD = ROOT / "deploy/grafana/fovea.json"
_COMPARISON = re.compile(r"\s(==|!=|<=|>=|<|>)\s+(?=[\d.]+\s*$)")
_METRIC = re.compile(r"(?<![\w:.\"$])(?:fovea|nv|process)_\w+")


def rules(*files: str) -> dict[str, dict[str, Any]]:
    """Name → rule."""
    read = [
        yaml.safe_load((PROMETHEUS / file).read_text()) for file in files or ("recording.rules.yml", "alerts.rules.yml")
    ]
    return {
        rule.get("record") or rule["alert"]: rule for one in read for group in one["groups"] for rule in group["rules"]
    }


def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def of_dashboard() -> dict[str, str]:
    """Panel and series → expression, as Grafana would send it for everything, and ten seconds between points."""
    written = {f"{panel['title']}: {one['refId']}": one["expr"] for panel in panels() for one in panel["targets"]}
    written |= {f"annotation {one['name']}": one["expr"] for one in dashboard()["annotations"]["list"] if "expr" in one}
    variables = {f"${one['name']}": ".*" for one in dashboard()["templating"]["list"]} | {"$__rate_interval": "10s"}
    for variable, value in variables.items():
        written = {name: expression.replace(variable, value) for name, expression in written.items()}
    assert not [expression for expression in written.values() if "$" in expression]
    return written


def that_answer() -> dict[str, str]:
    """All of it, made to answer when nothing is wrong, too: comparisons say 0 or 1, `absent` what is there."""
    written = of_dashboard()
    for name, rule in rules().items():
        written[f"rule {name}"] = rule["expr"]
        if "record" in rule:
            written[f"record {name}"] = name
    return {
        name: re.sub(r"^absent\((.*)\)$", r"\1", _COMPARISON.sub(r" \1 bool ", expression.strip()))
        for name, expression in written.items()
    }


def metrics(expression: str) -> set[str]:
    """The names of the server's metrics in an expression; recorded ones, with a colon, are not the server's."""
    return set(_METRIC.findall(expression))
