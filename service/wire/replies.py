"""Outputs to a response: raw tensors, or the best classes with their labels.

Path: engine → **replies** → client.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protos import inference_pb2
from service import datatypes, errors
from service.models import description
from service.wire import regions, tensors

_Buffer = bytes | memoryview

_ID, _RAW_OUTPUT_CONTENTS, _INFER_RESPONSE = b"\x1a", b"\x32", b"\x12"
"""Tags of ModelInferResponse's fields 3 and 6, and of ModelStreamInferResponse's field 2, length-delimited."""
FINAL_RESPONSE = "triton_final_response"
"""The parameter of each answer in a stream, as in Triton: whether it is the last one to its request. Here it is."""

_FINAL: bytes = inference_pb2.ModelInferResponse(
    parameters={FINAL_RESPONSE: inference_pb2.InferParameter(bool_param=True)}
).SerializeToString()
_SMALL = [bytes([number]) for number in range(0x80)]
_HEADS_MAX = 256
_NOTHING = np.empty(0, np.uint8)
_SCORES_MAX, _CLASSES_MAX = 2**20, 2**16
"""Values that the best are sought among, and the best that are told, in one response: a tenth of a second of the event
loop each. The 1000 classes of ImageNet for 64 images fit."""


class Requested(NamedTuple):
    """One requested output; `classes` > 0 asks for that many best classes instead of the tensor."""

    name: str
    classes: int
    shared: regions.Part | None = None
    """Where in shared memory it is wanted; None: in the response."""


def requested(request: inference_pb2.ModelInferRequest, model: description.Description) -> list[Requested]:
    """Return the outputs that a request asks for; all, if it names none.

    Raises:
        BadRequest: an unknown output, one that is asked for twice, a parameter that is not known, or classes < 1.
    """
    if not request.outputs:
        return [Requested(name, 0) for name in model.outputs]
    require_once([output.name for output in request.outputs], "outputs")
    return [_requested(output, model) for output in request.outputs]


def require_once(names: Sequence[str], field: str) -> None:
    """Refuse what would make an answer any number of times as large as what is asked for.

    Raises:
        BadRequest: a name stands in the field more than once.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise errors.BadRequest(
                f"{field} has {name!r} more than once; name each once, and use it as often as you like",
                errors.path(field, name),
            )
        seen.add(name)


def _requested(
    output: inference_pb2.ModelInferRequest.InferRequestedOutputTensor, model: description.Description
) -> Requested:
    if output.name not in model.outputs:
        raise errors.BadRequest(
            f"model {model.name!r} has no output {output.name!r}{errors.nearest(output.name, model.outputs)}; "
            f"its outputs: {', '.join(model.outputs)}",
            errors.path("outputs", output.name),
        )
    if not output.parameters:
        return Requested(output.name, 0)
    shared = regions.part(output.name, output.parameters)
    classes = 0
    for name, parameter in output.parameters.items():
        if name == "classification":
            classes = parameter.int64_param
            if parameter.WhichOneof("parameter_choice") != "int64_param" or classes < 1:
                raise errors.BadRequest(
                    "parameter 'classification' must be an int64 of at least 1", _path(output, name)
                )
        elif name not in {
            "binary_data",
            regions.REGION,
            regions.OFFSET,
            regions.BYTE_SIZE,
        }:  # the first of the HTTP protocol; some clients send it along
            raise errors.BadRequest(
                f"output {output.name!r} has parameter {name!r}, which is not supported; "
                "known: classification, shared_memory_region",
                _path(output, name),
            )
    if classes and shared:
        raise errors.BadRequest(
            f"output {output.name!r}: best classes do not go into shared memory; ask for one of the two",
            errors.path("outputs", output.name),
        )
    if model.outputs[output.name].datatype is datatypes.STRING and (classes or shared):
        refused = "have no best classes" if classes else "do not go into shared memory"
        raise errors.BadRequest(
            f"output {output.name!r} holds strings, which {refused}; ask for it without parameters",
            errors.path("outputs", output.name),
        )
    return Requested(output.name, classes, shared)


def _path(output: inference_pb2.ModelInferRequest.InferRequestedOutputTensor, parameter: str) -> str:
    return f"{errors.path('outputs', output.name)}.{errors.path('parameters', parameter)}"


_Encode = Callable[[NDArray[np.generic]], tuple[bytes, tuple[int, ...]]]
"""Makes an output's raw contents, and their shape."""


class Replies:
    """Makes the responses to requests that want the same outputs of a model.

    What their responses have in common, all but id and numbers, is serialized once; behind it come
    the other fields, as protobuf allows in any order
    (https://protobuf.dev/programming-guides/encoding). So the numbers are copied once, not four times.

    Mutable state: the heads known; touched only on the event loop.
    """

    def __init__(
        self, model: description.Description, wanted: Sequence[Requested], shared: regions.Regions | None = None
    ) -> None:
        self.names = frozenset(output.name for output in wanted)
        self._model = model
        self._wanted = wanted
        self._ways = [(output, _encoder(output, model)) for output in wanted]
        self._regions = shared
        self._heads: dict[tuple[tuple[int, ...], ...], bytes] = {}

    def response(self, request_id: str, outputs: Mapping[str, NDArray[np.generic]]) -> bytes:
        """Return a ModelInferResponse, serialized: one raw_output_contents entry per output, in the order asked for."""
        return b"".join(self._parts(request_id, outputs))

    def in_stream(self, request_id: str, outputs: Mapping[str, NDArray[np.generic]]) -> bytes:
        """Return the same in a ModelStreamInferResponse, serialized, and said to be the final one."""
        parts = [_FINAL, *self._parts(request_id, outputs)]
        return b"".join((_INFER_RESPONSE, _varint(sum(map(_size, parts))), *parts))

    def _parts(self, request_id: str, outputs: Mapping[str, NDArray[np.generic]]) -> list[_Buffer]:
        values: list[NDArray[Any]] = []
        shapes: list[tuple[int, ...]] = []
        for output, encode in self._ways:
            found = outputs[output.name]
            if encode is not None:
                raw, shape = encode(found)
                values.append(np.frombuffer(raw, np.uint8))
                shapes.append(shape)
            else:
                whole = found if found.flags.c_contiguous else np.ascontiguousarray(found)
                values.append(whole if output.shared is None else self._written(whole, output.name, output.shared))
                shapes.append(found.shape)
        key = tuple(shapes)
        parts: list[_Buffer] = [self._heads.get(key) or self._head(key)]
        if request_id:
            encoded = request_id.encode()
            parts += (_ID, _varint(len(encoded)), encoded)
        for array in values:
            parts += (_RAW_OUTPUT_CONTENTS, _varint(array.nbytes), array.data)
        return parts

    def _written(self, values: NDArray[Any], name: str, shared: regions.Part) -> NDArray[Any]:
        """Write an output to shared memory, and return what is left for the response: nothing.

        Raises:
            BadRequest: it has no room there.
        """
        assert self._regions is not None, "only a server with regions has requests that name one"
        if values.nbytes > shared.byte_size:
            raise errors.BadRequest(
                f"output {name!r} has {values.nbytes} bytes; {shared.byte_size} of shared memory region "
                f"{shared.region!r} were offered for it",
                f"{errors.path('outputs', name)}.{errors.path('parameters', regions.BYTE_SIZE)}",
            )
        self._regions.view(shared)[: values.nbytes] = values.tobytes()
        return _NOTHING

    def _head(self, shapes: tuple[tuple[int, ...], ...]) -> bytes:
        head = inference_pb2.ModelInferResponse(model_name=self._model.name, model_version=self._model.version)
        for output, shape in zip(self._wanted, shapes, strict=True):
            datatype = "BYTES" if output.classes else self._model.outputs[output.name].datatype.wire
            told = head.outputs.add(name=output.name, datatype=datatype, shape=shape)
            if output.shared is not None:
                count = math.prod(shape) * self._model.outputs[output.name].datatype.numpy.itemsize
                told.parameters[regions.REGION].string_param = output.shared.region
                told.parameters[regions.OFFSET].int64_param = output.shared.offset
                told.parameters[regions.BYTE_SIZE].int64_param = count
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


def _encoder(output: Requested, model: description.Description) -> _Encode | None:
    """How an output is made from its array; None: the array's memory is what is sent."""
    if output.classes:
        return functools.partial(_classify, output, model)
    return _text if model.outputs[output.name].datatype is datatypes.STRING else None


def _text(values: NDArray[np.generic]) -> tuple[bytes, tuple[int, ...]]:
    return tensors.join_strings(values), values.shape


def _classify(
    output: Requested, model: description.Description, values: NDArray[np.generic]
) -> tuple[bytes, tuple[int, ...]]:
    """The best classes as "value:index:label", best first; equal values in order of index."""
    scores = datatypes.floats(values) if model.outputs[output.name].datatype is datatypes.BF16 else values
    rows = scores.reshape(len(values), math.prod(values.shape[1:])) if model.is_batched else scores.reshape(1, -1)
    count = min(output.classes, rows.shape[1])
    if rows.size > _SCORES_MAX or len(rows) * count > _CLASSES_MAX:
        raise errors.BadRequest(
            f"the best {count} of each of {len(rows)} rows of {rows.shape[1]} values are too many to be told as text; "
            f"ask for at most {_CLASSES_MAX} in all, of at most {_SCORES_MAX} values, or for the tensor",
            f"{errors.path('outputs', output.name)}.{errors.path('parameters', 'classification')}",
        )
    labels = model.labels.get(output.name, [])
    best = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :count]
    elements = [
        f"{float(row[index]):.6f}:{index}{f':{labels[index]}' if index < len(labels) else ''}".encode()
        for row, indices in zip(rows, best, strict=True)
        for index in indices.tolist()
    ]
    return datatypes.join_bytes(elements), (len(rows), count) if model.is_batched else (count,)
