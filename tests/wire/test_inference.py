"""A real server, spoken to by NVIDIA's own client."""

import asyncio
import queue

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from export import digits
from tests.conftest import Exported, RunningServer, encoded
from tests.service.images.test_formats import png_header


@pytest.fixture
def stock(server: RunningServer) -> triton.InferenceServerClient:
    client = triton.InferenceServerClient(server.address)
    yield client
    client.close()


def bytes_input(files: list[bytes], *, column: bool = False) -> triton.InferInput:
    shape = [len(files), 1] if column else [len(files)]
    tensor = triton.InferInput("image", shape, "BYTES")
    tensor.set_data_from_numpy(np.array(files, dtype=np.object_).reshape(shape))
    return tensor


def pixel_input(images_nhwc: np.ndarray) -> triton.InferInput:
    tensor = triton.InferInput("image", list(images_nhwc.shape), "UINT8")
    tensor.set_data_from_numpy(np.ascontiguousarray(images_nhwc))
    return tensor


def test_the_server_describes_itself(stock: triton.InferenceServerClient) -> None:
    assert stock.is_server_live()
    assert stock.is_server_ready()
    assert stock.is_model_ready("lenet5")
    assert stock.is_model_ready("lenet5", "1")
    assert not stock.is_model_ready("lenet6")
    assert "statistics" in stock.get_server_metadata().extensions
    metadata = stock.get_model_metadata("lenet5")
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs] == [
        ("image", "UINT8", [-1, 32, 32, 1])
    ]
    assert list(metadata.versions) == ["1"]
    config = stock.get_model_config("lenet5").config
    assert config.max_batch_size == 64
    assert list(config.input[0].dims) == [32, 32, 1]
    assert config.HasField("dynamic_batching")


def test_pngs_and_pixels_and_pytorch_agree(
    stock: triton.InferenceServerClient, exported: Exported, held_out: digits.Digits, pngs: list[bytes]
) -> None:
    images = held_out.images_nhwc[:32]
    wanted = exported.logits(images)
    for tensor in (bytes_input(pngs[:32]), bytes_input(pngs[:32], column=True), pixel_input(images)):
        got = stock.infer("lenet5", [tensor]).as_numpy("logits")
        assert np.abs(got - wanted).max() < 1e-5 * max(1, np.abs(wanted).max())
        assert (got.argmax(1) == wanted.argmax(1)).all()


def test_classification_gives_value_index_and_label(
    stock: triton.InferenceServerClient, held_out: digits.Digits, pngs: list[bytes]
) -> None:
    output = triton.InferRequestedOutput("probabilities", class_count=3)
    best = stock.infer("lenet5", [bytes_input(pngs[:2])], outputs=[output]).as_numpy("probabilities")
    assert best.shape == (2, 3)
    values = [[float(entry.decode().split(":")[0]) for entry in row] for row in best]
    assert all(row == sorted(row, reverse=True) for row in values)
    for row, label in zip(best, held_out.labels, strict=False):
        value, index, text = row[0].decode().split(":")
        assert index == text == str(label)
        assert 0 < float(value) <= 1


def test_a_class_count_over_the_number_of_classes_gives_all(
    stock: triton.InferenceServerClient, pngs: list[bytes]
) -> None:
    output = triton.InferRequestedOutput("logits", class_count=99)
    assert stock.infer("lenet5", [bytes_input(pngs[:1])], outputs=[output]).as_numpy("logits").shape == (1, 10)


def test_jpegs_of_any_size_are_taken(stock: triton.InferenceServerClient, held_out: digits.Digits) -> None:
    large = np.kron(held_out.images_nhwc[0, :, :, 0], np.ones((5, 5), np.uint8))
    result = stock.infer("lenet5", [bytes_input([encoded(large, "JPEG", quality=95)])], request_id="seven")
    assert result.as_numpy("logits").argmax() == held_out.labels[0]
    assert result.get_response().id == "seven"
    assert result.get_response().model_version == "1"
    assert len(result.get_response().raw_output_contents) == len(result.get_response().outputs) == 2


def test_typed_contents_are_taken(server: RunningServer, held_out: digits.Digits) -> None:
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    request = service_pb2.ModelInferRequest(model_name="lenet5")
    tensor = request.inputs.add(name="image", datatype="UINT8", shape=[1, 32, 32, 1])
    tensor.contents.uint_contents.extend(held_out.images_nhwc[0].ravel().tolist())
    with grpc.insecure_channel(server.address) as channel:
        response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert np.frombuffer(response.raw_output_contents[0], np.float32).argmax() == held_out.labels[0]


def bad(name: str, shape: list[int], datatype: str, values: np.ndarray) -> triton.InferInput:
    tensor = triton.InferInput(name, shape, datatype)
    tensor.set_data_from_numpy(values)
    return tensor


ZEROS = np.zeros((1, 32, 32, 1), np.uint8)
BAD_INPUTS = {
    "wrong dtype": (
        bad("image", [1, 32, 32, 1], "FP32", ZEROS.astype(np.float32)),
        r"input 'image' of model 'lenet5': got datatype 'FP32'; expected UINT8, or BYTES with encoded images",
    ),
    "wrong shape": (
        bad("image", [1, 28, 28, 1], "UINT8", ZEROS[:, :28, :28]),
        r"got shape \[1, 28, 28, 1\]; expected shape \[-1, 32, 32, 1\]",
    ),
    "wrong name": (bad("imagee", [1, 32, 32, 1], "UINT8", ZEROS), r"no input 'imagee' \(did you mean 'image'\?\)"),
    "empty batch": (bad("image", [0, 32, 32, 1], "UINT8", ZEROS[:0]), r"expected at least one row"),
    "text file": (bytes_input([b"dear server"]), r"image 0: .* not a readable PNG or JPEG|not a readable|readable PNG"),
    "truncated png": (bytes_input([encoded(np.eye(32, dtype=np.uint8), "PNG")[:-30]]), r"PNG data is damaged"),
    "bomb": (bytes_input([png_header(30_000, 30_000)]), r"30000x30000 pixels; the limit is 64000000 in all; resize"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_input_is_explained_and_the_server_goes_on(
    stock: triton.InferenceServerClient, pngs: list[bytes], case: str
) -> None:
    tensor, sentence = BAD_INPUTS[case]
    with pytest.raises(InferenceServerException, match=sentence) as caught:
        stock.infer("lenet5", [tensor])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert stock.infer("lenet5", [bytes_input(pngs[:1])]).as_numpy("logits").shape == (1, 10)


def test_an_empty_request_and_an_unknown_model_are_explained(stock: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="needs image too") as caught:
        stock.infer("lenet5", [])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    with pytest.raises(
        InferenceServerException, match=r"'lenet6' is not served here \(did you mean 'lenet5'"
    ) as caught:
        stock.infer("lenet6", [pixel_input(ZEROS)])
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException, match="version '7' of model 'lenet5' is not served") as caught:
        stock.infer("lenet5", [pixel_input(ZEROS)], model_version="7")
    assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_a_small_request_makes_no_huge_answer(stock: triton.InferenceServerClient) -> None:
    twice = [triton.InferRequestedOutput("logits"), triton.InferRequestedOutput("logits", class_count=2)]
    with pytest.raises(InferenceServerException, match=r"outputs has 'logits' more than once"):
        stock.infer("lenet5", [pixel_input(ZEROS)], outputs=twice)


def test_an_unknown_output_and_an_unknown_parameter_are_explained(stock: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"no output 'logit' .did you mean 'logits'"):
        stock.infer("lenet5", [pixel_input(ZEROS)], outputs=[triton.InferRequestedOutput("logit")])
    with pytest.raises(InferenceServerException, match=r"parameter 'wait' is not supported"):
        stock.infer("lenet5", [pixel_input(ZEROS)], parameters={"wait": 1})


@pytest.mark.parametrize("size", [1_500_000, 3_000_000])
def test_a_message_over_the_limit_gets_a_status_and_the_limit(stock: triton.InferenceServerClient, size: int) -> None:
    with pytest.raises(InferenceServerException) as caught:
        stock.infer("lenet5", [bytes_input([b"x" * size])])
    assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
    assert ("limit is 1048576" if size < 2_000_000 else "2097152") in caught.value.message()


def test_bytes_that_are_no_message_are_explained(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        send = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            send(b"\xff\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "3 bytes that are no inference.ModelInferRequest" in caught.value.details()


def test_one_bad_image_among_many_callers_costs_the_others_nothing(server: RunningServer, pngs: list[bytes]) -> None:
    async def send() -> list[object]:
        async with triton_aio.InferenceServerClient(server.address) as client:
            calls = [
                client.infer("lenet5", [bytes_input([pngs[number] if number % 5 else b"bad"])]) for number in range(50)
            ]
            return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(send())
    failed = [number for number, answer in enumerate(answers) if isinstance(answer, InferenceServerException)]
    assert failed == list(range(0, 50, 5))


def test_a_stream_answers_everything_by_id_and_goes_on_after_errors(
    stock: triton.InferenceServerClient, exported: Exported, held_out: digits.Digits, pngs: list[bytes]
) -> None:
    answers: queue.Queue[tuple[object, object]] = queue.Queue()
    stock.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(200):
        stock.async_stream_infer("lenet5", [bytes_input([pngs[number]])], request_id=str(number))
        if number % 50 == 0:
            stock.async_stream_infer("lenet5", [bytes_input([b"bad"])], request_id=f"bad {number}")
    received = [answers.get(timeout=30) for _ in range(204)]
    stock.stop_stream()
    errors = [error for _, error in received if error is not None]
    assert len(errors) == 4
    assert all("not a readable PNG" in str(error) or "readable PNG" in str(error) for error in errors)
    logits = {int(result.get_response().id): result.as_numpy("logits")[0] for result, error in received if not error}
    wanted = exported.logits(held_out.images_nhwc[:200])
    assert sorted(logits) == list(range(200))
    assert all(logits[number].argmax() == wanted[number].argmax() for number in range(200))


def test_statistics_add_up(stock: triton.InferenceServerClient, pngs: list[bytes]) -> None:
    def counts() -> object:
        return stock.get_inference_statistics("lenet5").model_stats[0]

    before = counts()
    for number in range(10):
        stock.infer("lenet5", [bytes_input(pngs[: 1 + number % 3])])
    with pytest.raises(InferenceServerException):
        stock.infer("lenet5", [bytes_input([b"bad"])])
    after = counts()
    assert after.inference_count - before.inference_count == sum(1 + number % 3 for number in range(10))
    assert 10 <= after.execution_count - before.execution_count <= 19  # where it pays, parts run on all instances
    stats = after.inference_stats
    for name in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert getattr(stats, name).count - getattr(before.inference_stats, name).count == 10
    assert stats.fail.count - before.inference_stats.fail.count == 1
    parts = (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output)
    assert stats.success.ns >= sum(part.ns for part in parts)
    assert sum(batch.compute_infer.count for batch in after.batch_stats) == after.execution_count
    samples = sum(batch.batch_size * batch.compute_infer.count for batch in after.batch_stats)
    assert samples == after.inference_count
