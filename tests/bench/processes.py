"""Processes of a benchmark: each on its own core, their CPU time and memory, and how they are ended.

Path: engine → **processes** → `fovea serve`, `fovea load`, a server that does nothing.

Needs nothing but Python and /proc, so that the GPU benchmark can use it too.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence, Set
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]
BUILD = ROOT / "build/bench"
READY_WITHIN_S = 300.0

SERVER_CORES, LOAD_CORES = frozenset({0}), frozenset({1})
ALL_CORES = frozenset(range(os.cpu_count() or 1))
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_READY = re.compile(r"ready: gRPC on (\S+:\d+)(?:, metrics on (http://\S+)/metrics)?")


@dataclasses.dataclass(frozen=True)
class Server:
    """A server process that is ready."""

    process: "subprocess.Popen[bytes]"
    address: str
    http: str

    def cpu_s(self) -> float:
        """User and system seconds so far, in steps of 10 ms."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def resident_bytes(self) -> int:
        """Resident memory now."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def waiting(self) -> float:
        """Samples that wait now, by the server's own gauge."""
        with urllib.request.urlopen(self.http + "/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("fovea_queue_samples{"))


def start(command: Sequence[str], cores: Set[int], **streams: Any) -> "subprocess.Popen[bytes]":
    """Start a Python module on these cores, which it inherits from this thread; on all, if none of them is there."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, before & cores or before)
        return subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, **streams)
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def serving(command: Sequence[str], cores: Set[int], log_path: pathlib.Path) -> Iterator[Server]:
    """Start a server, wait until its log says that it is ready, and end it.

    Raises:
        RuntimeError: it does not become ready; with its log.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("wb") as log:
        process = start(command, cores, stderr=log)
    try:
        yield _ready(process, log_path)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def fovea(repository: pathlib.Path, *flags: str) -> list[str]:
    """Return the command of a server on free ports."""
    ports = ("--grpc-port", "0", "--metrics-port", "0")
    return ["fovea", "serve", "--repository", str(repository), *ports, "--log-format", "console", *flags]


def _ready(process: "subprocess.Popen[bytes]", log_path: pathlib.Path) -> Server:
    give_up_s = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < give_up_s and process.poll() is None:
        found = _READY.search(log_path.read_text())
        if found:
            return Server(process, found[1], found[2] or "")
        time.sleep(0.02)
    raise RuntimeError(f"the server did not become ready:\n{log_path.read_text()[-3000:]}")


def load(address: str, model: str, *arguments: str) -> dict[str, Any]:
    """Run the load generator on its core and return its figures.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    command = ["service.load_cli", address, "--model", model, "--json", "-", *arguments]
    process = start(command, LOAD_CORES, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    stdout, stderr = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{stderr.decode()[-3000:]}")
    figures: dict[str, Any] = json.loads(stdout)
    return figures


class Worker:
    """A process on its cores that measures what it is asked, line by line, and holds what it loaded."""

    def __init__(self, module: str, cores: Set[int]) -> None:
        self._process = start([module], cores, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, **question: Any) -> Any:
        """Return the answer to a question."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None, "opened as a pipe"
        assert stdout is not None, "opened as a pipe"
        stdin.write(json.dumps(question).encode() + b"\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended with {self._process.wait()} at {question}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
