"""Debian's Prometheus: fetched, started on our configuration, and asked."""

import contextlib
import json
import math
import os
import pathlib
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.deploy import expressions

FETCHED = expressions.ROOT / ".tools/prometheus"
_SCRIPT = expressions.ROOT / "tests/tools/prometheus.sh"
_STARTS_WITHIN_S = 90.0


def folder() -> pathlib.Path:
    """Where prometheus and promtool are, fetched if they are not there; the test is skipped where that cannot be."""
    fetched = subprocess.run([_SCRIPT], capture_output=True, text=True, timeout=300, check=False)
    if fetched.returncode != 0:
        pytest.skip(f"NOT CHECKED: Debian's Prometheus could not be fetched: {fetched.stderr[-300:]}")
    return pathlib.Path(fetched.stdout.strip())


class Prometheus:
    """A running one, and what it answers."""

    def __init__(self, address: str) -> None:
        self.address = address

    def query(self, expression: str) -> list[dict[str, Any]]:
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://{self.address}/api/v1/query?{query}", timeout=30) as response:
            return json.load(response)["data"]["result"]

    def value(self, expression: str) -> float:
        (found,) = self.query(expression)
        return float(found["value"][1])

    def has_data(self, expression: str) -> bool:
        return any(not math.isnan(float(one["value"][1])) for one in self.query(expression))


def _configured(path: pathlib.Path, target: str) -> pathlib.Path:
    """Our configuration, for this server, and in a hurry."""
    written = yaml.safe_load((expressions.PROMETHEUS / "prometheus.yml").read_text())
    written["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    written["rule_files"] = [str(expressions.PROMETHEUS / name) for name in written["rule_files"]]
    (job,) = written["scrape_configs"]
    job["static_configs"] = [{"targets": [target]}]
    path.write_text(yaml.safe_dump(written))
    return path


@contextlib.contextmanager
def scraping(place: pathlib.Path, target: str) -> Iterator[Prometheus]:
    binary = folder() / "prometheus"
    config, log_path = _configured(place / "prometheus.yml", target), place / "log"
    command = [
        binary, f"--config.file={config}", f"--storage.tsdb.path={place / 'data'}",
        "--web.listen-address=127.0.0.1:0",
    ]  # fmt: skip
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"GOMAXPROCS": "1"})
    try:
        yield Prometheus(_listening(process, log_path))
    finally:
        process.terminate()
        process.wait(60)


def _listening(process: "subprocess.Popen[bytes]", log_path: pathlib.Path) -> str:
    give_up_s = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < give_up_s and process.poll() is None:
        found = re.search(r'msg="Listening on" address=(127\.0\.0\.1:[1-9]\d*)', log_path.read_text())
        if found and "Server is ready to receive web requests" in log_path.read_text():
            return found[1]
        time.sleep(0.05)  # between looks at another process's log; bounded above
    raise AssertionError(f"Prometheus did not start:\n{log_path.read_text()}")
