"""A way to a server that counts what passes, and can fall silent."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Between:
    """What passed, and whether it still does."""

    def __init__(self, address: str) -> None:
        self.address = ""
        self.connections = 0
        self.answer_bytes = 0
        self.is_silent = False
        """Set: what comes from either side is swallowed; both believe the other is there."""
        self.is_cut = asyncio.Event()
        """Set when the server closes a connection."""
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._serving: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)

    async def end(self) -> None:
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(self._host, self._port)
        try:
            await asyncio.gather(self._requests(reader, up_writer), self._answers(up_reader, writer))
        finally:
            for one in (writer, up_writer):
                one.transport.abort()
                with contextlib.suppress(ConnectionError):
                    await one.wait_closed()

    async def _requests(self, reader: asyncio.StreamReader, up_writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while content := await reader.read(65536):
                if not self.is_silent:
                    up_writer.write(content)
        up_writer.close()

    async def _answers(self, up_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while content := await up_reader.read(65536):
                self.answer_bytes += len(content)
                if not self.is_silent:
                    writer.write(content)
        self.is_cut.set()
        writer.close()


@contextlib.asynccontextmanager
async def to(address: str) -> AsyncIterator[Between]:
    """Open a way to a server."""
    between = Between(address)
    listener = await asyncio.start_server(between.accept, "127.0.0.1", 0)
    between.address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield between
    finally:
        listener.close()
        await between.end()
