"""Deadlines, priorities, full queues and large requests, as clients see them."""

import dataclasses
import pathlib
import queue
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from export import digits
from protos import inference_pb2
from tests import conftest
from tests.conftest import Exported, RunningServer
from tests.wire.test_inference import bytes_input, pixel_input

PUSHBACK = "grpc-retry-pushback-ms"

CONFIG = """
name: "lenet5"
backend: "onnxruntime"
max_batch_size: 16
dynamic_batching {
  priority_levels: 2
  default_priority_level: 2
  default_queue_policy { allow_timeout_override: true }
}
"""


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What a unary caller is told."""

    code: grpc.StatusCode
    sentence: str
    pushback: str | None


@pytest.fixture(scope="module")
def small(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with two priorities and a queue of 40 samples."""
    repository = tmp_path_factory.mktemp("small")
    (repository / "lenet5").mkdir()
    for part in ("1", "labels.txt"):
        (repository / "lenet5" / part).symlink_to(exported.repository / "lenet5" / part)
    (repository / "lenet5/config.pbtxt").write_text(CONFIG)
    log_path: pathlib.Path = tmp_path_factory.mktemp("log") / "log"
    with conftest.running(repository, log_path, "--queue-samples-max", "40") as started:
        yield started


@pytest.fixture
def stock(small: RunningServer) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(small.address)
    yield client
    client.close()


def pixels(samples: int, **parameters: int) -> inference_pb2.ModelInferRequest:
    request = inference_pb2.ModelInferRequest(model_name="lenet5")
    request.inputs.add(name="image", datatype="UINT8", shape=(samples, 32, 32, 1))
    request.raw_input_contents.append(bytes(samples * 32 * 32))
    for name, value in parameters.items():
        request.parameters[name].int64_param = value
    return request


def refused(server: RunningServer, request: inference_pb2.ModelInferRequest) -> Refusal:
    with grpc.insecure_channel(server.address) as channel:
        send = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            send(request.SerializeToString())
    trailing = dict(caught.value.trailing_metadata() or ())
    return Refusal(caught.value.code(), caught.value.details(), trailing.get(PUSHBACK))


def test_what_cannot_be_answered_in_time_is_refused_at_once_and_told_not_to_come_back(small: RunningServer) -> None:
    refusal = refused(small, pixels(1, timeout=1))
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "model 'lenet5' would need" in refusal.sentence
    assert "the deadline is in 0.0 ms; allow more time" in refusal.sentence
    assert refusal.pushback == "-1"


def test_a_timeout_that_can_be_met_is(stock: triton.InferenceServerClient, pngs: list[bytes]) -> None:
    assert stock.infer("lenet5", [bytes_input(pngs[:1])], timeout=10_000_000)


def test_in_a_stream_a_refusal_is_an_answer_with_the_pause(
    stock: triton.InferenceServerClient, pngs: list[bytes]
) -> None:
    answers: queue.Queue[tuple[object, object]] = queue.Queue()
    stock.start_stream(lambda result, error: answers.put((result, error)))
    stock.async_stream_infer("lenet5", [bytes_input(pngs[:1])], request_id="a", timeout=1)
    stock.async_stream_infer("lenet5", [bytes_input(pngs[:1])], request_id="b")
    received = [answers.get(timeout=30) for _ in range(2)]
    stock.stop_stream()
    (error,) = [error for _, error in received if error is not None]
    assert "would need" in str(error)
    assert [result.get_response().id for result, _ in received if result is not None] == ["b"]


def test_a_request_larger_than_any_batch_runs_in_parts_and_comes_back_whole(
    stock: triton.InferenceServerClient, exported: Exported, held_out: digits.Digits
) -> None:
    images_nhwc = held_out.images_nhwc[:39]
    logits = stock.infer("lenet5", [pixel_input(images_nhwc)]).as_numpy("logits")
    assert logits.shape == (39, 10)
    assert np.allclose(logits, exported.logits(images_nhwc), atol=1e-4)
    batches = stock.get_inference_statistics("lenet5").model_stats[0].batch_stats
    assert max(batch.batch_size for batch in batches) <= 16


def test_a_request_larger_than_the_queue_is_told_that_it_never_fits(small: RunningServer) -> None:
    refusal = refused(small, pixels(41))
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "the queue of model 'lenet5' is full: 0 of 40 samples wait" in refusal.sentence
    assert "it will not fit later either" in refusal.sentence
    assert refusal.pushback == "-1"


@pytest.mark.parametrize("priority", [0, 1, 2])
def test_the_model_s_priorities_are_taken(
    stock: triton.InferenceServerClient, pngs: list[bytes], priority: int
) -> None:
    assert stock.infer("lenet5", [bytes_input(pngs[:1])], priority=priority)


def test_a_priority_that_the_model_does_not_have_is_explained(small: RunningServer) -> None:
    refusal = refused(small, pixels(1, priority=3))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "has the priorities 1 (first) to 2, and 0 means its default, 2" in refusal.sentence


def test_a_model_without_priorities_takes_any(server: RunningServer, pngs: list[bytes]) -> None:
    client = triton.InferenceServerClient(server.address)
    assert client.infer("lenet5", [bytes_input(pngs[:1])], priority=7)
    client.close()


@pytest.mark.parametrize("name", ["timeout", "priority"])
def test_a_parameter_of_the_wrong_kind_or_below_zero_is_explained(small: RunningServer, name: str) -> None:
    below, text = pixels(1, **{name: -1}), pixels(1)
    text.parameters[name].string_param = "soon"
    for request in (below, text):
        refusal = refused(small, request)
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert f"parameter '{name}' must be" in refusal.sentence
