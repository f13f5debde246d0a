"""Outputs to a response: raw tensors, or the best classes with their labels.

Path: engine → **replies** → client.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protos import inference_pb2
from service import errors
from service.models import description
from service.wire import tensors

_Buffer = bytes | memoryview

_ID, _RAW_OUTPUT_CONTENTS, _INFER_RESPONSE = b"\x1a", b"\x32", b"\x12"
"""Tags of ModelInferResponse's fields 3 and 6, and of ModelStreamInferResponse's field 2, length-delimited."""
_SMALL = [bytes([number]) for number in range(0x80)]
_HEADS_MAX = 256


class Requested(NamedTuple):
    """One requested output; `classes` > 0 asks for that many best classes instead of the tensor."""

    name: str
    classes: int


def requested(request: inference_pb2.ModelInferRequest, model: description.Description) -> list[Requested]:
    """Return the outputs that a request asks for; all, if it names none.

    Raises:
        BadRequest: an unknown output, a parameter that is not known, or classes < 1.
    """
    if not request.outputs:
        return [Requested(name, 0) for name in model.outputs]
    return [_requested(output, model) for output in request.outputs]


def _requested(
    output: inference_pb2.ModelInferRequest.InferRequestedOutputTensor, model: description.Description
) -> Requested:
    if output.name not in model.outputs:
        raise errors.BadRequest(
            f"model {model.name!r} has no output {output.name!r}{errors.nearest(output.name, model.outputs)}; "
            f"its outputs: {', '.join(model.outputs)}"
        )
    if not output.parameters:
        return Requested(output.name, 0)
    classes = 0
    for name, parameter in output.parameters.items():
        if name == "classification":
            classes = parameter.int64_param
            if parameter.WhichOneof("parameter_choice") != "int64_param" or classes < 1:
                raise errors.BadRequest("parameter 'classification' must be an int64 of at least 1")
        elif name not in {"binary_data"}:  # of the HTTP protocol; some clients send it along
            raise errors.BadRequest(
                f"output {output.name!r} has parameter {name!r}, which is not supported; known: classification"
            )
    return Requested(output.name, classes)


class Replies:
    """Makes the responses to requests that want the same outputs of a model.

    What their responses have in common, all but id and numbers, is serialized once; behind it come
    the other fields, as protobuf allows in any order
    (https://protobuf.dev/programming-guides/encoding). So the numbers are copied once, not four times.

    Mutable state: the heads known; touched only on the event loop.
    """

    def __init__(self, model: description.Description, wanted: Sequence[Requested]) -> None:
        self.names = frozenset(output.name for output in wanted)
        self._model = model
        self._wanted = wanted
        self._heads: dict[tuple[tuple[int, ...], ...], bytes] = {}

    def response(self, request_id: str, outputs: Mapping[str, NDArray[np.generic]]) -> bytes:
        """Return a ModelInferResponse, serialized: one raw_output_contents entry per output, in the order asked for."""
        return b"".join(self._parts(request_id, outputs))

    def in_stream(self, request_id: str, outputs: Mapping[str, NDArray[np.generic]]) -> bytes:
        """Return the same in a ModelStreamInferResponse, serialized."""
        parts = self._parts(request_id, outputs)
        return b"".join((_INFER_RESPONSE, _varint(sum(map(_size, parts))), *parts))

    def _parts(self, request_id: str, outputs: Mapping[str, NDArray[np.generic]]) -> list[_Buffer]:
        values: list[NDArray[Any]] = []
        shapes: list[tuple[int, ...]] = []
        for output in self._wanted:
            found = outputs[output.name]
            if output.classes:
                elements, shape = _classify(found, output, self._model)
                values.append(np.frombuffer(tensors.join_bytes(elements), np.uint8))
                shapes.append(shape)
            else:
                values.append(found if found.flags.c_contiguous else np.ascontiguousarray(found))
                shapes.append(found.shape)
        key = tuple(shapes)
        parts: list[_Buffer] = [self._heads.get(key) or self._head(key)]
        if request_id:
            encoded = request_id.encode()
            parts += (_ID, _varint(len(encoded)), encoded)
        for array in values:
            parts += (_RAW_OUTPUT_CONTENTS, _varint(array.nbytes), array.data)
        return parts

    def _head(self, shapes: tuple[tuple[int, ...], ...]) -> bytes:
        head = inference_pb2.ModelInferResponse(model_name=self._model.name, model_version=self._model.version)
        for output, shape in zip(self._wanted, shapes, strict=True):
            datatype = "BYTES" if output.classes else self._model.outputs[output.name].datatype.wire
            head.outputs.add(name=output.name, datatype=datatype, shape=shape)
        serialized: bytes = head.SerializeToString()
        if len(self._heads) >= _HEADS_MAX:
            self._heads.clear()
        self._heads[shapes] = serialized
        return serialized


def _size(part: _Buffer) -> int:
    return part.nbytes if isinstance(part, memoryview) else len(part)


def _varint(number: int) -> bytes:
    """A number in protobuf's form: seven bits a byte, least first."""
    if number < 0x80:
        return _SMALL[number]
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _classify(
    values: NDArray[np.generic], output: Requested, model: description.Description
) -> tuple[list[bytes], tuple[int, ...]]:
    """The best classes as "value:index:label", best first; equal values in order of index."""
    rows = values.reshape(len(values), -1) if model.is_batched else values.reshape(1, -1)
    count = min(output.classes, rows.shape[1])
    labels = model.labels.get(output.name, [])
    best = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :count]
    elements = [
        f"{float(row[index]):.6f}:{index}{f':{labels[index]}' if index < len(labels) else ''}".encode()
        for row, indices in zip(rows, best, strict=True)
        for index in indices.tolist()
    ]
    return elements, (len(rows), count) if model.is_batched else (count,)
