"""One ModelStreamInfer stream: reads, answers each message when it is finished, writes with one writer.

Path: inference → **stream** → inference, message by message.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from protos import inference_pb2
from service import errors

Context = grpc.aio.ServicerContext[Any, Any]
Message = inference_pb2.ModelInferRequest | errors.FoveaError
"""A request, or what is wrong with the message that should have been one."""
Answer = Callable[[Message, str], Awaitable[inference_pb2.ModelStreamInferResponse]]
"""Answers a message of a caller, whatever happens."""


class Stream:
    """One open stream: this task reads, a task per message answers, one task writes.

    Mutable state: `_finished` and `_answering`; touched only on the event loop.
    """

    def __init__(self, answer: Answer, context: Context, messages_max: int) -> None:
        self._answer_message = answer
        self._context = context
        self._caller = caller(context)
        self._room = asyncio.Semaphore(messages_max)
        self._finished: asyncio.Queue[inference_pb2.ModelStreamInferResponse | None] = asyncio.Queue()
        self._answering: set[asyncio.Task[None]] = set()

    async def run(self, requests: AsyncIterator[Message], draining: asyncio.Event) -> bool:
        """Serve until the client has finished (True) or the server drains (False); all read is answered."""
        writer = asyncio.create_task(self._write())
        drain = asyncio.create_task(draining.wait())
        try:
            is_over = await self._read(aiter(requests), drain, writer)
            await asyncio.gather(*self._answering)
            self._finished.put_nowait(None)
            await writer
            return is_over
        finally:  # the client has gone, or writing failed: nobody waits for the rest
            for task in (writer, drain, *self._answering):
                task.cancel()

    async def _read(
        self,
        requests: AsyncIterator[Message],
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

    async def _read_all(self, requests: AsyncIterator[Message]) -> None:
        loop = asyncio.get_running_loop()
        await self._room.acquire()
        async for request in requests:
            task = loop.create_task(self._answer(request))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
            await self._room.acquire()

    async def _answer(self, request: Message) -> None:
        self._finished.put_nowait(await self._answer_message(request, self._caller))

    async def _write(self) -> None:
        while (reply := await self._finished.get()) is not None:
            await self._context.write(reply)
            self._room.release()


def caller(context: Context) -> str:
    """Return whose share of the device a call uses: its host, so that more connections do not get more."""
    peer: str = context.peer()  # such as ipv4:10.0.0.7:51234, ipv6:%5B::1%5D:51234, unix:
    return peer.rpartition(":")[0] or peer
