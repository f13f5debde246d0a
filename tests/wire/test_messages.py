"""Requests taken apart and responses put together by hand are what protobuf says they are."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import inference_pb2, model_config_pb2
from service import datatypes, errors
from service.models import description
from service.wire import messages, replies

Request, Response = inference_pb2.ModelInferRequest, inference_pb2.ModelInferResponse
TEXT = st.text(max_size=200)


@st.composite
def requests(draw: st.DrawFn) -> inference_pb2.ModelInferRequest:
    request = Request(model_name=draw(TEXT), model_version=draw(TEXT), id=draw(TEXT))
    for name in draw(st.lists(TEXT, max_size=3)):
        request.parameters[name].int64_param = draw(st.integers(-(2**63), 2**63 - 1))
    for name in draw(st.lists(TEXT, max_size=3)):
        request.inputs.add(name=name, datatype="UINT8", shape=draw(st.lists(st.integers(0, 2**40), max_size=4)))
        request.outputs.add(name=name)
    request.raw_input_contents.extend(draw(st.lists(st.binary(max_size=20_000), max_size=3)))
    return request


@given(requests())
def test_header_id_and_raw_contents_are_the_request(request: inference_pb2.ModelInferRequest) -> None:
    found = messages.Parser(2**20)(request.SerializeToString())
    assert isinstance(found, messages.Request)
    together = Request()
    together.CopyFrom(found.header.message)
    if found.parameters is not None:
        together.MergeFrom(found.parameters)
    together.id = found.id
    together.raw_input_contents.extend(bytes(raw) for raw in found.raws)
    assert together == request
    assert (found.header.model, found.header.version) == (request.model_name, request.model_version)


@given(st.one_of(st.binary(max_size=300), requests().map(lambda request: request.SerializeToString())), st.data())
def test_any_bytes_are_what_protobuf_says_they_are(raw: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(raw)))
    raw = raw[:cut] + data.draw(st.binary(max_size=3)) + raw[cut:]
    found = messages.Parser(2**20)(raw)
    try:
        wanted = Request.FromString(raw)
    except Exception:
        assert isinstance(found, messages.Unreadable)
        assert isinstance(found.error, errors.BadRequest)
    else:
        assert isinstance(found, messages.Request)
        assert found.id == wanted.id
        assert [bytes(one) for one in found.raws] == list(wanted.raw_input_contents)
        assert found.header.model == wanted.model_name


def numbered(number: int) -> bytes:
    request = Request(model_name="m", id=str(number), raw_input_contents=[b"x" * number])
    request.parameters["timeout"].int64_param = number
    return request.SerializeToString()


def test_a_header_is_parsed_once() -> None:
    """Whatever the id, the raw contents, and what is left of the deadline."""
    parser = messages.Parser(2**20)
    found = [parser(numbered(number)) for number in range(3)]
    assert len({id(one.header) for one in found if isinstance(one, messages.Request)}) == 1


def test_one_with_another_number_of_raw_contents_is_another_header() -> None:
    parser = messages.Parser(2**20)
    one, two = (parser(Request(model_name="m", raw_input_contents=raws).SerializeToString()) for raws in ([b"x"], []))
    assert isinstance(one, messages.Request)
    assert isinstance(two, messages.Request)
    assert one.header is not two.header


def test_so_many_headers_that_they_are_forgotten_are_still_answered() -> None:
    parser = messages.Parser(2**20)
    for number in range(1000):
        found = parser(Request(model_name=f"m{number}").SerializeToString())
        assert isinstance(found, messages.Request)
        assert found.header.model == f"m{number}"


@given(requests(), TEXT)
def test_the_id_of_a_message_that_is_too_large_is_known(request: inference_pb2.ModelInferRequest, last: str) -> None:
    """The last one, as protobuf has it: clients append an id of their own."""
    raw = request.SerializeToString()
    found = messages.Parser(-1)(raw)
    assert isinstance(found, messages.Unreadable)
    assert isinstance(found.error, errors.MessageTooLarge)
    assert found.id == request.id
    assert messages.id_of(raw + Request(id=last).SerializeToString()) == (last or request.id)


UNREADABLE = {
    "an input that is none": (Request(id="a").SerializeToString() + b"\x2a\x01\xff", "a"),
    "an id before the damage": (Request(id="a").SerializeToString() + b"\x2a\x05\xff", ""),
    "an id that is no text": (b"\x1a\x01\xff", ""),
    "the end of a group": (Request(id="a").SerializeToString() + b"\x0c", ""),
    "a number cut off": (Request(id="a").SerializeToString() + b"\x80", ""),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_an_unreadable_message_has_its_id_where_that_is_certain(case: str) -> None:
    raw, request_id = UNREADABLE[case]
    found = messages.Parser(2**20)(raw)
    assert isinstance(found, messages.Unreadable)
    assert isinstance(found.error, errors.BadRequest)
    assert found.id == request_id


def test_fields_of_other_kinds_are_passed_over_on_the_way_to_the_id() -> None:
    others = b"\x48\x96\x01" + b"\x51" + bytes(8) + b"\x5d" + bytes(4) + b"\xa2\x06\x01x"
    assert messages.id_of(others + Request(id="a").SerializeToString() + others) == "a"


HOSTILE = {
    "an endless number": b"\x0a" + b"\xff" * 2**19,
    "an endless tag": b"\xff" * 2**19,
    "fields without end": b"\x0a\x00" * 2**20,
    "parameters without end": Request(parameters={"a" * 2**14: {"int64_param": 1}}).SerializeToString() * 2**10,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_no_message_holds_up_the_others(case: str) -> None:
    """Such bytes once took minutes on the event loop: their number of operations grew with the square of their size."""
    began_s = time.monotonic()
    messages.Parser(2**26)(HOSTILE[case])
    messages.Parser(0)(HOSTILE[case])
    assert time.monotonic() - began_s < 30


def described(outputs: dict[str, datatypes.Datatype]) -> description.Description:
    specs = {name: datatypes.TensorSpec(name, datatype, (-1, -1)) for name, datatype in outputs.items()}
    config = model_config_pb2.ModelConfig(name="m", max_batch_size=8)
    return description.Description("m", "7", config, {}, specs, {}, None, {})


@given(
    st.text(max_size=300),
    st.lists(
        st.tuples(st.sampled_from(datatypes.NUMPY), st.integers(0, 70), st.integers(0, 70)), min_size=1, max_size=3
    ),
)
def test_a_response_is_what_protobuf_would_have_made(
    request_id: str, made: list[tuple[datatypes.Datatype, int, int]]
) -> None:
    model = described({f"o{number}": datatype for number, (datatype, _, _) in enumerate(made)})
    wanted = Response(model_name="m", model_version="7", id=request_id)
    outputs = {}
    for number, (datatype, rows, columns) in enumerate(made):
        values = outputs[f"o{number}"] = np.arange(rows * columns).reshape(columns, rows).T.astype(datatype.numpy)
        wanted.outputs.add(name=f"o{number}", datatype=datatype.wire, shape=(rows, columns))
        wanted.raw_output_contents.append(values.tobytes())
    made_of = replies.Replies(model, [replies.Requested(name, 0) for name in outputs])
    for _ in range(2):  # the second time the head is known
        assert Response.FromString(made_of.response(request_id, outputs)) == wanted
        in_stream = inference_pb2.ModelStreamInferResponse.FromString(made_of.in_stream(request_id, outputs))
        final = Response()
        final.CopyFrom(wanted)
        final.parameters["triton_final_response"].bool_param = True
        assert in_stream == inference_pb2.ModelStreamInferResponse(infer_response=final)


@pytest.mark.parametrize("classes", [1, 3])
def test_the_best_classes_are_one_raw_content_too(classes: int) -> None:
    model = described({"o": datatypes.BY_WIRE["FP32"]})
    scores = np.array([[0.5, 2.0, 1.0], [3.0, 0.0, 1.0]], np.float32)
    raw = replies.Replies(model, [replies.Requested("o", classes)]).response("i", {"o": scores})
    response = Response.FromString(raw)
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == ("BYTES", [2, classes])
    assert response.raw_output_contents[0][4:].startswith(b"2.000000:1")
