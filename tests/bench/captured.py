"""A real server's answers, byte for byte, for the server that does nothing.

Path: fovea serve → **captured** → noop.
"""

import asyncio
import pathlib
from typing import Any

import grpc.aio

from protos import inference_pb2
from service.loadgen import payloads, target
from tests.bench import noop


def capture(address: str, model: str, images: int, folder: pathlib.Path) -> None:
    """Write what the server answers to requests of so many images, one file for each method."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, reply in asyncio.run(_replies(address, model, images)).items():
        (folder / name).write_bytes(reply)


async def _replies(address: str, model: str, images: int) -> dict[str, bytes]:
    server = target.Target(address, model)
    try:
        request = payloads.of_pixels(await server.describe(), images, payloads.Parameters(None, 0))[0]
        replies = {}
        for name in noop.UNARY:
            asked = request if name == "ModelInfer" else getattr(inference_pb2, f"{name}Request")(name=model)
            replies[name] = await _ask(server.channel, name, asked if isinstance(asked, bytes) else _bytes(asked))
    finally:
        await server.close()
    answer = inference_pb2.ModelStreamInferResponse()
    answer.infer_response.MergeFromString(replies["ModelInfer"])
    answer.infer_response.id = "12345"
    return {**replies, noop.STREAM: answer.SerializeToString()}


async def _ask(channel: grpc.aio.Channel, name: str, request: bytes) -> bytes:
    call: Any = channel.unary_unary(target.METHOD + name)
    reply: bytes = await call(request, timeout=30)
    return reply


def _bytes(message: object) -> bytes:
    serialized: bytes = message.SerializeToString()  # type: ignore[attr-defined]  # a protobuf message
    return serialized
