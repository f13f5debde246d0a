"""`fovea load` and its parts against real servers: Fovea's, and some that misbehave."""

import asyncio
import contextlib
import json
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
import tritonclient.grpc as triton

from protos import inference_pb2
from service import errors
from service.loadgen import ledger, payloads, plan, result, run, senders, tally, traffic
from tests.conftest import RunningServer

LOAD = [sys.executable, "-m", "service.load_cli"]
SERVICE = "inference.GRPCInferenceService"


def made(address: str, **fields: Any) -> plan.Plan:
    chosen = {"loop": plan.Closed(4), "requests_max": 60, "warmup_s": 0.0, "duration_s": 60.0}
    return plan.Plan(address, "lenet5", **{**chosen, **fields})


async def measured(chosen: plan.Plan, files: list[bytes] | None = None, means: run.Means = run.ALONE) -> result.Result:
    source = run.images(files, chosen) if files else run.pixels(chosen)
    async with run.session(chosen, source, means) as opened:
        return await opened.measure(chosen)


@pytest.mark.parametrize("streams", [0, 3])
@pytest.mark.parametrize("images", [1, 5])
@pytest.mark.parametrize("encoded", [True, False])
async def test_every_request_is_answered_and_counted(
    server: RunningServer, pngs: list[bytes], streams: int, images: int, encoded: bool
) -> None:
    chosen = made(server.address, streams=streams, images_per_request=images)
    figures = await measured(chosen, pngs[:20] if encoded else None)
    assert figures.counts == {ledger.OK: 60}
    assert figures.whole.images_ok == 60 * images
    assert figures.server is not None
    assert sum(size * runs for size, runs in figures.server.batches.items()) == 60 * images
    assert figures.latency is not None
    assert 0 < figures.latency.p50_s <= figures.latency.p99_s <= figures.latency.max_s


@pytest.mark.parametrize("streams", [0, 2])
async def test_after_a_warm_up_exactly_as_many_requests_count_as_were_asked_for(
    server: RunningServer, streams: int
) -> None:
    figures = await measured(made(server.address, loop=plan.Closed(16), streams=streams, warmup_s=0.3))
    assert figures.counts == {ledger.OK: 60}
    assert figures.whole.requests > 60


async def test_as_many_errors_are_told_as_counted(server: RunningServer) -> None:
    figures = await measured(made(server.address, deadline_s=2e-6, requests_max=20, warmup_s=0.3))
    assert figures.whole.requests > sum(figures.counts.values()) == sum(figures.sentences.values()) == 20


@pytest.mark.parametrize("streams", [0, 2])
async def test_an_open_loop_sends_what_was_asked(server: RunningServer, streams: int) -> None:
    figures = await measured(made(server.address, loop=plan.Open(500.0, "constant"), streams=streams))
    assert sum(figures.counts.values()) == figures.whole.requests == 60


async def test_a_deadline_that_cannot_be_met_is_no_goodput(server: RunningServer) -> None:
    figures = await measured(made(server.address, deadline_s=2e-6, requests_max=20, loop=plan.Closed(2)))
    assert figures.in_time == figures.good_images_per_s == 0
    assert figures.counts.keys() <= {"DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", ledger.CANCELLED}


async def test_in_a_stream_a_refusal_is_an_error_with_its_sentence(server: RunningServer) -> None:
    broken = payloads.of_images(await described(server.address), [b"no image"], 1, payloads.Parameters(None, 0))
    chosen = made(server.address, streams=2)
    ends = await sent(chosen, broken)
    assert ends.counts == {ledger.MESSAGE_ERROR: 60}
    (sentence,) = ends.sentences
    assert "image N" in sentence


async def described(address: str) -> Any:
    from service.loadgen import target

    server = target.Target(address, "lenet5")
    try:
        return await server.describe()
    finally:
        await server.close()


async def sent(chosen: plan.Plan, requests: list[bytes]) -> ledger.Ledger:
    """Run the traffic alone, without the questions before and after."""
    started_s = time.monotonic()
    ends = ledger.Ledger(tally.frame(chosen, started_s))
    async with grpc.aio.insecure_channel(chosen.address) as channel:
        sender = senders.sender(chosen, channel, requests, ends)
        try:
            await traffic.Traffic(chosen, sender, ends, started_s).run()
        finally:
            await sender.close()
    return ends


@contextlib.asynccontextmanager
async def misbehaving(unary: Callable[..., Any], stream: Callable[..., Any]) -> AsyncIterator[str]:
    """A server with these handlers, which see bytes."""
    server = grpc.aio.server()
    handlers = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(unary),
        "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def hang(*_: Any) -> None:
    await asyncio.Event().wait()


async def break_off(_: Any, context: Any) -> None:
    await context.abort(grpc.StatusCode.DATA_LOSS, "all is lost")


async def echo_numberless(requests: AsyncIterator[bytes], context: Any) -> None:
    """Answer without reading: no ids, in order."""
    async for _ in requests:
        await context.write(b"")


@pytest.mark.parametrize("streams", [0, 2])
@pytest.mark.parametrize("loop", [plan.Closed(4), plan.Open(1000.0, "constant")])
async def test_a_run_ends_although_the_server_hangs(streams: int, loop: plan.Closed | plan.Open) -> None:
    async with misbehaving(hang, hang) as address:
        chosen = made(address, loop=loop, streams=streams, requests_max=4, duration_s=0.1, give_up_s=0.1)
        ends = await sent(chosen, [b""])
    assert len(ends) == 4
    assert ends.counts.keys() <= {ledger.CANCELLED, "DEADLINE_EXCEEDED"}


async def test_a_stream_that_breaks_off_fails_what_was_under_way_and_is_opened_again() -> None:
    async with misbehaving(hang, break_off) as address:
        ends = await sent(made(address, streams=2, requests_max=12), [b""])
    assert len(ends) == 12
    # grpc.aio says INTERNAL where a message was being written as the stream ended.
    assert set(ends.counts) <= {"DATA_LOSS", "INTERNAL"}
    assert ends.counts["DATA_LOSS"] >= 2
    assert "DATA_LOSS: all is lost" in ends.sentences


async def test_answers_in_order_need_no_ids() -> None:
    async with misbehaving(hang, echo_numberless) as address:
        ends = await sent(made(address, streams=2, is_in_order=True), [b""])
    assert ends.counts == {ledger.OK: 60}


async def test_messages_carry_their_number_as_id() -> None:
    seen: list[bytes] = []

    async def note(requests: AsyncIterator[bytes], context: Any) -> None:
        async for message in requests:
            seen.append(message)
            request = inference_pb2.ModelInferRequest.FromString(message)
            answer = inference_pb2.ModelStreamInferResponse()
            answer.infer_response.id = request.id
            await context.write(answer.SerializeToString())

    request = inference_pb2.ModelInferRequest(model_name="net").SerializeToString()
    async with misbehaving(hang, note) as address:
        ends = await sent(made(address, streams=1, requests_max=12), [request])
    parsed = [inference_pb2.ModelInferRequest.FromString(message) for message in seen]
    assert [one.id for one in parsed] == [str(number) for number in range(12)]
    assert {one.model_name for one in parsed} == {"net"}
    assert ends.counts == {ledger.OK: 12}


async def test_no_server_and_no_such_model_are_explained(server: RunningServer) -> None:
    with pytest.raises(errors.StartupError, match=r"no answer from 127.0.0.1:1: .* is `fovea serve` running"):
        await measured(made("127.0.0.1:1"))
    with pytest.raises(errors.StartupError, match=r"NOT_FOUND: .*lenet6.*did you mean 'lenet5'"):
        chosen = plan.Plan(server.address, "lenet6", plan.Closed(1))
        await measured(chosen)


async def test_a_first_request_that_fails_ends_the_run_with_the_server_s_sentence(server: RunningServer) -> None:
    with pytest.raises(errors.StartupError, match=r"the first request failed: .* INVALID_ARGUMENT: image 0"):
        await measured(made(server.address), [b"no image"])


def load(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*LOAD, *arguments], capture_output=True, text=True, check=False)


def test_the_command_prints_a_table_and_writes_json(
    server: RunningServer, pngs: list[bytes], tmp_path: pathlib.Path
) -> None:
    (tmp_path / "digit.png").write_bytes(pngs[0])
    common = [server.address, "--model", "lenet5", "--requests", "40", "--warmup", "0", "--images", str(tmp_path)]
    printed = load(*common, "--json", str(tmp_path / "figures.json"))
    assert printed.returncode == 0, printed.stderr
    assert "40 OK" in printed.stdout
    assert "us CPU a request" in printed.stdout
    assert json.loads((tmp_path / "figures.json").read_text())["counts"] == {"OK": 40}
    piped = load(*common, "--json", "-", "--streams", "2", "--rate", "400", "--arrivals", "constant")
    figures = json.loads(piped.stdout)
    assert figures["plan"]["loop"]["kind"] == "open"
    assert figures["counts"] == {"OK": 40}
    assert "40 OK" in piped.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["127.0.0.1:1"], "no answer from 127.0.0.1:1"),
        (["--images", "nowhere"], "nowhere cannot be read: No such file"),
        (["--duration", "soon"], "'soon' is not a duration above zero"),
        (["--rate", "5", "--concurrency", "5"], "give one of the two"),
        (["--cpu", "4095"], "no such core"),
    ],
)
def test_mistakes_are_explained_and_end_with_a_status(arguments: list[str], sentence: str) -> None:
    ended = load("--model", "lenet5", *arguments)
    assert ended.returncode != 0
    assert sentence in " ".join(ended.stderr.replace("│", " ").split())
    assert "Traceback" not in ended.stderr


def test_ctrl_c_prints_what_was_measured_so_far(server: RunningServer) -> None:
    def answered() -> int:
        with triton.InferenceServerClient(server.address) as client:
            return int(client.get_inference_statistics("lenet5").model_stats[0].inference_count)

    before = answered()
    command = [*LOAD, server.address, "--model", "lenet5", "--duration", "100s", "--warmup", "0"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while answered() < before + 50:
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 0, stderr
    assert " OK" in stdout
    assert "images/s" in stdout
