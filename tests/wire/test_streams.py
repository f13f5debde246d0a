"""Streams as Triton's clients use them: errors as their status, final answers, order, deadlines, priorities."""

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from protos import images_pb2, images_pb2_grpc, inference_pb2, inference_pb2_grpc
from service import client as fovea
from tests.conftest import RunningServer
from tests.wire import troubled
from tests.wire.troubled import image, pixels, slow

STRICT = {"triton_grpc_error": "true"}
FINAL = "triton_final_response"
Answer = tuple[Any, InferenceServerException | None]


@pytest.fixture
def stock(troublesome: RunningServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(troublesome.address) as client:
        yield client


@pytest.fixture
def opened(troublesome: RunningServer) -> Iterator[inference_pb2_grpc.GRPCInferenceServiceStub]:
    with grpc.insecure_channel(troublesome.address) as channel:
        yield inference_pb2_grpc.GRPCInferenceServiceStub(channel)


def digit(value: int = 0, datatype: str = "UINT8") -> triton.InferInput:
    tensor = triton.InferInput("image", [1, 32, 32, 1], datatype)
    tensor.set_data_from_numpy(np.full((1, 32, 32, 1), value, np.uint8 if datatype == "UINT8" else np.float32))
    return tensor


def work(products: int) -> list[triton.InferInput]:
    count, values = triton.InferInput("n", [], "INT64"), triton.InferInput("x", [1], "FP32")
    count.set_data_from_numpy(np.array(products, np.int64))
    values.set_data_from_numpy(np.zeros(1, np.float32))
    return [count, values]


def streamed(
    stock: triton.InferenceServerClient,
    send: Callable[[triton.InferenceServerClient], None],
    count: int,
    headers: dict[str, str] | None = None,
) -> list[Answer]:
    answers: queue.Queue[Answer] = queue.Queue()
    stock.start_stream(lambda result, error: answers.put((result, error)), headers=headers)
    try:
        send(stock)
        return [answers.get(timeout=60) for _ in range(count)]
    finally:
        stock.stop_stream()


@pytest.mark.parametrize("wants_empty", [False, True])
def test_every_answer_of_a_stream_is_its_request_s_final_one(
    stock: triton.InferenceServerClient, wants_empty: bool
) -> None:
    """As Triton answers for models that are not decoupled: no empty answer follows, whatever was asked for."""

    def send(client: triton.InferenceServerClient) -> None:
        for number in range(3):
            client.async_stream_infer(
                "lenet5", [digit()], request_id=str(number), enable_empty_final_response=wants_empty
            )

    answers = streamed(stock, send, 3)
    assert sorted(result.get_response().id for result, _ in answers) == ["0", "1", "2"]
    for result, error in answers:
        assert error is None
        assert result.get_response().parameters[FINAL].bool_param
        assert result.as_numpy("logits").shape == (1, 10)


def test_a_unary_answer_says_nothing_of_being_final(stock: triton.InferenceServerClient) -> None:
    assert FINAL not in stock.infer("lenet5", [digit()]).get_response().parameters


def test_an_error_in_a_stream_is_final_too(opened: inference_pb2_grpc.GRPCInferenceServiceStub) -> None:
    (answer,) = opened.ModelStreamInfer(iter([image(b"no image")]))
    assert answer.error_message
    assert answer.infer_response.parameters[FINAL].bool_param
    assert answer.infer_response.parameters["grpc-status"].string_param == "INVALID_ARGUMENT"


def test_where_it_is_asked_for_an_error_is_the_stream_s_status(stock: triton.InferenceServerClient) -> None:
    answers: queue.Queue[Answer] = queue.Queue()
    stock.start_stream(lambda result, error: answers.put((result, error)), headers=STRICT)
    stock.async_stream_infer("lenet5", [digit()])
    result, error = answers.get(timeout=60)
    assert (result.as_numpy("logits").shape, error) == ((1, 10), None)
    stock.async_stream_infer("lenet5", [digit(datatype="FP32")])
    result, error = answers.get(timeout=60)
    stock.stop_stream()
    assert error is not None
    assert (result, error.status()) == (None, "StatusCode.INVALID_ARGUMENT")
    assert "got datatype 'FP32'" in error.message()


@pytest.mark.parametrize("value", ["false", "1", None])
def test_where_it_is_not_asked_for_the_stream_goes_on(stock: triton.InferenceServerClient, value: str | None) -> None:
    def send(client: triton.InferenceServerClient) -> None:
        client.async_stream_infer("lenet5", [digit(datatype="FP32")])
        client.async_stream_infer("lenet5", [digit()])

    headers = None if value is None else {"triton_grpc_error": value}
    (bad, error), (good, none) = streamed(stock, send, 2, headers)
    assert (bad, none) == (None, None)
    assert error is not None
    assert error.status() is None
    assert good.as_numpy("logits").shape == (1, 10)


def test_a_status_that_ends_a_stream_has_its_details(opened: inference_pb2_grpc.GRPCInferenceServiceStub) -> None:
    for request, reason, fields in (
        (pixels(wait=1), "BAD_REQUEST", ['parameters["wait"]']),
        (pixels(timeout=1), "TOO_LATE", []),
        (image(bytes(2**20)), "MESSAGE_TOO_LARGE", []),
        (inference_pb2.ModelInferRequest(model_name="lenet"), "MODEL_NOT_FOUND", []),
    ):
        stream = opened.ModelStreamInfer(iter([request]), metadata=list(STRICT.items()))
        with pytest.raises(grpc.RpcError):
            next(stream)
        found = troubled.told(stream)
        assert (found.reason, list(found.violations)) == (reason, fields)
        assert found.pushback == ("-1" if reason == "TOO_LATE" else None)


async def test_an_error_that_ends_a_stream_gives_up_what_is_not_finished_and_keeps_what_is(
    troublesome: RunningServer,
) -> None:
    async with grpc.aio.insecure_channel(troublesome.address) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        stream = stub.ModelStreamInfer(metadata=tuple(STRICT.items()))
        await stream.write(pixels())
        first = await stream.read()
        assert len(first.infer_response.outputs) == 2
        await stream.write(slow(300, request_id="long"))
        await stream.write(slow(0, request_id="waits"))
        await stream.write(pixels(wait=1))
        with pytest.raises(grpc.aio.AioRpcError, match="parameter 'wait'"):
            await stream.read()
        again = stub.ModelStreamInfer()  # others are not affected
        await again.write(pixels())
        await again.done_writing()
        assert [answer.error_message async for answer in again] == [""]


async def test_the_stock_client_for_asyncio(troublesome: RunningServer) -> None:
    """It hands parameters, sequence flags and metadata over in a dictionary for each request."""

    async def requests(*inputs: list[triton_aio.InferInput], **more: Any) -> AsyncIterator[dict[str, Any]]:
        for number, tensors in enumerate(inputs):
            yield {"model_name": "lenet5", "inputs": tensors, "request_id": str(number), **more}

    async with triton_aio.InferenceServerClient(troublesome.address) as client:
        for priority, timeout in ((0, None), (1, 30_000_000)):
            asked = requests([digit()], [digit()], priority=priority, timeout=timeout)
            answers = [answer async for answer in client.stream_infer(asked)]
            assert sorted(result.get_response().id for result, _ in answers) == ["0", "1"]
            assert all(result.get_response().parameters[FINAL].bool_param for result, _ in answers)
        refused = requests([digit()], sequence_id=5, sequence_start=True)
        ((_, error),) = [answer async for answer in client.stream_infer(refused)]
        assert "there are no sequences; send the requests without sequence_id" in str(error)
        with pytest.raises(grpc.aio.AioRpcError) as caught:  # the client hands it on as it is
            async for _ in client.stream_infer(requests([digit(datatype="FP32")]), headers=STRICT):
                raise AssertionError("the first error ends the stream")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_sequence_that_is_none_is_taken(opened: inference_pb2_grpc.GRPCInferenceServiceStub) -> None:
    request = pixels(sequence_id=0, sequence_start=False, sequence_end=False)
    request.parameters["sequence_id"].string_param = ""
    (answer,) = opened.ModelStreamInfer(iter([request]))
    assert answer.error_message == ""


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"sequence_id": 7}, "parameter 'sequence_id': the models here keep nothing"),
        ({"sequence_id": "a"}, "parameter 'sequence_id': the models here keep nothing"),
        ({"sequence_end": True}, "parameter 'sequence_end': the models here keep nothing"),
        ({"timeout": -1}, "parameter 'timeout' must be an int64 of microseconds"),
        ({"priority": "high"}, "parameter 'priority' must be a uint64"),
    ],
)
def test_what_a_stream_s_message_cannot_have_is_said(
    opened: inference_pb2_grpc.GRPCInferenceServiceStub, parameters: dict[str, Any], sentence: str
) -> None:
    (answer,) = opened.ModelStreamInfer(iter([pixels(**parameters)]))
    assert sentence in answer.error_message


def test_messages_without_an_id_are_answered_in_their_order(
    stock: triton.InferenceServerClient, opened: inference_pb2_grpc.GRPCInferenceServiceStub
) -> None:
    """Nothing but their order says whose answer is whose; Triton keeps it as well. Those with an id do not wait."""
    long, short, bad = slow(100), pixels(), pixels(wait=1)
    named = pixels()
    named.id = "named"
    answers = list(opened.ModelStreamInfer(iter([long, short, bad, named, short])))
    assert [answer.infer_response.id for answer in answers] == ["named", "", "", "", ""]
    assert [answer.infer_response.model_name for answer in answers[1:]] == ["slow", "lenet5", "", "lenet5"]
    assert "wait" in answers[3].error_message

    def send(client: triton.InferenceServerClient) -> None:
        for products in (60, 0, 30, 0):
            client.async_stream_infer("slow", work(products))
            client.async_stream_infer("lenet5", [digit()])

    models = [result.get_response().model_name for result, _ in streamed(stock, send, 8)]
    assert models == ["slow", "lenet5"] * 4


def test_an_error_for_a_message_that_is_too_large_or_unreadable_says_whose_it_is(troublesome: RunningServer) -> None:
    large, broken = image(bytes(2**20)), inference_pb2.ModelInferRequest(model_name="lenet5")
    large.id, broken.id = "large", "broken"
    raw = broken.SerializeToString() + b"\x2a\x01\xff"  # an input of one byte that is none
    with grpc.insecure_channel(troublesome.address) as channel:
        send = channel.stream_stream(troubled.SERVICE + "ModelStreamInfer")
        got = list(map(inference_pb2.ModelStreamInferResponse.FromString, send(iter([large.SerializeToString(), raw]))))
    found = {answer.infer_response.id: answer.infer_response.parameters["grpc-status"].string_param for answer in got}
    assert found == {"large": "RESOURCE_EXHAUSTED", "broken": "INVALID_ARGUMENT"}


async def test_a_message_that_is_too_large_fails_only_its_own_call(troublesome: RunningServer) -> None:
    """Of our client, which sends all calls over one stream; a call that is sent again would run a second time."""
    async with fovea.Client(troublesome.address) as served:
        before = (await served.statistics("slow")).inference_count
        others = [asyncio.create_task(served.infer(slow(100, request_id=name))) for name in "ab"]
        with pytest.raises(fovea.CallFailed, match=r"RESOURCE_EXHAUSTED from .*: the message has .* limit is 1048576"):
            await served.infer(image(bytes(2**20)))
        assert not any(call.done() for call in others)
        assert [(await call).id for call in others] == ["a", "b"]
        assert (await served.statistics("slow")).inference_count == before + 2


def test_images_of_a_stream_are_told_apart_as_well(troublesome: RunningServer) -> None:
    large = images_pb2.ClassifyStreamRequest(id="large")
    large.request.image.file = bytes(2**20)
    with grpc.insecure_channel(troublesome.address) as channel:
        (answer,) = images_pb2_grpc.ImageServiceStub(channel).ClassifyStream(iter([large]))
        assert (answer.id, answer.failure.code) == ("large", "RESOURCE_EXHAUSTED")
        send = channel.stream_stream("/fovea.v1.ImageService/ClassifyStream")
        (raw,) = send(iter([images_pb2.ClassifyStreamRequest(id="broken").SerializeToString() + b"\x12\x01\xff"]))
    answer = images_pb2.ClassifyStreamResponse.FromString(raw)
    assert (answer.id, answer.failure.code) == ("broken", "INVALID_ARGUMENT")


async def test_a_stream_whose_client_goes_away_leaves_nothing_behind(troublesome: RunningServer) -> None:
    before = len(troublesome.log())
    async with grpc.aio.insecure_channel(troublesome.address) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        for metadata in ((), tuple(STRICT.items())):
            stream = stub.ModelStreamInfer(metadata=metadata)
            await stream.write(slow(30))
            await stream.write(pixels())
            stream.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stream.read()
        again = stub.ModelStreamInfer()
        await again.write(slow(0))
        await again.done_writing()
        assert [answer.error_message async for answer in again] == [""]
    said = troublesome.log()[before:]
    assert "Traceback" not in said
    assert "never retrieved" not in said
