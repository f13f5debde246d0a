"""The element types, under the three names that they have: on the wire, in NumPy, in ONNX Runtime.

NumPy has no bfloat16: such tensors are uint16 arrays of their bit patterns here. Strings, which the wire
calls BYTES, are object arrays of str: ONNX Runtime takes nothing else for text.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, slots=True)
class Datatype:
    """One element type: `wire` as in requests, `config` as in config.pbtxt, `ort` as ONNX Runtime says."""

    wire: str
    config: str
    ort: str
    numpy: np.dtype[np.generic]


NUMPY = tuple(
    Datatype(wire, f"TYPE_{wire}", f"tensor({ort})", np.dtype(numpy))
    for wire, ort, numpy in (
        ("BOOL", "bool", np.bool_),
        ("UINT8", "uint8", np.uint8),
        ("UINT16", "uint16", np.uint16),
        ("UINT32", "uint32", np.uint32),
        ("UINT64", "uint64", np.uint64),
        ("INT8", "int8", np.int8),
        ("INT16", "int16", np.int16),
        ("INT32", "int32", np.int32),
        ("INT64", "int64", np.int64),
        ("FP16", "float16", np.float16),
        ("FP32", "float", np.float32),
        ("FP64", "double", np.float64),
    )
)
"""Those that have a NumPy dtype of their own."""
BF16 = Datatype("BF16", "TYPE_BF16", "tensor(bfloat16)", np.dtype(np.uint16))
STRING = Datatype("BYTES", "TYPE_STRING", "tensor(string)", np.dtype(np.object_))

ALL = (*NUMPY, BF16, STRING)
BY_ORT = {datatype.ort: datatype for datatype in ALL}
BY_WIRE = {datatype.wire: datatype for datatype in ALL}
UINT8 = BY_WIRE["UINT8"]
CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
"""Datatype on the wire → the field of InferTensorContents that carries it. FP16 and BF16 travel only raw."""


@dataclasses.dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, element type and shape of one model input or output; -1 where the request chooses."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    axis: str = ""
    """What the graph calls the free first dimension, if it names it: equal names are equal sizes."""
    is_optional: bool = False
    """Whether the graph has values for it, which hold unless a request brings others."""


def join_bytes(elements: Sequence[bytes]) -> bytes:
    """Return elements as BYTES travel raw: each behind its length, 4 bytes little-endian."""
    return b"".join(part for element in elements for part in (len(element).to_bytes(4, "little"), element))


def zeros(shape: tuple[int, ...], datatype: Datatype) -> NDArray[np.generic]:
    """Return zeros; empty strings, where the elements are strings."""
    if datatype is STRING:
        return np.full(shape, "", np.object_)
    return np.zeros(shape, datatype.numpy)


def floats(patterns: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the values of BF16 bit patterns, uint16: the upper halves of float32's, so nothing is lost."""
    return (patterns.astype(np.uint32) << np.uint32(16)).view(np.float32)


def patterns(values: NDArray[np.generic]) -> NDArray[np.uint16]:
    """Return finite values as BF16 bit patterns, uint16, cut off towards zero."""
    return (values.astype(np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16)
