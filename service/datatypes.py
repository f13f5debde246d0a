"""The element types, under the three names that they have: on the wire, in NumPy, in ONNX Runtime.

Types without a NumPy dtype (BF16) or a fixed size (strings) are not served yet: loading says so.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, slots=True)
class Datatype:
    """One element type: `wire` as in requests, `config` as in config.pbtxt, `ort` as ONNX Runtime says."""

    wire: str
    config: str
    ort: str
    numpy: np.dtype[np.generic]


ALL = tuple(
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
BY_ORT = {datatype.ort: datatype for datatype in ALL}
BY_WIRE = {datatype.wire: datatype for datatype in ALL}
UINT8 = BY_WIRE["UINT8"]


@dataclasses.dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, element type and shape of one model input or output; -1 where the request chooses."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
