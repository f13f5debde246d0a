"""Which calls are sent again, when, and how often at most."""

import asyncio
import random
from collections.abc import AsyncIterator

import grpc
import hypothesis
import pytest
from google.protobuf import message as protobuf_message
from hypothesis import strategies

from protos import rpc_pb2
from service import client
from service.client import retries
from tests.client import scripted
from tests.client.scripted import Context, Request, Response, StreamResponse


@hypothesis.given(strategies.integers(1, 10_000), strategies.integers())
def test_pauses_grow_up_to_two_seconds_and_differ(attempt: int, seed: int) -> None:
    pause_s = retries.backoff_s(attempt, random.Random(seed))
    assert 0.0 <= pause_s <= retries.bound_s(attempt) <= retries.PAUSE_S_MAX
    assert retries.bound_s(1) == retries.FIRST_PAUSE_S


@hypothesis.given(strategies.lists(strategies.sampled_from(["answer", "take", "take"]), max_size=2000))
def test_what_is_sent_again_is_a_tenth_of_what_is_answered_and_the_reserve(events: list[str]) -> None:
    budget = retries.Budget()
    taken = sum(budget.take(0.0) if event == "take" else budget.earn() or 0 for event in events)
    assert taken <= budget.TOKENS_MAX + budget.PER_SUCCESS * events.count("answer")


def test_a_budget_that_is_used_up_trickles() -> None:
    budget = retries.Budget()
    while budget.take(10.0):
        pass
    assert not budget.take(10.5)
    assert budget.take(11.5)


class Refusing:
    """Refuses so many times, with a pushback or a code, then answers; counts what it is asked."""

    def __init__(self, times: int, pushback_ms: int | None, code: grpc.StatusCode) -> None:
        self.asked = 0
        self._times = times
        self._pushback_ms = pushback_ms
        self._code = code

    async def infer(self, request: Request, context: Context) -> Response:
        self.asked += 1
        if self.asked > self._times:
            return scripted.echoed(request)
        if self._pushback_ms is not None:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", str(self._pushback_ms)),))
        return await context.abort(self._code, "not now")

    async def stream(self, requests: AsyncIterator[Request], context: Context) -> None:
        async for request in requests:
            self.asked += 1
            if self.asked > self._times:
                await context.write(StreamResponse(infer_response=scripted.echoed(request)))
            elif self._pushback_ms is None:
                await context.write(scripted.refusal(request, "not now", grpc_status=self._code.name))
            else:  # as a server that does not name its code yet
                await context.write(scripted.refusal(request, "not now", grpc_retry_pushback_ms=self._pushback_ms))


async def asked(refusing: Refusing, streams: bool, timeout_s: float = 30.0) -> client.CallFailed | None:
    """Ask once; how it failed, if it did."""
    async with (
        scripted.serving(refusing.infer, refusing.stream) as server,
        client.Client(server.address, streams=streams) as served,
    ):
        try:
            assert (await served.infer(Request(id="mine"), timeout_s)).id == "mine"
        except client.CallFailed as failure:
            assert failure.details.startswith("not now")
            assert failure.address == server.address
            return failure
    return None


both = pytest.mark.parametrize("streams", [True, False], ids=["streams", "unary"])
REFUSED = grpc.StatusCode.RESOURCE_EXHAUSTED


@both
async def test_a_refusal_is_repeated_when_the_server_says(streams: bool) -> None:
    refusing = Refusing(2, 20, REFUSED)
    assert await asked(refusing, streams) is None
    assert refusing.asked == 3


@both
@pytest.mark.parametrize("pushback_ms", [-1, 60_000, None], ids=["never", "after the deadline", "not said"])
async def test_a_refusal_without_a_time_before_the_deadline_is_the_answer(
    streams: bool, pushback_ms: int | None
) -> None:
    refusing = Refusing(2, pushback_ms, REFUSED)
    failure = await asked(refusing, streams, timeout_s=20.0)
    assert failure is not None
    assert failure.code is REFUSED
    assert failure.pushback_s == (None if pushback_ms is None else pushback_ms / 1e3)
    assert refusing.asked == 1


@pytest.mark.parametrize(
    ("details", "asked"),
    [
        (rpc_pb2.RetryInfo(retry_delay={"nanos": 20_000_000}), 3),
        (rpc_pb2.RetryInfo(retry_delay={"seconds": 60}), 1),
        (rpc_pb2.RetryInfo(retry_delay={"seconds": -1}), 1),
        (rpc_pb2.RetryInfo(retry_delay={"seconds": 2**62}), 1),
        (rpc_pb2.ErrorInfo(reason="QUEUE_FULL"), 1),
        (b"\xff", 1),
    ],
    ids=["soon", "after the deadline", "never", "no duration", "not said", "no details"],
)
async def test_google_s_retry_info_says_when_as_well(details: protobuf_message.Message | bytes, asked: int) -> None:
    """As servers and proxies do that do not know gRPC's pushback."""
    seen = 0
    status = rpc_pb2.Status(code=REFUSED.value[0], message="not now")
    if isinstance(details, protobuf_message.Message):
        status.details.add().Pack(details)
    raw = details if isinstance(details, bytes) else status.SerializeToString()

    async def infer(request: Request, context: Context) -> Response:
        nonlocal seen
        seen += 1
        if seen < 3:
            await context.abort(REFUSED, "not now", (("grpc-status-details-bin", raw),))
        return scripted.echoed(request)

    async with (
        scripted.serving(infer) as server,
        client.Client(server.address, streams=False, timeout_s=20.0) as served,
    ):
        if asked == 3:
            assert (await served.infer(Request(id="mine"))).id == "mine"
        else:
            with pytest.raises(client.CallFailed, match=r"RESOURCE_EXHAUSTED from .*: not now"):
                await served.infer(Request(id="mine"))
    assert seen == asked


@both
async def test_other_errors_are_the_answer(streams: bool) -> None:
    refusing = Refusing(1, None, grpc.StatusCode.INVALID_ARGUMENT)
    failure = await asked(refusing, streams)
    assert failure is not None
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusing.asked == 1


async def test_an_error_in_a_stream_without_a_code_is_unknown() -> None:
    async def stream(requests: AsyncIterator[Request], context: Context) -> None:
        async for request in requests:
            await context.write(scripted.refusal(request, "broken"))

    async with scripted.serving(stream=stream) as server, client.Client(server.address) as served:
        with pytest.raises(client.CallFailed, match=r"UNKNOWN from .*: broken"):
            await served.infer(Request())


@both
async def test_unavailable_is_repeated(streams: bool) -> None:
    refusing = Refusing(3, None, grpc.StatusCode.UNAVAILABLE)
    assert await asked(refusing, streams) is None
    assert refusing.asked == 4


async def test_a_call_is_repeated_so_often_and_no_more() -> None:
    refusing = Refusing(1_000_000, 0, REFUSED)
    assert await asked(refusing, streams=True) is not None
    assert refusing.asked == 1 + retries.RESENDS_MAX


async def test_nobody_there_fails_when_time_is_up() -> None:
    async with client.Client("127.0.0.1:1", timeout_s=0.2) as served:
        with pytest.raises(client.CallFailed) as caught:
            await served.infer(Request())
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        assert "refused" in caught.value.details
        assert caught.value.details.endswith("(tried for 0.2 s)")
        with pytest.raises(client.CallFailed, match="UNAVAILABLE"):
            await served.metadata("lenet5", timeout_s=0.1)


async def test_a_retry_storm_does_not_double_the_load() -> None:
    """A server that says UNAVAILABLE to every message: many calls, few of them again."""
    refusing = Refusing(1_000_000, None, grpc.StatusCode.UNAVAILABLE)
    count = 600
    async with (
        scripted.serving(refusing.infer, refusing.stream) as server,
        client.Client(server.address, timeout_s=2.0) as served,
    ):
        outcomes = await asyncio.gather(*(served.infer(Request()) for _ in range(count)), return_exceptions=True)
    assert all(isinstance(outcome, client.CallFailed) for outcome in outcomes)
    assert count / 2 <= refusing.asked <= count + retries.Budget.TOKENS_MAX + 10


class Restarting:
    """Goes away with 20 messages, refuses the next two attempts, then answers."""

    def __init__(self) -> None:
        self.taken = 0
        self.attempts_later = 0
        self.at_the_first_answer = 0

    async def stream(self, requests: AsyncIterator[Request], context: Context) -> None:
        async for request in requests:
            if self.taken == 20:
                await context.write(StreamResponse(infer_response=await self.infer(request, context)))
                continue
            self.taken += 1
            if self.taken == 20:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "draining")

    async def infer(self, request: Request, context: Context) -> Response:
        self.attempts_later += 1
        if self.attempts_later <= 2:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
        self.at_the_first_answer = self.at_the_first_answer or self.attempts_later
        return scripted.echoed(request)


async def test_a_server_that_is_away_is_tried_by_one_call_at_a_time() -> None:
    restarting = Restarting()
    async with (
        scripted.serving(restarting.infer, restarting.stream) as server,
        client.Client(server.address) as served,
    ):
        answers = await asyncio.gather(*(served.infer(Request(id=str(number))) for number in range(20)))
    assert [answer.id for answer in answers] == [str(number) for number in range(20)]
    assert restarting.at_the_first_answer == 3
    assert restarting.attempts_later == 2 + 20
