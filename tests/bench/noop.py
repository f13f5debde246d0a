"""A gRPC server that parses nothing and always says the same: what transport and event loop cost by themselves.

Path: served → **noop** → figures. `python -m tests.bench.noop FOLDER`, with an answer for each method in it.
"""

import asyncio
import pathlib
import sys
from collections.abc import AsyncIterator
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


async def serve(folder: pathlib.Path) -> None:
    """Serve until the process is ended."""
    server = grpc.aio.server(options=OPTIONS)
    handlers = {name: _unary((folder / name).read_bytes()) for name in UNARY}
    handlers[STREAM] = _stream((folder / STREAM).read_bytes())
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready: gRPC on 127.0.0.1:{port}", file=sys.stderr, flush=True)  # noqa: T201 - what its starter waits for
    await server.wait_for_termination()


def main() -> None:
    """Run it on the event loop that the server has."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(pathlib.Path(sys.argv[1])))
    else:
        uvloop.run(serve(pathlib.Path(sys.argv[1])))


if __name__ == "__main__":
    main()
