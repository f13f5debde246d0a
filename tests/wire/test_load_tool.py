"""`fovea load` as a tool: several processes, ramps, reports, the capacity, a server that pauses, status for CI."""

import asyncio
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from typing import Any

import grpc
import pytest

from service import errors
from service.loadgen import capacity, generator, ledger, plan, result, run, searching
from tests.conftest import Exported, RunningServer, running

LOAD = [sys.executable, "-m", "service.load_cli"]


def made(address: str, **fields: Any) -> plan.Plan:
    chosen = {"loop": plan.Closed(4), "warmup_s": 0.0, "duration_s": 60.0}
    return plan.Plan(address, "lenet5", **{**chosen, **fields})


def load(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*LOAD, *arguments], capture_output=True, text=True, timeout=300, check=False)


# --- several processes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [0, 3])
async def test_processes_together_send_what_was_asked_and_count_it_once(server: RunningServer, streams: int) -> None:
    chosen = made(server.address, loop=plan.Closed(5), streams=streams, requests_max=200)
    async with run.session(chosen, run.pixels(chosen), run.Means(processes=2)) as opened:
        first = await opened.measure(chosen)
        again = await opened.measure(chosen)
    for figures in (first, again):
        assert figures.counts == {ledger.OK: 200}
        assert figures.generator.processes == 2
        assert figures.server is not None
        assert sum(size * runs for size, runs in figures.server.batches.items()) == 200


async def test_a_process_that_dies_ends_the_run_with_a_sentence(server: RunningServer) -> None:
    chosen = made(server.address, loop=plan.Open(50.0))
    async with run.session(chosen, run.pixels(chosen), run.Means(processes=2)) as opened:
        workers = generator_processes()
        assert len(workers) == 2

        def kill(progress: generator.Progress) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(workers[1], signal.SIGKILL)

        with pytest.raises(errors.StartupError, match="generator process 1 ended with status -9; the run was given up"):
            await asyncio.wait_for(opened.measure(chosen, kill), 60.0)
    assert generator_processes() == []


def generator_processes() -> list[int]:
    children = pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes()]


async def test_a_run_of_several_processes_is_stopped_early_and_keeps_what_it_measured(server: RunningServer) -> None:
    chosen = made(server.address, loop=plan.Open(100.0))
    async with run.session(chosen, run.pixels(chosen), run.Means(processes=2)) as opened:

        def stop(progress: generator.Progress) -> None:
            if progress.ok >= 20:
                opened.stop()

        figures = await asyncio.wait_for(opened.measure(chosen, stop), 60.0)
    assert figures.counts[ledger.OK] >= 20
    assert figures.measured_s < 50


# --- the command ----------------------------------------------------------------------------------------


def test_a_ramp_over_two_processes_writes_a_report_with_the_server_s_stages(
    server: RunningServer, tmp_path: pathlib.Path
) -> None:
    report, figures_path = tmp_path / "report.html", tmp_path / "figures.json"
    ended = load(
        server.address, "--model", "lenet5", "--rate", "20..120", "--duration", "3s", "--warmup", "0", "--processes",
        "2", "--arrivals", "constant", "--metrics", server.http + "/metrics", "--report", str(report),
        "--json", str(figures_path),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(figures_path.read_text())
    assert sum(figures["counts"].values()) == pytest.approx(210, abs=2)
    offered = [window["offered_per_s"] for window in figures["windows"]]
    assert offered == sorted(offered)
    assert (offered[0], offered[-1]) == (pytest.approx(20, abs=10), pytest.approx(120, abs=10))
    assert {stage["name"] for stage in figures["stages"]} >= {"queue", "run"}
    assert "Latency over rate" in report.read_text()
    assert "the server&#x27;s /metrics" in report.read_text() or "the server's /metrics" in report.read_text()


def test_several_rates_are_one_run_each(server: RunningServer, tmp_path: pathlib.Path) -> None:
    report = tmp_path / "report.html"
    ended = load(
        server.address, "--model", "lenet5", "--rate", "20,40", "--duration", "1s", "--warmup", "0", "--json", "-",
        "--report", str(report),
    )  # fmt: skip
    runs = json.loads(ended.stdout)["runs"]
    assert [one["plan"]["loop"]["rate_per_s"] for one in runs] == [20.0, 40.0]
    assert report.read_text().count("Throughput over time") == 2


@pytest.mark.parametrize(
    ("conditions", "status"),
    [(["p99>60s", "errors>0"], 0), (["p99>60s", "throughput<1000000000"], 3), (["p50>1us"], 3)],
)
def test_conditions_decide_the_status(server: RunningServer, conditions: list[str], status: int) -> None:
    flags = [flag for condition in conditions for flag in ("--fail-if", condition)]
    ended = load(server.address, "--model", "lenet5", "--requests", "30", "--warmup", "0", *flags)
    assert ended.returncode == status, ended.stderr
    assert ("fovea load: failed, " in ended.stderr) == (status == 3)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rate", "fast"], "write 200, 100,200,400"),
        (["--fail-if", "p99>50"], "is no condition; write p50"),
        (["--ramp", "5s"], "--ramp needs two rates"),
        (["--p99", "50ms"], "--find-capacity and --p99 belong together"),
        (["--find-capacity"], "--find-capacity and --p99 belong together"),
        (["--find-capacity", "--p99", "5ms", "--rate", "5"], "leave --rate and --concurrency out"),
        (["--concurrency", "2", "--processes", "3"], "there are only 2"),
        (["--cpu", "a"], "no such core"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], sentence: str) -> None:
    ended = load("--model", "lenet5", *arguments)
    assert ended.returncode in {1, 2}
    assert sentence in " ".join(ended.stderr.replace("│", " ").split())
    assert "Traceback" not in ended.stderr


def test_what_is_wrong_with_the_server_or_the_request_is_one_sentence(
    server: RunningServer, tmp_path: pathlib.Path
) -> None:
    few = ["--requests", "5", "--warmup", "0"]
    for arguments, sentence in (
        (["--model", "lenet6"], "NOT_FOUND: .*did you mean 'lenet5'"),
        (["--model", "lenet5", "--batch", "4000"], "the first request failed: .*(RESOURCE_EXHAUSTED|INVALID_ARGUMENT)"),
        (["--model", "lenet5", "--metrics", "http://127.0.0.1:1/metrics"], "--metrics .*/metrics cannot be reached "),
        (["--model", "lenet5", "--metrics", server.http + "/nothing"], "--metrics .*/nothing answers 404 Not Found; "),
    ):  # fmt: skip
        ended = load(server.address, *few, *arguments)
        assert ended.returncode == 1, ended.stdout
        assert re.fullmatch(f"fovea load: .*{sentence}.*\n", ended.stderr), ended.stderr


@pytest.fixture
def certificate(tmp_path: pathlib.Path) -> tuple[bytes, bytes]:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
    subprocess.run([*command, "-days", "1", "-subj", "/CN=localhost"], check=True, capture_output=True, timeout=60)
    return key.read_bytes(), certificate.read_bytes()


async def test_a_server_that_wants_tls_is_told_from_none(certificate: tuple[bytes, bytes]) -> None:
    server = grpc.aio.server()
    credentials = grpc.ssl_server_credentials([certificate])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        chosen = made(f"127.0.0.1:{port}")
        with pytest.raises(errors.StartupError, match=r"no answer from .* it may want TLS"):
            async with run.session(chosen, run.pixels(chosen)):
                pass
    finally:
        await server.stop(0)


@pytest.mark.slow
def test_ctrl_c_in_a_search_reports_what_was_tried(server: RunningServer, tmp_path: pathlib.Path) -> None:
    report = tmp_path / "report.html"
    command = [*LOAD, server.address, "--model", "lenet5", "--find-capacity", "--p99", "10s", "--budget", "10m"]
    running_load = subprocess.Popen(
        [*command, "--processes", "2", "--report", str(report)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running_load.stderr is not None
    assert "closed loop" in running_load.stderr.readline()
    running_load.send_signal(signal.SIGINT)
    stdout, stderr = running_load.communicate(timeout=60)
    assert running_load.returncode == 3, stderr
    assert "interrupted before a rate was verified" in stdout
    assert "</html>" in report.read_text()


# --- capacity and pauses --------------------------------------------------------------------------------


@pytest.mark.slow
async def test_the_capacity_that_is_found_is_verified_within_the_budget(server: RunningServer) -> None:
    """With a bound that any rate below the server's own limit meets, however busy this machine is."""
    chosen = made(server.address)
    async with run.session(chosen, run.pixels(chosen)) as opened:
        wanted = capacity.Wanted(5.0, errors_share=0.05, precision=0.3)
        began_s = time.monotonic()
        found = await searching.Search(opened, chosen, wanted, 30.0, lambda name: None).find()
    assert time.monotonic() - began_s < 60.0
    assert found.rate_per_s is not None, found.ended
    assert found.verification is not None
    assert found.verification.plan["loop"]["rate_per_s"] == found.rate_per_s
    assert found.trials[-1].kind == "verify"
    assert found.trials[-1].is_met
    json.dumps(found.as_json(), allow_nan=False)


@pytest.mark.slow
async def test_a_pause_of_one_second_shows_in_the_p99_of_an_open_loop(
    exported: Exported, tmp_path: pathlib.Path
) -> None:
    """SIGSTOP for a second in 20: 5 % of what comes has to wait for what is left of that second, 1 % for 0.8 s of it.

    A closed loop of one caller sees one long answer, and its p99 nothing: that is what counting from the intended
    time is for.
    """
    with running(exported.repository, tmp_path / "log") as paused:
        opened_loop = await measured_with_a_pause(paused, plan.Open(40.0, "constant"))
        closed_loop = await measured_with_a_pause(paused, plan.Closed(1))
    assert opened_loop.latency is not None
    assert opened_loop.latency.p99_s > 0.6
    assert opened_loop.latency.max_s > 0.9
    assert opened_loop.failed == 0
    assert closed_loop.latency is not None
    assert closed_loop.latency.max_s > 0.9
    assert closed_loop.latency.p99_s < opened_loop.latency.p99_s


async def measured_with_a_pause(server: RunningServer, loop: plan.Closed | plan.Open) -> result.Result:
    chosen = made(server.address, loop=loop, duration_s=20.0)

    async def pause() -> None:
        await asyncio.sleep(8.0)  # the run's own time: what is measured is a pause in it
        server.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.0)
        server.process.send_signal(signal.SIGCONT)

    async with run.session(chosen, run.pixels(chosen)) as opened:
        pausing = asyncio.create_task(pause())
        figures = await opened.measure(chosen)
        await pausing
    return figures
