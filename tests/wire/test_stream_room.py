"""A stream that is full: reading stops there, and a client that goes away just then leaves nothing behind."""

import asyncio
import logging
import pathlib
import re
from collections.abc import Callable

import grpc
import grpc.aio
import pytest

from protos import inference_pb2_grpc
from service import server, settings
from tests.wire import troubled

MESSAGES_MAX = 2
WITHIN_S = 60.0


async def comes(condition: Callable[[], object]) -> None:
    """Look again and again; fails if it does not come to pass."""
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)


def tasks() -> set["asyncio.Task[object]"]:
    """All but gRPC's own, which waits for the next call: every call has another."""
    return {task for task in asyncio.all_tasks() if "AioServer." not in repr(task)}


async def test_a_client_that_goes_away_while_its_stream_is_full_leaves_nothing_behind(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    troubled.lay_graph(tmp_path, "slow")
    flags = {"repository": tmp_path, "grpc_port": 0, "metrics_port": 0, "threads": 1, "device": "cpu"}
    served = server.Server(settings.load({**flags, "stream_messages_max": MESSAGES_MAX, "drain_grace_s": 2 * WITHIN_S}))
    await served.start()
    (port,) = re.findall(r"ready: gRPC on 127.0.0.1:(\d+)", caplog.text)
    (model,) = served._engine._loaded.values()
    before = tasks()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stream = inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer()
        for number in range(3 * MESSAGES_MAX):
            await stream.write(troubled.slow(300, request_id=str(number)))
        # One runs, the other waits; in the step of the event loop that read it, the reader began to wait for room.
        await comes(lambda: model.batcher.samples_waiting == MESSAGES_MAX - 1)
        assert served._way._open == 1
        stream.cancel()
        await comes(lambda: not served._way._open)
    await comes(lambda: tasks() <= before)
    assert model.batcher.samples_waiting == 0
    async with asyncio.timeout(WITHIN_S):
        assert await served.drain()
    await served.aclose()
    assert "cut off" not in caplog.text
    assert "drained: 0 requests answered with OK, 2 with an error" in caplog.text
