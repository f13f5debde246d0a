"""What a client finds out from nothing but the server: its services by reflection, its state by health's Watch."""

import base64
import contextlib
import json
import pathlib
import queue
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from protos import images_pb2, inference_pb2, pool
from tests.conftest import RunningServer, running
from tests.wire import by_hand, stock

BUF = pathlib.Path(__file__).parent.parent / "tools" / "buf.sh"
INFERENCE, IMAGES = "inference.GRPCInferenceService", "fovea.v1.ImageService"
SERVING, NOT_SERVING, UNKNOWN = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
    health_pb2.HealthCheckResponse.SERVICE_UNKNOWN,
)
WITHIN_S = 60.0


class Found:
    """A server known by its address alone: services, methods and messages come from its reflection."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def method(self, service: str, name: str) -> Any:
        return self.pool.FindServiceByName(service).methods_by_name[name]

    def call(self, service: str, name: str, /, **fields: Any) -> Any:
        """Call a unary method with a message of these fields."""
        method = self.method(service, name)
        request, answer = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
        send = self._channel.unary_unary(f"/{service}/{name}", request.SerializeToString, answer.FromString)
        return send(request(**fields), timeout=WITHIN_S)


@pytest.fixture
def found(server: RunningServer) -> Iterator[Found]:
    with grpc.insecure_channel(server.address) as channel:
        yield Found(channel)


def test_every_service_is_found_with_every_method(found: Found) -> None:
    assert set(found.database.get_services()) == {
        INFERENCE, IMAGES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
    }  # fmt: skip
    for service, file in ((INFERENCE, inference_pb2), (IMAGES, images_pb2)):
        (name,) = file.DESCRIPTOR.services_by_name
        ours = file.DESCRIPTOR.services_by_name[name].methods_by_name
        theirs = found.pool.FindServiceByName(service).methods_by_name
        assert theirs.keys() == ours.keys()
        for method, described in theirs.items():
            assert described.input_type.full_name == ours[method].input_type.full_name
            assert described.client_streaming == ours[method].client_streaming
    assert found.pool is not pool.POOL


def test_a_call_is_built_from_nothing_but_the_server(found: Found, pngs: list[bytes]) -> None:
    assert found.call(INFERENCE, "ServerReady").ready
    config = found.call(INFERENCE, "ModelConfig", name="lenet5").config
    (tensor,) = config.input
    answer = found.call(
        INFERENCE,
        "ModelInfer",
        model_name=config.name,
        inputs=[{"name": tensor.name, "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [pngs[0]]}}],
        outputs=[{"name": "probabilities"}],
    )
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).sum() == pytest.approx(1)
    classes = found.call(IMAGES, "Classify", image={"file": pngs[0]}, model="lenet5", top_k=1).classes
    assert len(classes) == 1


@pytest.mark.parametrize("method", inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name)
def test_an_empty_message_to_any_method_is_answered_or_explained(found: Found, method: str) -> None:
    """Whoever explores a server sends that first. No method is unknown, none fails inside."""
    if found.method(INFERENCE, method).client_streaming:
        pytest.skip("a stream; an empty one is no call")
    try:
        found.call(INFERENCE, method)
    except grpc.RpcError as error:
        assert error.code() in {
            grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.UNIMPLEMENTED,
        }
        assert len(error.details()) > 10
        assert "Method not found" not in error.details()


@pytest.mark.slow
def test_a_stock_command_discovers_and_calls(server: RunningServer, pngs: list[bytes]) -> None:
    if shutil.which("npm") is None:
        pytest.skip("without npm there is no buf, so `buf curl` was NOT run")
    fetched = subprocess.run([BUF], capture_output=True, text=True, timeout=300, check=False)
    if fetched.returncode != 0:
        pytest.skip(f"buf could not be fetched, so `buf curl` was NOT run: {fetched.stderr[-300:]}")

    def curl(path: str, *flags: str) -> subprocess.CompletedProcess[str]:
        command = [fetched.stdout.strip(), "curl", "--protocol", "grpc", "--http2-prior-knowledge", *flags]
        return subprocess.run(
            [*command, f"http://{server.address}{path}"], capture_output=True, text=True, timeout=60, check=False
        )

    listed = curl("", "--list-methods").stdout.split()
    assert {f"{INFERENCE}/ModelInfer", f"{INFERENCE}/ModelStreamInfer", f"{IMAGES}/Classify"} <= set(listed)
    file = base64.b64encode(pngs[0]).decode()
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [file]}}
    request = json.dumps({"model_name": "lenet5", "inputs": [image]})
    for method in ("ModelInfer", "ModelStreamInfer"):
        answer = json.loads(curl(f"/{INFERENCE}/{method}", "-d", request).stdout)
        answer = answer.get("inferResponse", answer)
        assert [output["name"] for output in answer["outputs"]] == ["logits", "probabilities"]
    said = json.loads(
        curl(f"/{IMAGES}/Classify", "-d", json.dumps({"image": {"file": file}, "model": "lenet5"})).stdout
    )
    assert said["classes"]
    missing = curl(f"/{INFERENCE}/ModelMetadata", "-d", '{"name": "nobody"}')
    assert missing.returncode != 0
    assert "'nobody' is not served here; served: lenet5" in missing.stderr


class Watch:
    """One Watch of the health service, read by a thread of its own."""

    def __init__(self, channel: grpc.Channel, service: str) -> None:
        self._heard: queue.Queue[int | grpc.RpcError] = queue.Queue()
        self._call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service))
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            for answer in self._call:
                self._heard.put(answer.status)
        except grpc.RpcError as error:
            self._heard.put(error)

    def next(self) -> int | grpc.RpcError:
        return self._heard.get(timeout=WITHIN_S)

    def is_quiet(self) -> bool:
        return self._heard.empty()

    def end(self) -> None:
        self._call.cancel()
        self._thread.join(WITHIN_S)


@pytest.fixture
def explicit(tmp_path: pathlib.Path) -> Iterator[RunningServer]:
    by_hand.write(tmp_path / "models", "simple", {"1": by_hand.SIMPLE}, "max_batch_size: 4")
    by_hand.write(tmp_path / "models", "broken", {"1": by_hand.SIMPLE}, "no config")
    flags = ("--model-control-mode", "explicit", "--drain-delay-s", "0.5", "--threads", "1", "--device", "cpu")
    with running(tmp_path / "models", tmp_path / "log", *flags) as server:
        yield server


def test_a_watch_hears_of_load_unload_and_drain(explicit: RunningServer) -> None:
    with (
        grpc.insecure_channel(explicit.address) as channel,
        triton.InferenceServerClient(explicit.address) as client,
        contextlib.ExitStack() as stack,
    ):
        watches = {name: Watch(channel, name) for name in ("", "simple", "broken", "liveness", INFERENCE)}
        for watch in watches.values():
            stack.callback(watch.end)
        first = {name: watch.next() for name, watch in watches.items()}
        assert first == {"": SERVING, "simple": UNKNOWN, "broken": UNKNOWN, "liveness": SERVING, INFERENCE: SERVING}
        health = health_pb2_grpc.HealthStub(channel)
        for state, change in ((SERVING, client.load_model), (NOT_SERVING, client.unload_model)) * 2:
            change("simple")
            assert watches["simple"].next() == state
            assert health.Check(health_pb2.HealthCheckRequest(service="simple")).status == state
        client.load_model("simple")
        assert watches["simple"].next() == SERVING
        with pytest.raises(triton.InferenceServerException, match=r"config.pbtxt cannot be read"):
            client.load_model("broken")
        assert watches["broken"].next() == NOT_SERVING
        assert watches[""].is_quiet()
        stock.assert_answers(client.infer("simple", stock.inputs()))
        explicit.process.send_signal(signal.SIGTERM)
        for name in ("", "simple", INFERENCE):
            assert watches[name].next() == NOT_SERVING
        assert explicit.process.wait(WITHIN_S) == 0
        for name in ("", "simple", INFERENCE):
            ended = watches[name].next()
            assert isinstance(ended, grpc.RpcError)
            assert ended.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def test_health_is_asked_by_what_reflection_tells(found: Found) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        found.call("grpc.health.v1.Health", "Check", service="nobody")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert found.call("grpc.health.v1.Health", "Check", service="lenet5").status == SERVING
