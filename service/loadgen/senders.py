"""How one request travels: as a unary call, or as a message on one of several streams.

Path: traffic → **senders** → server → ledger.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

import grpc
import grpc.aio

from protos import inference_pb2
from service.loadgen import ledger, plan, target

REST_S = 0.1
"""What a caller waits who was told that nobody is there, before it tries again."""

_End = tuple[str, str]
"""A request's status and sentence."""


class Sender(Protocol):
    """Sends a request and notes its end in the ledger."""

    async def send(self, number: int, intended_s: float) -> None:
        """Send request `number`, meant for `intended_s`, and return when it has ended.

        Times are `time.monotonic`'s: uvloop's own clock ticks in milliseconds.
        """

    async def close(self) -> None:
        """End what is still open."""


def sender(chosen: plan.Plan, channel: grpc.aio.Channel, requests: Sequence[bytes], ends: ledger.Ledger) -> Sender:
    """Return the plan's way of sending."""
    return Streams(chosen, channel, requests, ends) if chosen.streams else Unary(chosen, channel, requests, ends)


async def _noted(ends: ledger.Ledger, intended_s: float, asking: Awaitable[_End]) -> None:
    """Send a request, note how it ended, and rest if nobody was there."""
    sent_s = time.monotonic()
    try:
        status, sentence = await asking
    except asyncio.CancelledError:
        ends.ended(intended_s, sent_s, time.monotonic(), ledger.CANCELLED)
        raise
    ends.ended(intended_s, sent_s, time.monotonic(), status, sentence)
    if status == grpc.StatusCode.UNAVAILABLE.name:
        await asyncio.sleep(REST_S)


class Unary:
    """A call per request, its bytes as they are and its answer unread."""

    def __init__(
        self, chosen: plan.Plan, channel: grpc.aio.Channel, requests: Sequence[bytes], ends: ledger.Ledger
    ) -> None:
        self._call: Any = channel.unary_unary(target.METHOD + "ModelInfer")
        self._requests = requests
        self._ends = ends
        self._within_s = chosen.deadline_s or chosen.give_up_s

    async def send(self, number: int, intended_s: float) -> None:
        """See Sender. gRPC's deadline counts from the intended time, as the ledger does."""
        request = self._requests[number % len(self._requests)]
        within_s = max(1e-3, intended_s + self._within_s - time.monotonic())
        await _noted(self._ends, intended_s, self._ask(request, within_s))

    async def close(self) -> None:
        """Nothing stays open."""

    async def _ask(self, request: bytes, within_s: float) -> _End:
        try:
            await self._call(request, timeout=within_s)
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details() or ""
        return ledger.OK, ""


class Streams:
    """Messages in turn over several streams. One that waits past its deadline to be written is not written."""

    def __init__(
        self, chosen: plan.Plan, channel: grpc.aio.Channel, requests: Sequence[bytes], ends: ledger.Ledger
    ) -> None:
        self._requests = requests
        self._ends = ends
        open_stream: Any = channel.stream_stream(target.METHOD + "ModelStreamInfer")
        self._within_s = chosen.deadline_s or chosen.give_up_s
        self._streams = [_Stream(open_stream, is_in_order=chosen.is_in_order) for _ in range(chosen.streams)]

    async def send(self, number: int, intended_s: float) -> None:
        """See Sender. What is under way has no deadline in gRPC; the end of the run cuts it off."""
        stream = self._streams[number % len(self._streams)]
        asking = stream.ask(number, self._requests[number % len(self._requests)], intended_s + self._within_s)
        await _noted(self._ends, intended_s, asking)

    async def close(self) -> None:
        """End the streams at once."""
        await asyncio.gather(*(stream.close() for stream in self._streams))


_Outgoing = tuple[str, bytes, float]
"""A message's id, its bytes without the id, and until when it is worth writing."""

_NOT_WRITTEN = (grpc.StatusCode.DEADLINE_EXCEEDED.name, "not written: the server did not read the stream in time")


class _Stream:
    """One stream, opened by the first message and again by the first after it broke.

    Mutable state: messages to write, futures of messages without an answer, and the task that serves
    the open stream; touched only on the event loop.
    """

    def __init__(self, open_stream: Any, *, is_in_order: bool) -> None:
        self._open_stream = open_stream
        self._is_in_order = is_in_order
        self._outgoing: asyncio.Queue[_Outgoing] = asyncio.Queue()
        self._waiting: dict[str, asyncio.Future[_End]] = {}
        self._serving: asyncio.Task[None] | None = None

    async def ask(self, number: int, request: bytes, until_s: float) -> _End:
        """Send a message, unless it is still not written at `until_s`, and return how it ended."""
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        key = str(number)
        answered: asyncio.Future[_End] = asyncio.get_running_loop().create_future()
        self._waiting[key] = answered
        self._outgoing.put_nowait((key, request, until_s))
        return await answered

    async def close(self) -> None:
        """End the stream at once."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait((self._serving,))

    async def _serve(self) -> None:
        """Write and read until the stream ends; what then has no answer ends with its status."""
        call = self._open_stream()
        writing = asyncio.create_task(self._write(call))
        end = (grpc.StatusCode.UNAVAILABLE.name, "the server ended the stream")
        try:
            async for answer in call:
                self._answered(answer)
        except grpc.aio.AioRpcError as error:
            end = (error.code().name, error.details() or "")
        finally:
            writing.cancel()
            call.cancel()
            self._outgoing = asyncio.Queue()
            for key in list(self._waiting):
                self._end(key, end)

    async def _write(self, call: Any) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the reader learns why, too
            while True:
                key, request, until_s = await self._outgoing.get()
                if time.monotonic() > until_s:
                    self._end(key, _NOT_WRITTEN)
                    continue
                # A message is fields in any order: the id goes in front of what was serialised before.
                await call.write(b"\x1a" + bytes((len(key),)) + key.encode() + request)

    def _answered(self, answer: bytes) -> None:
        if self._is_in_order:
            key, error = next(iter(self._waiting), ""), ""
        else:
            message = inference_pb2.ModelStreamInferResponse.FromString(answer)
            key, error = message.infer_response.id, message.error_message
        self._end(key, (ledger.MESSAGE_ERROR, error) if error else (ledger.OK, ""))

    def _end(self, key: str, end: _End) -> None:
        future = self._waiting.pop(key, None)
        if future is not None and not future.done():
            future.set_result(end)
