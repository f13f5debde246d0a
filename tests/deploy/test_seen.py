"""Debian's Prometheus, a real server with TLS, load: all that rules and dashboard ask for has data, and it is true."""

import asyncio
import pathlib
import time

import grpc
import pytest

from protos import inference_pb2_grpc
from service import client
from tests.conftest import Exported, RunningServer, running
from tests.deploy import expressions, prometheus
from tests.wire.security import authority

pytestmark = pytest.mark.slow

WITHIN_S = 90.0
"""Rates need two scrapes, rules an evaluation after that: seconds; the rest is for slow machines."""
ON_GPUS_ONLY = {
    "GPU utilisation: A", "GPU memory: A", "GPU memory: B", "GPU power: A", "rule FoveaGpuMemoryFull",
}  # fmt: skip


class Load:
    """Callers until `is_over`: good images, bad ones, and those who allow a microsecond. Nobody asks twice."""

    def __init__(self, server: RunningServer, pngs: list[bytes], root_pem: bytes) -> None:
        self.address = f"127.0.0.1:{server.address.rpartition(':')[2]}"
        self.pngs, self.credentials = pngs, grpc.ssl_channel_credentials(root_pem)
        self.answered, self.failed = 0, 0
        self.is_over = False

    async def run(self) -> None:
        async with (
            client.Client(self.address, credentials=self.credentials) as connection,
            grpc.aio.secure_channel(self.address, self.credentials) as channel,
        ):
            signature = await connection.signature("lenet5")
            stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
            good = [client.image_request(signature, [png]) for png in self.pngs[:8]]
            hasty = client.image_request(signature, self.pngs[:1])
            hasty.parameters["timeout"].int64_param = 1
            bad = client.image_request(signature, [b"bad"])
            await asyncio.gather(*(self.call(stub, request) for request in (*good, hasty, bad)))

    async def call(self, stub: inference_pb2_grpc.GRPCInferenceServiceStub, request: object) -> None:
        while not self.is_over:
            try:
                await stub.ModelInfer(request)
                self.answered += 1
            except grpc.aio.AioRpcError:
                self.failed += 1
                await asyncio.sleep(0.05)  # who is refused takes a breath


async def without_data(scraper: prometheus.Prometheus, asked: dict[str, str]) -> dict[str, str]:
    """Ask until everything has returned data once, or time is up; what has not."""
    left = dict(asked)
    give_up_s = time.monotonic() + WITHIN_S
    while left and time.monotonic() < give_up_s:
        for name, expression in list(left.items()):
            if await asyncio.to_thread(scraper.has_data, expression):
                del left[name]
        await asyncio.sleep(1)  # Prometheus scrapes once a second
    return left


async def test_every_expression_returns_data_under_load_and_counts_are_those_of_the_callers(
    exported: Exported, pngs: list[bytes], tmp_path: pathlib.Path
) -> None:
    root = authority.made("root", is_authority=True)
    certificate, key = authority.made("fovea.test", root).written(tmp_path)
    tls = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    with (
        running(exported.repository, tmp_path / "served", *tls) as server,
        prometheus.scraping(tmp_path, server.http.removeprefix("http://")) as scraper,
    ):
        load = Load(server, pngs, root.pem)
        under_way = asyncio.create_task(load.run())
        asked = expressions.that_answer()
        is_cuda = 'fovea_provider_info{provider="CUDAExecutionProvider"} 1.0' in server.get("/metrics")
        assert asked.keys() >= ON_GPUS_ONLY
        if not is_cuda:
            asked = {name: expression for name, expression in asked.items() if name not in ON_GPUS_ONLY}
        silent = await without_data(scraper, asked)
        load.is_over = True
        await under_way
        assert silent == {}
        assert load.answered > 100
        await asyncio.sleep(3)  # the last scrape
        ask = scraper.value
        assert await asyncio.to_thread(ask, 'fovea_requests_total{code="OK",model="lenet5"}') == load.answered
        assert await asyncio.to_thread(ask, "nv_inference_count") == load.answered
        assert await asyncio.to_thread(ask, "sum(nv_inference_request_failure)") == load.failed > 0
        assert await asyncio.to_thread(ask, 'fovea_shed_total{reason=~"too_late|deadline"} > 0') > 0
        assert 0 < await asyncio.to_thread(ask, "max_over_time(instance:fovea_saturation:max[5m])") <= 1
        assert await asyncio.to_thread(ask, "max_over_time(fovea_ready[5m])") == 1
