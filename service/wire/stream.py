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
from service.wire import passage, status

Context = grpc.aio.ServicerContext[Any, Any]
Answer = Callable[[Any, str], Awaitable[bytes]]
"""Answers a message of a caller, whatever happens, with a serialized message."""


async def serve(
    way: passage.Passage, answer: Answer, requests: AsyncIterator[Any], context: Context, messages_max: int
) -> None:
    """Answer a stream's messages, each when it is finished; an error is an answer, the stream goes on.

    At most `messages_max` are unanswered; reading stops there. On drain, what has been read is
    answered, then the stream ends UNAVAILABLE.
    """
    try:
        way.enter()
        try:
            if not await Stream(answer, context, messages_max).run(requests, way.draining):
                raise errors.NotServing(engine.State.DRAINING.value)
        finally:
            way.leave()
    except errors.NotServing as error:
        await context.abort(*status.explain(error))


class Stream:
    """One open stream: this task reads, a task per message answers, one task writes.

    Mutable state: the messages that are being answered and the answers to be written; touched only on
    the event loop.
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

    async def run(self, requests: AsyncIterator[Any], draining: asyncio.Event) -> bool:
        """Serve until the client has finished (True) or the server drains (False); all read is answered."""
        writer = asyncio.create_task(self._write())
        drain = asyncio.create_task(draining.wait())
        try:
            is_over = await self._read(aiter(requests), drain, writer)
            await asyncio.gather(*self._answering)
            self._is_over = True
            self._has_news.set()
            await writer
            return is_over
        finally:  # the client has gone, or writing failed: nobody waits for the rest
            for task in (writer, drain, *self._answering):
                task.cancel()

    async def _read(
        self,
        requests: AsyncIterator[Any],
        drain: asyncio.Task[bool],
        writer: asyncio.Task[None],
    ) -> bool:
        reader = asyncio.create_task(self._read_all(requests))
        done, _ = await asyncio.wait((reader, drain, writer), return_when=asyncio.FIRST_COMPLETED)
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
            task = loop.create_task(self._answer(request))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
            while self._unwritten >= self._messages_max:
                self._has_room.clear()
                await self._has_room.wait()

    async def _answer(self, request: Any) -> None:
        self._finished.append(await self._answer_message(request, self._caller))
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


def caller(context: Context) -> str:
    """Return whose share of the device a call uses: its host, so that more connections do not get more."""
    peer: str = context.peer()  # such as ipv4:10.0.0.7:51234, ipv6:%5B::1%5D:51234, unix:
    return peer.rpartition(":")[0] or peer
