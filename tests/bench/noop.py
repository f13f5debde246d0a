"""A gRPC server that parses nothing and always says the same: what transport and event loop cost by themselves.

Path: served → **noop** → figures. `python -m tests.bench.noop FOLDER`, with an answer for each method in it.

With `--runs MODEL.onnx --rows N` it answers ModelInfer two at a time, after a run of so many rows on a thread: the
least server that batches. What it costs beside the run, no server on this transport can save.
"""

import argparse
import asyncio
import pathlib
import queue
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio

SERVICE = "inference.GRPCInferenceService"
UNARY = ("ModelMetadata", "ModelConfig", "ModelStatistics", "ModelInfer")
STREAM = "ModelStreamInfer"

# As service/wire/server.py has them.
OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 2 * 64 * 2**20),
    ("grpc.max_send_message_length", -1),
]


def _unary(reply: bytes) -> Any:
    async def answer(request: bytes, context: Any) -> bytes:
        return reply

    return grpc.unary_unary_rpc_method_handler(answer)


def _stream(reply: bytes) -> Any:
    async def answer(requests: AsyncIterator[bytes], context: Any) -> None:
        async for _ in requests:
            await context.write(reply)

    return grpc.stream_stream_rpc_method_handler(answer)


class Least:
    """Answers two calls at a time, when a run has ended that knows nothing of them.

    Mutable state: the calls that wait, and whether a run is under way; touched only on the event loop.
    """

    _TOGETHER = 2
    _LONE_S = 0.05
    """A call alone, such as the generator's first, runs by itself after so long."""

    def __init__(self, reply: bytes, run: Callable[[], object]) -> None:
        self._reply, self._run = reply, run
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Future[None]] = []
        self._is_busy = False
        self._jobs: queue.SimpleQueue[list[asyncio.Future[None]]] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    async def answer(self, request: bytes, context: Any) -> bytes:
        """Wait for a run, and say what is always said."""
        ended = self._loop.create_future()
        self._waiting.append(ended)
        self._start(self._TOGETHER)
        if not self._is_busy:
            self._loop.call_later(self._LONE_S, self._start, 1)
        await ended
        return self._reply

    def _start(self, least: int) -> None:
        if not self._is_busy and len(self._waiting) >= least:
            self._is_busy = True
            self._jobs.put(self._waiting[: self._TOGETHER])
            del self._waiting[: self._TOGETHER]

    def _work(self) -> None:
        while True:
            served = self._jobs.get()
            self._run()
            self._loop.call_soon_threadsafe(self._ended, served)

    def _ended(self, served: list[asyncio.Future[None]]) -> None:
        self._is_busy = False
        for ended in served:
            if not ended.done():  # cancelled meanwhile
                ended.set_result(None)
        self._start(self._TOGETHER)


def _run_of(graph: str, rows: int) -> Callable[[], object]:
    from tests.bench import alone  # loads ONNX Runtime, which the no-op server does without

    return alone.prepared(graph, rows)


async def serve(folder: pathlib.Path, graph: str = "", rows: int = 0) -> None:
    """Serve until the process is ended."""
    server = grpc.aio.server(options=OPTIONS)
    handlers = {name: _unary((folder / name).read_bytes()) for name in UNARY}
    if graph:
        least = Least((folder / "ModelInfer").read_bytes(), _run_of(graph, rows))
        handlers["ModelInfer"] = grpc.unary_unary_rpc_method_handler(least.answer)
    handlers[STREAM] = _stream((folder / STREAM).read_bytes())
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready: gRPC on 127.0.0.1:{port}", file=sys.stderr, flush=True)  # noqa: T201 - what its starter waits for
    await server.wait_for_termination()


def main() -> None:
    """Run it on the event loop that the server has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--runs", default="", metavar="MODEL.onnx")
    parser.add_argument("--rows", type=int, default=0)
    asked = parser.parse_args()
    serving = serve(asked.folder, asked.runs, asked.rows)
    try:
        import uvloop
    except ImportError:
        asyncio.run(serving)
    else:
        uvloop.run(serving)


if __name__ == "__main__":
    main()
