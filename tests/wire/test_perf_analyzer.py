"""NVIDIA's perf_analyzer completes runs, and our statistics and metrics agree with what it counted."""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest
import tritonclient.grpc as triton
from prometheus_client import parser

from tests.conftest import Exported, RunningServer, running

pytestmark = pytest.mark.slow

SCRIPT = pathlib.Path(__file__).parent.parent / "tools" / "perf_analyzer.sh"
MODEL = "lenet5"
REQUESTS = 400
HANGS_S, ATTEMPTS = 40, 3
"""It hangs at the end of a run now and then, also against a server that does nothing; a run takes four seconds."""
SHARED = ("--shared-memory", "system", "--output-shared-memory-size", "4096")
MODES: dict[str, tuple[int, int, Sequence[str]]] = {
    # name → requests in flight at most, samples of a request, flags
    "unary": (4, 1, ("--concurrency-range", "4")),
    "asynchronous": (8, 1, ("--async", "--concurrency-range", "8")),
    "streaming": (8, 1, ("--async", "--streaming", "--concurrency-range", "8")),
    "shared memory": (4, 1, (*SHARED, "--concurrency-range", "4")),
    "shared memory, streaming": (4, 1, (*SHARED, "--async", "--streaming", "--concurrency-range", "4")),
    "batch": (4, 8, ("--async", "-b", "8", "--concurrency-range", "4")),
    "shared memory, batch": (4, 8, (*SHARED, "-b", "8", "--concurrency-range", "4")),
    "rate": (REQUESTS, 1, ("--request-rate-range", "200", "--request-distribution", "poisson")),
    "rate, streaming": (REQUESTS, 1, ("--async", "--streaming", "--request-rate-range", "200")),
    "compressed": (4, 1, ("--async", "--grpc-compression-algorithm", "gzip", "--concurrency-range", "4")),
}


@dataclasses.dataclass(frozen=True)
class Tool:
    """The binary, and the environment that it needs."""

    binary: str
    environment: dict[str, str]

    def run(self, server: RunningServer, *flags: str) -> str:
        """What it printed. Raises TimeoutExpired, if it hangs."""
        command = ["nice", self.binary, "-i", "grpc", "-m", MODEL, "-u", server.address, *flags]
        result = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=HANGS_S, check=False
        )
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
        sys.stdout.write(result.stdout)  # shown by pytest -rP
        return result.stdout


@pytest.fixture(scope="module")
def tool() -> Tool:
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("NVIDIA publishes perf_analyzer for Linux on x86_64 only")
    environment = os.environ | {"PYTHON": sys.executable}
    fetched = subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, timeout=300, check=False)
    if fetched.returncode != 0:
        pytest.skip(f"perf_analyzer could not be fetched, so it was NOT run: {fetched.stderr[-300:]}")
    assignment, binary = fetched.stdout.split()
    name, _, folder = assignment.partition("=")
    return Tool(binary, os.environ | {name: folder})


@pytest.fixture(scope="module")
def served(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    with running(exported.repository, log, "--device", "cpu", "--allow-client-shm") as server:
        yield server


@dataclasses.dataclass(frozen=True)
class Counts:
    """What the server has counted: by ModelStatistics, in all and over the batch sizes, and by its metrics."""

    requests: int
    failed: int
    samples: int
    runs: int
    samples_of_sizes: int
    runs_of_sizes: int
    requests_in_metrics: int
    samples_in_metrics: int
    runs_in_metrics: int

    def __sub__(self, before: "Counts") -> "Counts":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(before), strict=True)
        return Counts(*(now - then for now, then in pairs))


def counts(server: RunningServer) -> Counts:
    with triton.InferenceServerClient(server.address) as client:
        (told,) = client.get_inference_statistics(MODEL).model_stats
    metrics = {
        sample.name: int(sample.value)
        for family in parser.text_string_to_metric_families(server.get("/metrics"))
        for sample in family.samples
        if sample.labels.get("model") == MODEL and sample.labels.get("code", "OK") == "OK"
    }
    sizes = [(one.batch_size, one.compute_infer.count) for one in told.batch_stats]
    return Counts(
        told.inference_stats.success.count,
        told.inference_stats.fail.count,
        told.inference_count,
        told.execution_count,
        sum(size * count for size, count in sizes),
        sum(count for _, count in sizes),
        metrics.get("fovea_requests_total", 0),
        metrics["fovea_images_total"],
        metrics["fovea_batch_size_count"],
    )


def reported(output: str, what: str) -> int:
    found = re.search(rf"{what}: (\d+)", output)
    assert found, output
    return int(found[1])


def assert_durations_add_up(of_server: str) -> None:
    parts = re.search(
        r"Avg request latency: (\d+) usec \(overhead (\d+) usec \+ queue (\d+) usec \+ compute input (\d+) usec"
        r" \+ compute infer (\d+) usec \+ compute output (\d+) usec\)",
        of_server,
    )
    assert parts, of_server
    latency, *rest = map(int, parts.groups())
    assert abs(latency - sum(rest)) <= len(rest)  # each of them is cut off to whole microseconds
    assert all(part >= 0 for part in rest)


@pytest.mark.parametrize("mode", MODES)
def test_every_request_is_counted_once(served: RunningServer, tool: Tool, mode: str) -> None:
    in_flight, rows, flags = MODES[mode]
    for attempt in range(ATTEMPTS):
        before = counts(served)
        try:
            output = tool.run(served, *flags, "--request-count", str(REQUESTS))
            break
        except subprocess.TimeoutExpired:
            if attempt + 1 == ATTEMPTS:
                pytest.fail(f"perf_analyzer hung {ATTEMPTS} times")
    counted = counts(served) - before
    runs = counted.runs
    assert counted == Counts(REQUESTS, 0, REQUESTS * rows, runs, REQUESTS * rows, runs, REQUESTS, REQUESTS * rows, runs)
    client, _, of_server = output.partition("Server:")
    assert reported(client, "Request count") == REQUESTS
    answered = reported(of_server, "Successful request count")
    assert REQUESTS - in_flight <= answered <= REQUESTS  # it asks for them when the last answers are still on their way
    assert reported(of_server, "Inference count") == answered * rows
    assert 0 < reported(of_server, "Execution count") <= runs
    assert_durations_add_up(of_server)


@pytest.mark.parametrize("mode", [(), ("--streaming",)], ids=["unary", "streaming"])
def test_windows_of_time_agree_but_for_their_edges(served: RunningServer, tool: Tool, mode: Sequence[str]) -> None:
    for attempt in range(ATTEMPTS):
        try:
            output = tool.run(
                served, "--async", *mode, "--concurrency-range", "8", "-p", "1000", "-r", "3", "-s", "999"
            )
            break
        except subprocess.TimeoutExpired:
            if attempt + 1 == ATTEMPTS:
                pytest.fail(f"perf_analyzer hung {ATTEMPTS} times")
    client, _, of_server = output.partition("Server:")
    sent, answered = reported(client, "Request count"), reported(of_server, "Successful request count")
    assert sent > 0
    assert abs(sent - answered) <= 0.01 * sent + 8  # windows of client and server begin at different moments
    assert reported(of_server, "Inference count") == answered
    assert 0 < reported(of_server, "Execution count") <= answered
    assert_durations_add_up(of_server)
