"""A run that does not come to an end: the process does, at SIGTERM, and says that it left something."""

import asyncio
import pathlib
import re
import signal

import grpc
import grpc.aio
import pytest

from protos import inference_pb2_grpc
from tests.conftest import running
from tests.wire import troubled

GRACE_S = 1
FOREVER = 2**62
"""Products of matrices that nobody lives to see."""

ENDS_WITHIN_S = 20.0
"""Grace, and seconds for a busy machine."""


@pytest.mark.parametrize(
    ("has_gone", "sentence"),
    [
        (False, "1 calls and streams are still open after 1 s of grace and are cut off"),
        (True, "a run whose caller has gone has not ended after 1 s of grace and is cut off"),
    ],
    ids=["its caller waits", "its caller has gone"],
)
async def test_a_run_that_hangs_ends_with_the_grace(tmp_path: pathlib.Path, has_gone: bool, sentence: str) -> None:
    troubled.lay_graph(tmp_path / "models", "slow")
    flags = ("--device", "cpu", "--threads", "1", "--drain-grace-s", str(GRACE_S))
    with running(tmp_path / "models", tmp_path / "log", *flags) as server:

        async def counts(name: str) -> None:
            line = re.compile(f"^{re.escape(name)} (?!0.0$)", re.MULTILINE)
            await asyncio.to_thread(troubled.until, lambda: line.search(server.get("/metrics")))

        try:
            async with grpc.aio.insecure_channel(server.address) as channel:
                call = inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(troubled.slow(FOREVER))
                await counts('fovea_model_busy_seconds_total{model="slow",version="1"}')
                if has_gone:
                    call.cancel()
                    await counts('fovea_requests_total{code="CANCELLED",model="slow",version="1"}')
                server.process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(server.process.wait, ENDS_WITHIN_S) == 1
                if not has_gone:
                    assert await call.code() is grpc.StatusCode.UNAVAILABLE
        finally:
            server.process.kill()  # else a failure would be waited for once more
    log = server.log()
    assert log.index("draining: not ready") < log.index(sentence) < log.index("drained: 0 requests answered with OK")
    assert "Traceback" not in log
