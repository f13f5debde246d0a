"""One stream of requests: reads, answers each message when it is finished, writes with one writer.

Path: inference, image_service → **stream** → back to them, message by message.
"""

import asyncio
import collections
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from service import engine, errors
from service.wire import failures, passage
from service.wire.security import guard

Context = grpc.aio.ServicerContext[Any, Any]
Answer = Callable[[Any, str], Awaitable[bytes]]
"""Answers a message of a caller with a serialized message; what it raises ends the stream."""


async def serve(
    way: passage.Passage, answer: Answer, requests: AsyncIterator[Any], context: Context, messages_max: int
) -> None:
    """Answer a stream's messages, each when it is finished, those without an id in the order in which they came.

    At most `messages_max` are unanswered; reading stops there. On drain, what has been read is
    answered, then the stream ends UNAVAILABLE. An error that `answer` raises is the stream's status: what was
    finished before is written, what was not is given up.
    """
    failure: Exception | None
    try:
        way.enter(context)
        try:
            failure = await Stream(answer, context, messages_max).run(requests, way.draining)
        finally:
            way.leave()
    except errors.NotServing as error:
        failure = error
    if failure is not None:
        await failures.end_stream(context, failure)


class Stream:
    """One open stream: this task reads, a task per message answers, one task writes.

    Mutable state: the messages that are being answered, the answers to be written, and the error that ends the
    stream; touched only on the event loop.
    """

    def __init__(self, answer: Answer, context: Context, messages_max: int) -> None:
        self._answer_message = answer
        self._context = context
        self._caller = caller(context)
        self._messages_max = messages_max
        self._unwritten = 0
        """Messages read whose answer is not written."""
        self._has_room = asyncio.Event()
        self._finished: collections.deque[bytes] = collections.deque()
        self._has_news = asyncio.Event()
        """Something to write, or nothing more to come."""
        self._is_over = False
        self._answering: set[asyncio.Task[None]] = set()
        self._in_order: collections.deque[_Place] = collections.deque()
        """Of the messages without an id, whose answers have to keep their order, from the first unanswered one on."""
        self._failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def run(self, requests: AsyncIterator[Any], draining: asyncio.Event) -> Exception | None:
        """Serve until the client has finished, the server drains, or an answer is an error that ends the stream.

        Unless there is such an error, all that was read is answered. Returns what the stream ends with; None: OK.
        """
        writer = asyncio.create_task(self._write())
        drain = asyncio.create_task(draining.wait())
        try:
            is_over = await self._read(aiter(requests), drain, writer)
            if self._answering:
                answered = asyncio.gather(*self._answering, return_exceptions=True)
                await asyncio.wait((answered, self._failed), return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                for given_up in self._answering:
                    given_up.cancel()
            self._is_over = True
            self._has_news.set()
            await writer
            if self._failed.done():
                return self._failed.result()
            return None if is_over else errors.NotServing(engine.State.DRAINING.value)
        finally:  # the client has gone, writing or a message failed: nobody waits for the rest
            for task in (writer, drain, *self._answering):
                task.cancel()

    async def _read(
        self,
        requests: AsyncIterator[Any],
        drain: asyncio.Task[bool],
        writer: asyncio.Task[None],
    ) -> bool:
        reader = asyncio.create_task(self._read_all(requests))
        ends = (reader, drain, writer, self._failed)
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the client has gone, and the reader may wait for room
            reader.cancel()
            raise
        if reader in done:
            reader.result()
            return True
        reader.cancel()
        await asyncio.wait((reader,))
        if writer in done:
            writer.result()
        return False

    async def _read_all(self, requests: AsyncIterator[Any]) -> None:
        loop = asyncio.get_running_loop()
        async for request in requests:
            self._unwritten += 1
            place = None
            if not request.id:
                place = _Place()
                self._in_order.append(place)
            task = loop.create_task(self._answer(request, place))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
            while self._unwritten >= self._messages_max:
                self._has_room.clear()
                await self._has_room.wait()

    async def _answer(self, request: Any, place: "_Place | None") -> None:
        try:
            answer = await self._answer_message(request, self._caller)
        except Exception as error:
            if not self._failed.done():
                self._failed.set_result(error)
            return
        if place is None:
            self._finished.append(answer)
        else:
            place.answer = answer
            while self._in_order and (first := self._in_order[0].answer) is not None:
                self._in_order.popleft()
                self._finished.append(first)
        self._has_news.set()

    async def _write(self) -> None:
        while self._finished or not self._is_over:
            if not self._finished:
                self._has_news.clear()
                await self._has_news.wait()
                continue
            await self._context.write(self._finished.popleft())
            self._unwritten -= 1
            self._has_room.set()


class _Place:
    """Where the answer to a message without an id goes; None until it is there."""

    __slots__ = ("answer",)

    def __init__(self) -> None:
        self.answer: bytes | None = None


def caller(context: Context) -> str:
    """Return whose share of the device a call uses: its token's, else its host's, so that connections do not count."""
    name = guard.caller_name()
    if name:
        return name
    peer: str = context.peer()  # such as ipv4:10.0.0.7:51234, ipv6:%5B::1%5D:51234, unix:
    return peer.rpartition(":")[0] or peer
