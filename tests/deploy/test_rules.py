"""The rules, by promtool: the default suite takes one that is there, the slow tests fetch Debian's."""

import pathlib
import shutil
import subprocess

import pytest

from tests.deploy import expressions, prometheus


@pytest.fixture(scope="module", params=["found", pytest.param("fetched", marks=pytest.mark.slow)])
def promtool(request: pytest.FixtureRequest) -> str:
    if request.param == "fetched":
        return str(prometheus.folder() / "promtool")
    found = shutil.which("promtool") or shutil.which("promtool", path=str(prometheus.FETCHED))
    if found is None:
        pytest.skip("NOT CHECKED: rules and alerts, because promtool is not here; the slow tests fetch it")
    return found


def run(*command: str | pathlib.Path) -> str:
    """In the folder of the rules, where their names are relative to."""
    result = subprocess.run(
        command, cwd=expressions.PROMETHEUS, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_rules_and_configurations_are_valid(promtool: str) -> None:
    counted = run(promtool, "check", "rules", "recording.rules.yml", "alerts.rules.yml")
    assert counted.count("SUCCESS") == 2
    for name in ("prometheus.yml", "prometheus-dns.yml"):
        assert "2 rule files found" in run(promtool, "check", "config", name)


def test_rules_make_of_counters_what_was_worked_out_by_hand(promtool: str) -> None:
    assert "SUCCESS" in run(promtool, "test", "rules", "rules.test.yml")


def test_every_rule_is_tested() -> None:
    tests = (expressions.PROMETHEUS / "rules.test.yml").read_text()
    indirectly = {"instance_resource:fovea_busy_seconds:rate1m"}  # by what is made of it
    assert [name for name in expressions.rules().keys() - indirectly if name not in tests] == []


def test_alerts_say_what_is_wrong_what_it_means_and_what_to_do() -> None:
    for name, rule in expressions.rules("alerts.rules.yml").items():
        assert rule["labels"]["severity"] in {"page", "ticket"}, name
        assert rule["annotations"].keys() == {"summary", "meaning", "action"}, name
        assert all(len(said) > 20 for said in rule["annotations"].values()), name
