"""Health, reflection, metrics, start-up errors, drain: what operators rely on."""

import asyncio
import pathlib
import signal
import subprocess
import urllib.error

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from prometheus_client import parser

from protos import inference_pb2_grpc
from service import client
from service.runtime import providers
from tests.conftest import FOVEA, Exported, RunningServer, running

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def test_health_checks_the_server_each_model_and_liveness(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", "lenet5", "liveness", "inference.GRPCInferenceService"):
            assert stub.Check(health_pb2.HealthCheckRequest(service=name)).status == SERVING
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_service_and_its_messages(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= set(database.get_services())
        file = database.FindFileContainingSymbol("inference.ModelInferRequest")
        assert "ModelInferRequest" in [message.name for message in file.message_type]
        assert database.FindFileContainingSymbol("grpc.health.v1.Health").package == "grpc.health.v1"


def test_http_answers_probes_and_says_what_it_has(server: RunningServer) -> None:
    assert server.get("/v2/health/live") == "ok\n"
    assert server.get("/v2/health/ready") == "ok\n"
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.get("/nothing")
    assert caught.value.code == 404
    assert b"/metrics" in caught.value.read()
    caught.value.close()


def samples(server: RunningServer) -> dict[tuple[str, str], float]:
    families = parser.text_string_to_metric_families(server.get("/metrics"))
    return {
        (
            sample.name,
            sample.labels.get(
                "code", sample.labels.get("le", sample.labels.get("provider", sample.labels.get("resource", "")))
            ),
        ): sample.value
        for family in families
        for sample in family.samples
        if sample.labels.get("model", "lenet5") == "lenet5"
    }


async def send(address: str, files: list[bytes]) -> list[object]:
    async with client.Client(address) as connection:
        signature = await connection.signature("lenet5")
        calls = [connection.infer(client.image_request(signature, [file])) for file in files]
        return await asyncio.gather(*calls, return_exceptions=True)


async def test_metrics_count_requests_by_code_and_time_every_stage(server: RunningServer, pngs: list[bytes]) -> None:
    before = samples(server)
    await send(server.address, [*pngs[:20], b"bad"])
    after = samples(server)

    def grown(name: str, label: str = "") -> float:
        return after.get((name, label), 0) - before.get((name, label), 0)

    assert grown("fovea_requests_total", "OK") == 20
    assert grown("fovea_requests_total", "INVALID_ARGUMENT") == 1
    assert grown("fovea_images_total") == 20
    for stage in ("decode", "queue", "reply", "request"):
        assert grown(f"fovea_{stage}_duration_seconds_count") == 20
    runs = grown("fovea_batch_size_count")
    assert grown("fovea_run_duration_seconds_count") == grown("fovea_copy_duration_seconds_count") == runs > 0
    for resource in ("device", "decode", "loop", "cpu"):
        assert grown("fovea_busy_seconds_total", resource) > 0
        assert 0 <= after["fovea_saturation_ratio", resource] <= 1
    assert grown("fovea_busy_seconds_total", "device") == pytest.approx(grown("fovea_model_busy_seconds_total"))
    assert grown("nv_inference_count_total") == 20  # the parser gives counters this ending; Triton does not
    assert after["fovea_ready", ""] == 1
    assert grown("fovea_batch_size_sum") == 20
    assert after["fovea_queue_samples", ""] == 0
    assert (
        after["fovea_provider_info", "CPUExecutionProvider"] + after["fovea_provider_info", "CUDAExecutionProvider"]
        == 1
    )


def start(*flags: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([FOVEA, "serve", *flags], capture_output=True, text=True, timeout=60, check=False)


def test_a_taken_port_is_an_error(server: RunningServer, exported: Exported) -> None:
    port, http = server.address.rpartition(":")[2], server.http.rpartition(":")[2]
    repository = str(exported.repository)
    for flags in (("--grpc-port", port, "--metrics-port", "0"), ("--grpc-port", "0", "--metrics-port", http)):
        result = start("--repository", repository, *flags)
        assert result.returncode == 1
        assert "the port is taken" in result.stderr
        assert "Traceback" not in result.stderr


def test_start_up_errors_are_one_sentence(tmp_path: pathlib.Path) -> None:
    ports = ("--grpc-port", "0", "--metrics-port", "0")
    empty = start("--repository", str(tmp_path), *ports)
    assert (empty.returncode, "holds no model; add one: fovea export" in empty.stderr) == (1, True)
    assert "Traceback" not in empty.stderr
    unknown = start("--grpc-prot", "1")
    assert unknown.returncode == 2
    assert "--grpc-port" in unknown.stderr


def test_cuda_that_is_not_there_refuses_to_start(exported: Exported) -> None:
    if providers.choose("auto").name == providers.CUDA:
        pytest.skip("this machine has CUDA")
    repository = str(exported.repository)
    result = start("--repository", repository, "--device", "cuda", "--grpc-port", "0", "--metrics-port", "0")
    assert result.returncode == 1
    assert "--device cuda was asked for, but lib" in result.stderr
    assert "Traceback" not in result.stderr


def test_health_watch_and_probes_see_the_drain_before_the_end(exported: Exported, tmp_path: pathlib.Path) -> None:
    with running(exported.repository, tmp_path / "log", "--drain-delay-s", "1") as server:
        with grpc.insecure_channel(server.address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="lenet5"))
            assert next(watch).status == SERVING
            server.process.send_signal(signal.SIGTERM)
            assert next(watch).status == NOT_SERVING
            with pytest.raises(urllib.error.HTTPError) as caught:
                server.get("/v2/health/ready")
            caught.value.close()
            assert server.get("/v2/health/live") == "ok\n"
        assert server.process.wait(30) == 0


async def test_sigterm_under_load_loses_no_accepted_request(
    exported: Exported, tmp_path: pathlib.Path, pngs: list[bytes]
) -> None:
    """Unary callers and streams send until they are refused; what the server counts as answered has arrived."""
    with running(exported.repository, tmp_path / "log") as server:
        answered, refused, other = 0, 0, []
        enough = asyncio.Event()
        async with (
            client.Client(server.address) as connection,
            grpc.aio.insecure_channel(
                server.address
            ) as channel,  # the client would not tell of refusals, but try again
        ):
            signature = await connection.signature("lenet5")
            stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)

            async def call() -> None:
                nonlocal answered, refused
                while True:
                    try:
                        await stub.ModelInfer(client.image_request(signature, pngs[:1]))
                    except grpc.aio.AioRpcError as error:
                        refused += 1
                        if error.code() is not grpc.StatusCode.UNAVAILABLE:
                            other.append(error)
                        return
                    answered += 1
                    if answered > 200:
                        enough.set()

            async def stream() -> None:
                nonlocal answered
                room = asyncio.Semaphore(8)

                async def messages():
                    for number in range(1_000_000):
                        await room.acquire()
                        yield client.image_request(signature, pngs[:1], request_id=str(number))

                try:
                    async for answer in stub.ModelStreamInfer(messages()):
                        assert not answer.error_message
                        answered += 1
                        room.release()
                except grpc.aio.AioRpcError as error:
                    # grpc.aio says INTERNAL by itself when it was writing as the server ended the stream.
                    of_the_client = (grpc.StatusCode.INTERNAL, "Internal error from Core")
                    if (
                        error.code() is not grpc.StatusCode.UNAVAILABLE
                        and (error.code(), error.details()) != of_the_client
                    ):
                        other.append(error)

            load = [asyncio.create_task(call()) for _ in range(16)] + [asyncio.create_task(stream()) for _ in range(4)]
            await enough.wait()
            server.process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(asyncio.gather(*load), 60)
        assert await asyncio.to_thread(server.process.wait, 30) == 0
        assert other == []
        assert refused == 16
        assert f"drained: {answered} requests answered with OK, 0 with an error" in server.log()
