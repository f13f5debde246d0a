"""What was wrong with a request is named in google.rpc.BadRequest: the field, got, expected."""

import grpc
import pytest

from protos import images_pb2, inference_pb2, inference_pb2_grpc
from tests.wire import troubled
from tests.wire.troubled import call, image, pixels

Request = inference_pb2.ModelInferRequest


def with_output(parameter: str | None = None, name: str = "logits") -> Request:
    request = pixels()
    output = request.outputs.add(name=name)
    if parameter:
        output.parameters[parameter].int64_param = 0
    return request


def changed(**fields: object) -> Request:
    request = pixels()
    for name, value in fields.items():
        setattr(request.inputs[0], name, value)
    return request


def typed(values: int) -> Request:
    request = pixels()
    del request.raw_input_contents[:]
    request.inputs[0].contents.uint_contents.extend([0] * values)
    return request


def with_raw(raw: bytes) -> Request:
    request = pixels()
    request.raw_input_contents[:] = [raw]
    return request


good = images_pb2.Image(pixels=images_pb2.Pixels(height=1, width=1, channels=1, data=b"x"))
Classify, Features = images_pb2.ClassifyRequest, images_pb2.FeaturesRequest
FIELDS = {
    'inputs["image"].shape': (troubled.bad_shape(), "got shape [1, 31, 32, 1]; expected shape [-1, 32, 32, 1]"),
    'inputs["image"].datatype': (changed(datatype="FP32"), "got datatype 'FP32'; expected UINT8, or BYTES"),
    'inputs["image"].contents': (typed(5), "got 5 values; expected 1024"),
    'inputs["image"]': (with_raw(b"x"), "got 1 raw bytes; expected 1024"),
    'inputs["pixels"]': (changed(name="pixels"), "has no input 'pixels'"),
    'inputs["image"][0]': (image(b"no image"), "image 0: 8 bytes that begin with"),
    'outputs["logit"]': (with_output(name="logit"), "did you mean 'logits'"),
    'outputs["logits"].parameters["classification"]': (with_output("classification"), "an int64 of at least 1"),
    'outputs["logits"].parameters["sort"]': (with_output("sort"), "has parameter 'sort', which is not supported"),
    'parameters["timeout"]': (pixels(timeout="soon"), "must be an int64 of microseconds"),
    'parameters["priority"]': (pixels(priority=-1), "must be a uint64"),
    'parameters["sequence_id"]': (pixels(sequence_id=7), "there are no sequences"),
    'parameters["triton_enable_empty_final_response"]': (
        pixels(triton_enable_empty_final_response=1), "must be a bool",
    ),
    'parameters["triton_x"]': (pixels(triton_x=1), "names that begin with triton_ are Triton's own"),
    "image.file": (Classify(model="lenet5", image=images_pb2.Image(file=b"?")), "not a readable PNG"),
    "image.pixels": (
        Classify(model="lenet5", image=images_pb2.Image(pixels=images_pb2.Pixels(width=2))), "0 bytes for 0 x 2",
    ),
    "image": (Classify(model="lenet5"), "set image.file or image.pixels"),
    "model": (Classify(model="slow", image=good), "takes no images"),
    'parameters["file:../x"]': (
        inference_pb2.RepositoryModelLoadRequest(
            model_name="lenet5",
            parameters={"file:../x": inference_pb2.ModelRepositoryParameter(bytes_param=b"")},
        ),
        "the path must stay within",
    ),
    'settings["log_level"]': (
        inference_pb2.LogSettingsRequest(settings={"log_level": {"bool_param": True}}), "is not known here",
    ),
}  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_what_was_wrong_with_a_request_is_named(channel: grpc.Channel, field: str) -> None:
    request, sentence = FIELDS[field]
    found = call(channel, request)
    assert found.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(found.violations) == [field]
    assert sentence in found.violations[field]
    assert sentence in found.sentence


@pytest.mark.parametrize(("values", "best", "told"), [(2**17, 2**16, 2**16), (2**20, 1, 1), (5, 2**40, 5)])
def test_best_classes_are_told_up_to_a_bound(channel: grpc.Channel, values: int, best: int, told: int) -> None:
    (answer,) = answers(channel, troubled.zeros(values, best))
    assert list(answer.infer_response.outputs[0].shape) == [told]
    assert answer.infer_response.raw_output_contents[0][4:].startswith(b"0.000000:0")


@pytest.mark.parametrize(("values", "best"), [(2**17, 2**16 + 1), (2**17, 2**40), (2**20 + 1, 1)])
def test_too_many_best_classes_are_refused_with_what_to_do(channel: grpc.Channel, values: int, best: int) -> None:
    """They would hold up the event loop, and so everybody."""
    request = troubled.zeros(values, best)
    found = call(channel, request)
    assert found.code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"the best {min(best, values)} of each of 1 rows of {values} values are too many" in found.sentence
    assert "ask for at most 65536 in all, of at most 1048576 values, or for the tensor" in found.sentence
    assert list(found.violations) == ['outputs["y"].parameters["classification"]']
    refused, tensor = answers(channel, request, troubled.zeros(2**17))
    assert "too many to be told as text" in refused.error_message
    assert len(tensor.infer_response.raw_output_contents[0]) == 4 * 2**17


def answers(channel: grpc.Channel, *requests: Request) -> list[inference_pb2.ModelStreamInferResponse]:
    """Of a stream, which goes on after a refusal."""
    return list(inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter(requests)))
