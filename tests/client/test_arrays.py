"""Arrays to messages and back."""

from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from hypothesis.extra import numpy as arrays_of
from numpy.typing import NDArray

from protos import inference_pb2
from service import client
from service.client import arrays
from tests.client import scripted

NUMBERS = [
    np.dtype(kind)
    for kind in ("?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", ">u2", ">i8", ">f2", ">f4")
]
SHAPES = arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def through_a_message(values: NDArray[Any]) -> NDArray[Any]:
    request = inference_pb2.ModelInferRequest()
    arrays.add_input(request, "x", values)
    parsed = inference_pb2.ModelInferResponse.FromString(scripted.echoed(request).SerializeToString())
    return client.tensors(parsed)["x"]


@hypothesis.given(strategies.sampled_from(NUMBERS).flatmap(lambda dtype: arrays_of.arrays(dtype, SHAPES)))
def test_numbers_come_back_to_the_bit(values: NDArray[Any]) -> None:
    back = through_a_message(values)
    assert (back.dtype, back.shape) == (values.dtype.newbyteorder("="), values.shape)
    assert back.tobytes() == values.astype(back.dtype).tobytes()


@hypothesis.given(strategies.lists(strategies.binary(max_size=300), max_size=12))
def test_bytes_come_back(elements: list[bytes]) -> None:
    values = np.empty(len(elements), np.object_)
    values[:] = elements
    back = through_a_message(values)
    assert (back.dtype, back.tolist()) == (np.object_, elements)


@hypothesis.given(strategies.lists(strategies.text(max_size=20), min_size=4, max_size=4))
def test_text_comes_back_as_utf_8(elements: list[str]) -> None:
    values = np.array(elements, np.object_).reshape(2, 2)
    back = through_a_message(values)
    assert back.shape == (2, 2)
    assert [element.decode() for element in back.ravel()] == elements


def test_known_answer() -> None:
    request = inference_pb2.ModelInferRequest()
    arrays.add_input(request, "text", np.array(["ab", ""]))
    arrays.add_input(request, "half", np.array([1.0, -2.0], np.float16))
    arrays.add_input(request, "turned", np.array([[1, 2], [3, 4]], np.uint8).T)
    assert [tensor.datatype for tensor in request.inputs] == ["BYTES", "FP16", "UINT8"]
    assert list(request.raw_input_contents) == [
        b"\x02\0\0\0ab\0\0\0\0",
        b"\x00\x3c\x00\xc0",
        b"\x01\x03\x02\x04",
    ]


def test_bf16_comes_as_float32() -> None:
    response = inference_pb2.ModelInferResponse(raw_output_contents=[b"\x80\x3f\x00\xc0"])
    response.outputs.add(name="x", datatype="BF16", shape=[2])
    assert client.tensors(response)["x"].tolist() == [1.0, -2.0]
    assert client.tensors(response)["x"].dtype == np.float32


def test_typed_contents_of_other_servers_are_read() -> None:
    response = inference_pb2.ModelInferResponse()
    response.outputs.add(name="x", datatype="INT8", shape=[2]).contents.int_contents.extend([-1, 2])
    response.outputs.add(name="y", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"cat")
    read = client.tensors(response)
    assert (read["x"].dtype, read["x"].tolist()) == (np.int8, [-1, 2])
    assert read["y"].tolist() == [b"cat"]


def test_what_the_protocol_does_not_have_is_named() -> None:
    request = inference_pb2.ModelInferRequest()
    for values, sentence in (
        (np.zeros(1, "M8[s]"), "has dtype datetime64"),
        (np.array([b"fine", 3], np.object_), "has an element that is a int; expected bytes or str"),
    ):
        with pytest.raises(TypeError, match=sentence):
            arrays.add_input(request, "x", values)


def test_a_damaged_answer_is_named() -> None:
    with pytest.raises(ValueError, match="end in the middle of an element"):
        arrays.split_bytes(b"\x05\0\0\0ab")
    response = inference_pb2.ModelInferResponse(raw_output_contents=[b""])
    response.outputs.add(name="x", datatype="FP8", shape=[0])
    with pytest.raises(ValueError, match="datatype 'FP8' is none of the protocol's"):
        client.tensors(response)


async def test_all_datatypes_travel_over_streams_and_unary_calls() -> None:
    inputs = {dtype.str: np.arange(6).reshape(2, 3).astype(dtype) for dtype in NUMBERS if dtype.isnative}
    inputs["text"] = np.array([b"\0zero", "ä"], np.object_)
    async with scripted.serving(scripted.echo, scripted.echo_stream) as server:
        for streams in (True, False):
            async with client.Client(server.address, streams=streams) as served:
                outputs = await served.infer_tensors("echo", inputs)
            assert outputs["text"].tolist() == [b"\0zero", "ä".encode()]
            for name in inputs.keys() - {"text"}:
                assert np.array_equal(outputs[name], inputs[name])
                assert outputs[name].dtype == inputs[name].dtype
    assert server.methods == ["ModelStreamInfer", "ModelInfer"]
