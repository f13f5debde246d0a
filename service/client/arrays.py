"""NumPy arrays to tensors of a message and back.

Path: caller's arrays → **arrays** → messages → **arrays** → caller's arrays.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos import inference_pb2
from service import datatypes

Response = inference_pb2.ModelInferResponse

_WIRE_BY_NUMPY = {datatype.numpy: datatype.wire for datatype in datatypes.NUMPY}
_LENGTH_BYTES = 4


def add_input(request: inference_pb2.ModelInferRequest, name: str, values: NDArray[Any]) -> None:
    """Append an input to a request: numbers as they are, strings (dtypes object, S, U) as BYTES.

    Raises:
        TypeError: not an array, or of elements that the protocol does not have.
    """
    if not isinstance(values, np.ndarray):
        kind = type(values).__name__
        raise TypeError(f"input {name!r} is a {kind}; expected a NumPy array; make one with numpy.asarray")
    datatype, raw = _wire(name, values)
    request.inputs.add(name=name, datatype=datatype, shape=values.shape)
    request.raw_input_contents.append(raw)


def _wire(name: str, values: NDArray[Any]) -> tuple[str, bytes]:
    if values.dtype.kind in "OSU":
        return "BYTES", datatypes.join_bytes([_as_bytes(name, element) for element in values.ravel().tolist()])
    little_endian = values.dtype.newbyteorder("<")
    datatype = _WIRE_BY_NUMPY.get(np.dtype(values.dtype.newbyteorder("=")))
    if datatype is None:
        known = ", ".join(str(numpy) for numpy in _WIRE_BY_NUMPY)
        raise TypeError(
            f"input {name!r} has dtype {values.dtype}; the protocol has {known}, and strings as object, S or U; "
            "convert it with astype"
        )
    return datatype, values.astype(little_endian, copy=False).tobytes()


def _as_bytes(name: str, element: object) -> bytes:
    if isinstance(element, str):
        return element.encode()
    if not isinstance(element, bytes):
        kind = type(element).__name__
        raise TypeError(f"input {name!r} has an element that is a {kind}; expected bytes or str in an object array")
    return element


def split_bytes(raw: bytes) -> list[bytes]:
    """Return the elements that `datatypes.join_bytes` joined.

    Raises:
        ValueError: an element ends behind the end.
    """
    elements, position = [], 0
    while position < len(raw):
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(raw[position:start], "little")
        elements.append(raw[start:position])
    if position != len(raw):
        raise ValueError(f"BYTES of {len(raw)} bytes end in the middle of an element; the server's answer is damaged")
    return elements


def tensors(response: Response) -> dict[str, NDArray[Any]]:
    """Return the outputs of an answer, by name. Numbers are read-only views on the message.

    BYTES come as object arrays of bytes, BF16 as float32, which holds each of its values.

    Raises:
        ValueError: an answer that is not as the protocol has it.
    """
    raws = response.raw_output_contents
    if not raws:
        return {output.name: _from_contents(output) for output in response.outputs}
    return {
        output.name: _from_raw(raw, output.datatype).reshape(tuple(output.shape))
        for output, raw in zip(response.outputs, raws, strict=True)
    }


def _from_raw(raw: bytes, datatype: str) -> NDArray[Any]:
    if datatype == "BYTES":
        return _objects(split_bytes(raw))
    if datatype == datatypes.BF16.wire:
        return datatypes.floats(np.frombuffer(raw, "<u2"))
    return np.frombuffer(raw, _dtype(datatype).newbyteorder("<"))


def _from_contents(output: Response.InferOutputTensor) -> NDArray[Any]:
    field = datatypes.CONTENTS.get(output.datatype)
    if field is None:
        raise ValueError(
            f"output {output.name!r} is {output.datatype} without raw contents; the protocol has it raw only"
        )
    values = getattr(output.contents, field)
    flat = _objects(values) if output.datatype == "BYTES" else np.array(values, _dtype(output.datatype))
    return flat.reshape(tuple(output.shape))


def _dtype(datatype: str) -> np.dtype[Any]:
    known = datatypes.BY_WIRE.get(datatype)
    if known is None:
        raise ValueError(f"datatype {datatype!r} is none of the protocol's: {', '.join(datatypes.BY_WIRE)}")
    return known.numpy


def _objects(elements: Sequence[bytes]) -> NDArray[Any]:
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array
