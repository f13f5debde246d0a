"""What a real server writes about requests: lines of JSON, and never what is in the requests."""

import asyncio
import json
import pathlib
import subprocess

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from protos import inference_pb2, inference_pb2_grpc
from tests.conftest import FOVEA, Exported, RunningServer, encoded, running
from tests.service.test_logs import camera_jpeg
from tests.wire.test_tracing import request_of

SECRET = "kZ8QxSECRETwv"
"""Is in an image, a string tensor, the values of parameters, and metadata."""


def written(server: RunningServer) -> list[dict[str, str]]:
    return [json.loads(line) for line in server.log().splitlines()]


def failing_model(folder: pathlib.Path) -> None:
    """A model whose runs raise for any index but 0: its table has one entry."""
    rows = helper.make_tensor("table", TensorProto.FLOAT, [1], [1.0])
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "index"], ["row"])],
        "failing",
        [helper.make_tensor_value_info("index", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, [1])],
        [rows],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (folder / "failing/1").mkdir(parents=True)
    onnx.save(model, folder / "failing/1/model.onnx")
    (folder / "failing/config.pbtxt").write_text('backend: "onnxruntime"\nmax_batch_size: 0\n')


@pytest.fixture(scope="module")
def talkative(exported: Exported, tmp_path_factory: pytest.TempPathFactory):
    """A server that logs all it can, in JSON."""
    repository = tmp_path_factory.mktemp("models")
    (repository / "lenet5").symlink_to(exported.repository / "lenet5")
    failing_model(repository)
    log = tmp_path_factory.mktemp("talkative") / "log"
    with running(repository, log, "--log-format", "json", "--log-level", "debug") as server:
        yield server


def out_of_range(index: int, request_id: str = "") -> inference_pb2.ModelInferRequest:
    request = inference_pb2.ModelInferRequest(model_name="failing", id=request_id)
    request.inputs.add(name="index", datatype="INT64", shape=[1])
    request.raw_input_contents.append(np.array([index], np.int64).tobytes())
    return request


async def codes(server: RunningServer, *requests: inference_pb2.ModelInferRequest) -> list[grpc.StatusCode]:
    metadata = (("x-secret", SECRET),)
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        calls = [stub.ModelInfer(request, metadata=metadata) for request in requests]
        return [await call.code() for call in calls]


async def test_an_internal_failure_is_logged_with_its_cause_and_its_request(talkative: RunningServer) -> None:
    before = len(written(talkative))
    assert await codes(talkative, out_of_range(5, "the one")) == [grpc.StatusCode.INTERNAL]
    (entry,) = [line for line in written(talkative)[before:] if line["level"] == "error"]
    assert (entry["request_id"], entry["model"]) == ("the one", "failing")
    assert "indices element out of data bounds" in entry["trace"]


async def test_a_flood_of_failures_does_not_fill_the_disk(talkative: RunningServer) -> None:
    """300 failures and 300 bad requests: a burst of each is written."""
    before = len(talkative.log())
    lines_before = len(written(talkative))
    bad = [request_of([b"no image"]) for _ in range(300)]
    assert set(await codes(talkative, *[out_of_range(5) for _ in range(300)])) == {grpc.StatusCode.INTERNAL}
    assert set(await codes(talkative, *bad)) == {grpc.StatusCode.INVALID_ARGUMENT}
    new = written(talkative)[lines_before:]
    assert len([line for line in new if line["level"] == "error"]) <= 12
    assert len([line for line in new if line.get("model") == "lenet5"]) <= 12
    assert len(talkative.log()) - before < 200_000


async def test_no_content_of_requests_is_logged(talkative: RunningServer, pngs: list[bytes]) -> None:
    """Good and bad ones, with everything that a request can carry, at the level that says most."""
    secret = SECRET.encode()
    pixels = encoded(np.frombuffer(secret * 64, np.uint8)[: 28 * 28].reshape(28, 28), "PNG")
    image = request_of([pixels[:-12] + b"\0\0\0\0tEXt" + secret + pixels[-12:]])
    photo = request_of([camera_jpeg(SECRET)])
    truncated = request_of([b"\x89PNG\r\n\x1a\n" + secret])
    strings = request_of([secret])
    parameters = request_of(pngs[:1])
    parameters.parameters["timeout"].string_param = SECRET
    unknown = request_of(pngs[:1])
    unknown.parameters["other"].string_param = SECRET
    tracing = request_of(pngs[:1])
    tracing.parameters["traceparent"].string_param = SECRET
    wrong = out_of_range(0)
    wrong.raw_input_contents[0] = secret
    answers = await codes(
        talkative, image, photo, truncated, strings, parameters, unknown, tracing, wrong, out_of_range(9)
    )
    assert grpc.StatusCode.INVALID_ARGUMENT in answers
    garbage = grpc.aio.insecure_channel(talkative.address)
    async with garbage:
        call = garbage.unary_unary("/inference.GRPCInferenceService/ModelInfer")(secret * 10)
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    log = talkative.log()
    assert SECRET not in log
    assert SECRET[4:10] not in log
    assert written(talkative)


async def test_clients_errors_are_no_news_at_info(
    exported: Exported, tmp_path: pathlib.Path, pngs: list[bytes]
) -> None:
    """And LogSettings changes that while the server runs."""
    with running(exported.repository, tmp_path / "log", "--log-format", "json") as server:
        ready = len(written(server))
        assert await codes(server, request_of([b"no image"])) == [grpc.StatusCode.INVALID_ARGUMENT]
        assert len(written(server)) == ready
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
            change = inference_pb2.LogSettingsRequest()
            change.settings["log_verbose_level"].uint32_param = 1
            assert (await stub.LogSettings(change)).settings["log_verbose_level"].uint32_param == 1
        assert await codes(server, request_of([b"no image"])) == [grpc.StatusCode.INVALID_ARGUMENT]
        (line,) = [line for line in written(server)[ready:] if line.get("model") == "lenet5"]
        assert (line["level"], line["logger"]) == ("debug", "service.wire.passage")
        assert line["message"].startswith("INVALID_ARGUMENT: image 0")


def test_an_error_at_the_start_is_json_too(tmp_path: pathlib.Path) -> None:
    command = [FOVEA, "serve", "--repository", str(tmp_path), "--grpc-port", "0", "--metrics-port", "0"]
    ended = subprocess.run([*command, "--log-format", "json"], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    last = [json.loads(line) for line in ended.stderr.splitlines()][-1]
    assert last["level"] == "critical"
    assert "holds no model" in last["message"]


def test_calls_that_break_off_leave_lines_of_json(talkative: RunningServer, pngs: list[bytes]) -> None:
    """Clients who go away in the middle, and streams that are cut."""

    async def break_off() -> None:
        async with grpc.aio.insecure_channel(talkative.address) as channel:
            stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
            calls = [stub.ModelInfer(request_of(pngs[:8])) for _ in range(20)]
            stream = stub.ModelStreamInfer()
            await stream.write(request_of(pngs[:8]))
            await asyncio.sleep(0)
            for call in (*calls, stream):
                call.cancel()

    asyncio.run(break_off())
    assert written(talkative)
