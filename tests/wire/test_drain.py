"""SIGTERM under open-loop load: callers that do not wait for answers, and go on sending while the server ends."""

import asyncio
import dataclasses
import itertools
import pathlib
import signal
import time
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from export import digits
from protos import inference_pb2, inference_pb2_grpc
from service import client
from tests.conftest import Exported, RunningServer, running

DELAY_S, GRACE_S = 0.5, 20.0
EXIT_MARGIN_S = 5.0
"""What the manifests allow for the process to end after its drain; tests/deploy compares it with them."""

RATE = 200.0
"""Requests a second, a third of them in streams."""

STREAMS = 2
TIMEOUT_S = 30.0

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
# grpc.aio says this by itself when it was writing as the server ended the stream.
OF_THE_CLIENT = (grpc.StatusCode.INTERNAL, "Internal error from Core")


@dataclasses.dataclass
class Seen:
    """What the callers saw, in seconds of one clock."""

    ok_sent_s: list[float] = dataclasses.field(default_factory=list)
    """When each request that was answered with OK was sent."""
    refused_s: list[float] = dataclasses.field(default_factory=list)
    """When each refusal came."""
    wrong: list[object] = dataclasses.field(default_factory=list)
    not_ready_s: float = float("inf")
    term_s: float = float("inf")
    exit_s: float = float("inf")


class Callers:
    """Unary calls and streams at a fixed rate, whatever comes back, until `stop`."""

    def __init__(self, address: str, requests: list[inference_pb2.ModelInferRequest], seen: Seen) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._stub = inference_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._requests = itertools.cycle(requests)
        self._seen = seen
        self._stopped, self._answered = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        streams = [asyncio.create_task(self._stream()) for _ in range(STREAMS)]
        calls = []
        async for _ in self._ticks(RATE * 2 / 3):
            calls.append(asyncio.create_task(self._call()))
        await asyncio.gather(*streams, *calls)
        await self._channel.close()

    def stop(self) -> None:
        self._stopped.set()

    async def have_answers(self, count: int) -> None:
        """Wait for so many."""
        async with asyncio.timeout(TIMEOUT_S):
            while len(self._seen.ok_sent_s) < count:
                await self._answered.wait()
                self._answered.clear()

    def _ok(self, sent_s: float) -> None:
        self._seen.ok_sent_s.append(sent_s)
        self._answered.set()

    async def _ticks(self, rate: float) -> AsyncIterator[None]:
        """The moments to send at; those that were missed come at once."""
        next_s = time.monotonic()
        while not self._stopped.is_set():
            yield
            next_s += 1 / rate
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))

    async def _call(self) -> None:
        sent_s = time.monotonic()
        try:
            await self._stub.ModelInfer(next(self._requests), timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            self._seen.refused_s.append(time.monotonic())
            if error.code() is not UNAVAILABLE:
                self._seen.wrong.append(error)
        else:
            self._ok(sent_s)

    async def _stream(self) -> None:
        sent_s: dict[str, float] = {}

        async def messages() -> AsyncIterator[inference_pb2.ModelInferRequest]:
            numbers = itertools.count()
            async for _ in self._ticks(RATE / 3 / STREAMS):
                message = inference_pb2.ModelInferRequest()
                message.CopyFrom(next(self._requests))
                message.id = str(next(numbers))
                sent_s[message.id] = time.monotonic()
                yield message

        try:
            async for answer in self._stub.ModelStreamInfer(messages()):
                if answer.error_message:
                    self._seen.wrong.append(answer.error_message)
                self._ok(sent_s.pop(answer.infer_response.id))
        except grpc.aio.AioRpcError as error:
            self._seen.refused_s.append(time.monotonic())
            if error.code() is not UNAVAILABLE and (error.code(), error.details()) != OF_THE_CLIENT:
                self._seen.wrong.append(error)


async def watch(address: str, seen: Seen) -> None:
    """Note when readiness fails."""
    async with grpc.aio.insecure_channel(address) as channel:
        async for answer in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()):
            if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                seen.not_ready_s = time.monotonic()
                return


async def terminated(server: RunningServer, requests: list[inference_pb2.ModelInferRequest], after: int) -> Seen:
    """Load a server, end it after so many answers, go on until it is gone."""
    seen = Seen()
    callers = Callers(server.address, requests, seen)
    watching = asyncio.create_task(watch(server.address, seen))
    load = asyncio.create_task(callers.run())
    await callers.have_answers(after)
    seen.term_s = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(server.process.wait, 2 * GRACE_S) == 0
    seen.exit_s = time.monotonic()
    callers.stop()
    await asyncio.wait_for(asyncio.gather(load, watching), TIMEOUT_S)
    return seen


@pytest.fixture(scope="module")
def requests(exported: Exported, held_out: digits.Digits, pngs: list[bytes]) -> list[inference_pb2.ModelInferRequest]:
    """Files and pixels in turn."""
    described = client.Signature("lenet5", "image", "probabilities")
    files = [client.image_request(described, [png]) for png in pngs[:8]]
    pixels = [client.pixel_request(described, image[None]) for image in held_out.images_nhwc[:8]]
    return list(itertools.chain.from_iterable(zip(files, pixels, strict=True)))


# Two always, twenty with the slow tests; each ends the server at another moment.
REPETITIONS = [pytest.param(number, marks=() if number < 2 else pytest.mark.slow) for number in range(20)]


@pytest.mark.parametrize("number", REPETITIONS)
async def test_sigterm_under_open_loop_load(
    exported: Exported, requests: list[inference_pb2.ModelInferRequest], tmp_path: pathlib.Path, number: int
) -> None:
    """Readiness fails first; what was accepted is answered; refusals are UNAVAILABLE; the end comes in time."""
    flags = ("--drain-delay-s", str(DELAY_S), "--drain-grace-s", str(GRACE_S))
    with running(exported.repository, tmp_path / "log", *flags) as server:
        seen = await terminated(server, requests, after=40 + 13 * number)
        log = server.log()
    assert seen.wrong == []
    assert seen.term_s < seen.not_ready_s < min(seen.refused_s)
    assert any(sent_s > seen.not_ready_s for sent_s in seen.ok_sent_s)  # not ready, and still taking work
    assert f"drained: {len(seen.ok_sent_s)} requests answered with OK, 0 with an error" in log
    assert "cut off" not in log
    assert seen.exit_s - seen.term_s < DELAY_S + GRACE_S + EXIT_MARGIN_S
