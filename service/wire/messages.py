"""A ModelInferRequest as a header, which is parsed once, and raw contents, which are not copied.

Path: bytes from gRPC → **messages** → inference.

A client sends the same header again and again: model, inputs, outputs; only id, pixels and what is left of
its deadline differ. So the bytes of a header are looked up among those seen before, with all that was found out
about them, and the raw contents stay where gRPC put them. The fields are told apart by their tags
(https://protobuf.dev/programming-guides/encoding): all of them are length-delimited. What looks
otherwise is left to protobuf, which is the judge of what a message is.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from google.protobuf import message as protobuf_message

from protos import inference_pb2
from service import errors

_ID, _PARAMETERS, _RAW_INPUT_CONTENTS = 0x1A, 0x22, 0x3A
_NOT_IN_HEADER = frozenset({_ID, _PARAMETERS, _RAW_INPUT_CONTENTS})
_TAGS = frozenset(range(0x0A, 0x3A + 1, 8))
"""Of the fields 1 to 7, length-delimited."""
_ID_FIELD = 3
_FIELDS_MAX, _VARINT_BYTES_MAX = 1024, 10
"""What is read here, in Python, is no more than honest clients send: else one message of many small fields, or one
endless number, would hold up all the others. Protobuf reads the rest."""
_FIELDS = range(_FIELDS_MAX)
_VARINT, _EIGHT_BYTES, _DELIMITED, _FOUR_BYTES = 0, 1, 2, 5
"""How a field's value is written."""
_HEADERS_MAX, _HEADER_BYTES_MAX = 256, 2048
"""So many headers are remembered, and none that is larger: those hold typed contents, never twice the same."""


class Header:
    """Everything in a request but its id, its parameters and its raw contents.

    Mutable state: `known`, what its first request has found out; touched only on the event loop.
    """

    __slots__ = ("known", "message", "model", "raws", "version")

    def __init__(self, message: inference_pb2.ModelInferRequest, raws: int) -> None:
        self.message = message
        self.model: str = message.model_name
        self.version: str = message.model_version
        self.raws = raws
        """How many raw contents came with it."""
        self.known: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One request: its header, its id, the bytes of its raw contents, and a message with its parameters."""

    header: Header
    id: str
    raws: Sequence[memoryview]
    parameters: inference_pb2.ModelInferRequest | None
    """None: it has none."""


class Unreadable(NamedTuple):
    """What is wrong with bytes that should have been a request, and the id in them, for the answer."""

    error: errors.FoveaError
    id: str


Message = Request | Unreadable


class Parser:
    """Parses request messages up to a size in bytes. Never raises: gRPC would answer for us.

    Mutable state: the headers seen; touched only on the event loop.
    """

    def __init__(self, message_bytes_max: int) -> None:
        self._message_bytes_max = message_bytes_max
        self._headers: dict[tuple[bytes, int], Header] = {}

    def __call__(self, message: bytes) -> Message:
        """Return the request, or the error to answer with."""
        if len(message) > self._message_bytes_max:
            return Unreadable(errors.MessageTooLarge(len(message), self._message_bytes_max), id_of(message))
        try:
            header, request_id, raws, parameters = split(message)
            said = inference_pb2.ModelInferRequest.FromString(parameters) if parameters else None
            return Request(self._header(header, len(raws)), request_id, raws, said)
        except (ValueError, IndexError, protobuf_message.DecodeError):
            return _whole(message)

    def _header(self, raw: bytes, raws: int) -> Header:
        header = self._headers.get((raw, raws))
        if header is None:
            header = Header(inference_pb2.ModelInferRequest.FromString(raw), raws)
            if len(raw) <= _HEADER_BYTES_MAX:
                if len(self._headers) >= _HEADERS_MAX:
                    self._headers.clear()
                self._headers[raw, raws] = header
        return header


def split(message: bytes) -> tuple[bytes, str, list[memoryview], bytes]:
    """Return a message without id, raw contents and parameters; its id, views on its raw contents, its parameters.

    Raises:
        ValueError, IndexError: it is not made of the fields that a request has.
    """
    whole = memoryview(message)
    end, position, header_from = len(message), 0, 0
    header: list[bytes] = []
    parameters: list[bytes] = []
    request_id = b""
    raws: list[memoryview] = []
    for _ in _FIELDS:
        if position >= end:
            break
        begins, tag, size = position, message[position], message[position + 1]
        position += 2
        if size >= 0x80:
            size, position = _varint(message, position - 1)
        ends = position + size
        if ends > end or tag not in _TAGS:
            raise ValueError(f"field {tag} of {size} bytes at {begins} of {end}")
        if tag in _NOT_IN_HEADER:
            if header_from < begins:
                header.append(message[header_from:begins])
            header_from = ends
            if tag == _ID:
                request_id = message[position:ends]
            elif tag == _PARAMETERS:
                parameters.append(message[begins:ends])
            else:
                raws.append(whole[position:ends])
        position = ends
    if position < end:
        raise ValueError(f"more than {_FIELDS_MAX} fields")
    if header_from < end:
        header.append(message[header_from:])
    return b"".join(header), request_id.decode(), raws, b"".join(parameters)


def id_of(message: bytes, field: int = _ID_FIELD) -> str:
    """Return the id in a message that is too large or cannot be parsed, so that the answer says whose it is.

    Empty where the message's fields cannot be told apart up to its end: of a field that comes twice the last one
    counts, so an id before the damage may be the wrong one.
    """
    position, end, found = 0, len(message), b""
    try:
        for _ in range(_FIELDS_MAX):
            if position == end:
                return found.decode()
            tag, position = _varint(message, position)
            kind = tag & 7
            size = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(kind, 0)
            if kind in {_VARINT, _DELIMITED}:
                number, position = _varint(message, position)
                size = number if kind == _DELIMITED else 0
            elif not size:
                return ""
            if kind == _DELIMITED and tag >> 3 == field:
                found = message[position : position + size]
            position += size
    except (ValueError, IndexError):  # UnicodeDecodeError is a ValueError
        pass
    return ""


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, least first; return it and where it ends."""
    number = 0
    for shift in range(0, 7 * _VARINT_BYTES_MAX, 7):
        byte = message[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise ValueError(f"a number of more than {_VARINT_BYTES_MAX} bytes")


def _whole(message: bytes) -> Message:
    """As protobuf sees it."""
    try:
        parsed = inference_pb2.ModelInferRequest.FromString(message)
    except protobuf_message.DecodeError:
        error = errors.BadRequest(
            f"{len(message)} bytes that are no inference.ModelInferRequest; "
            "send that message, as protos/inference.proto has it"
        )
        return Unreadable(error, id_of(message))
    raws = [memoryview(raw) for raw in parsed.raw_input_contents]
    return Request(Header(parsed, len(raws)), parsed.id, raws, parsed)
