"""Tensors of a request, checked against the model: views on the message's bytes, or encoded images.

Path: ModelInferRequest → **tensors** → images and engine.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protos import inference_pb2
from service import datatypes, errors
from service.models import description

Contents = inference_pb2.InferTensorContents

# Datatype on the wire → the field of InferTensorContents that carries it. FP16 travels only raw.
_CONTENTS_FIELD = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


@dataclasses.dataclass(slots=True)
class Inputs:
    """A request's inputs: `tensors` ready to run, and `images` that have to be decoded first."""

    samples: int
    tensors: dict[str, NDArray[np.generic]]
    images: list[bytes]


def read(request: inference_pb2.ModelInferRequest, model: description.Description) -> Inputs:
    """Check the inputs of a request and return them.

    Raises:
        BadRequest: inputs missing, unknown or given twice; raw and typed contents mixed; rows that differ.
        BadTensor: wrong datatype, shape or number of bytes.
    """
    raws = request.raw_input_contents
    if raws and len(raws) != len(request.inputs):
        raise errors.BadRequest(
            f"{len(raws)} raw_input_contents for {len(request.inputs)} inputs; send one for each, in their order"
        )
    _check_names(request, model)
    inputs = Inputs(0, {}, [])
    for position, tensor in enumerate(request.inputs):
        raw = raws[position] if raws else None
        if raw is not None and tensor.HasField("contents"):
            raise errors.BadRequest(
                f"input {tensor.name!r} has typed contents beside raw_input_contents; send one of the two"
            )
        samples = _read_input(tensor, raw, model, inputs)
        if position and samples != inputs.samples:
            raise errors.BadRequest(
                f"input {tensor.name!r} has {samples} rows, the inputs before it {inputs.samples}; send the same number"
            )
        inputs.samples = samples
    return inputs


def _check_names(request: inference_pb2.ModelInferRequest, model: description.Description) -> None:
    names = [tensor.name for tensor in request.inputs]
    if len(names) == len(model.inputs) and model.inputs.keys() == set(names):
        return
    for name in names:
        if name not in model.inputs:
            raise errors.BadRequest(
                f"model {model.name!r} has no input {name!r}{errors.nearest(name, model.inputs)}; "
                f"its inputs: {', '.join(model.inputs)}"
            )
    if len(set(names)) != len(names):
        raise errors.BadRequest(f"an input is given twice: {', '.join(names)}; give each once")
    missing = [name for name in model.inputs if name not in names]
    if missing:
        raise errors.BadRequest(f"model {model.name!r} needs {', '.join(missing)} too; the request has no such input")


def _read_input(
    tensor: inference_pb2.ModelInferRequest.InferInputTensor,
    raw: bytes | None,
    model: description.Description,
    inputs: Inputs,
) -> int:
    """Read one input into `inputs` and return its rows."""
    spec = model.inputs[tensor.name]
    shape = tuple(tensor.shape)
    is_image = tensor.datatype == "BYTES" and model.image is not None and model.image.input == tensor.name
    if not is_image and tensor.datatype != spec.datatype.wire:
        encoded = ", or BYTES with encoded images" if model.image and model.image.input == tensor.name else ""
        raise errors.BadTensor(model.name, tensor.name, f"datatype {tensor.datatype!r}", spec.datatype.wire + encoded)
    _check_shape(tensor.name, shape, spec, model, is_image)
    if is_image:
        inputs.images = _image_files(tensor, raw, shape[0], model)
    elif raw is not None:
        inputs.tensors[tensor.name] = _from_raw(raw, shape, spec, model)
    else:
        inputs.tensors[tensor.name] = _from_contents(tensor, shape, spec, model)
    return shape[0] if model.is_batched else 1


def _check_shape(
    name: str,
    shape: tuple[int, ...],
    spec: datatypes.TensorSpec,
    model: description.Description,
    is_image: bool,
) -> None:
    if shape[1:] == spec.shape[1:] and min(shape, default=1) > 0 and spec.shape[:1] == (-1,) and not is_image:
        return  # the usual case, told apart cheaply
    if is_image:
        if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
            raise errors.BadTensor(model.name, name, f"shape {list(shape)} for encoded images", "[N] or [N, 1]")
    elif len(shape) != len(spec.shape) or any(w not in {-1, g} for g, w in zip(shape, spec.shape, strict=True)):
        wanted = f"shape {list(spec.shape)} (-1: any)" + (" or encoded images as BYTES [N]" if model.image else "")
        raise errors.BadTensor(model.name, name, f"shape {list(shape)}", wanted)
    is_image_input = model.image is not None and model.image.input == name
    if any(size < 0 for size in shape) or (is_image_input and 0 in shape) or (model.is_batched and shape[0] == 0):
        raise errors.BadTensor(model.name, name, f"shape {list(shape)}", "at least one row")


def _from_raw(
    raw: bytes, shape: tuple[int, ...], spec: datatypes.TensorSpec, model: description.Description
) -> NDArray[np.generic]:
    """A view on the message's bytes, no copy."""
    wanted_bytes = math.prod(shape) * spec.datatype.numpy.itemsize
    if len(raw) != wanted_bytes:
        raise errors.BadTensor(
            model.name,
            spec.name,
            f"{len(raw)} raw bytes",
            f"{wanted_bytes} for {spec.datatype.wire} {list(shape)}",
        )
    return np.frombuffer(raw, spec.datatype.numpy).reshape(shape)


def _from_contents(
    tensor: inference_pb2.ModelInferRequest.InferInputTensor,
    shape: tuple[int, ...],
    spec: datatypes.TensorSpec,
    model: description.Description,
) -> NDArray[np.generic]:
    values = _typed(tensor, spec.datatype.wire, model)
    if len(values) != math.prod(shape):
        raise errors.BadTensor(model.name, spec.name, f"{len(values)} values", f"{math.prod(shape)} for {list(shape)}")
    try:
        return np.array(values, spec.datatype.numpy).reshape(shape)
    except OverflowError as error:
        raise errors.BadTensor(
            model.name, spec.name, f"a value out of range ({error})", f"values of {spec.datatype.wire}"
        ) from error


def _typed(
    tensor: inference_pb2.ModelInferRequest.InferInputTensor, datatype: str, model: description.Description
) -> Sequence[object]:
    field = _CONTENTS_FIELD.get(datatype)
    if field is None or not tensor.HasField("contents"):
        raise errors.BadTensor(
            model.name,
            tensor.name,
            "no data",
            f"raw_input_contents{f' or contents.{field}' if field else ''}",
        )
    values: Sequence[object] = getattr(tensor.contents, field)
    return values


def _image_files(
    tensor: inference_pb2.ModelInferRequest.InferInputTensor,
    raw: bytes | None,
    count: int,
    model: description.Description,
) -> list[bytes]:
    files = split_bytes(raw, tensor.name, model) if raw is not None else list(_typed(tensor, "BYTES", model))
    if len(files) != count:
        raise errors.BadTensor(
            model.name,
            tensor.name,
            f"{len(files)} encoded images",
            f"{count}, as the shape {list(tensor.shape)} says",
        )
    return files  # type: ignore[return-value]  # bytes_contents holds bytes


def split_bytes(raw: bytes, name: str, model: description.Description) -> list[bytes]:
    """Split the raw form of BYTES: each element behind its length, 4 bytes little-endian.

    Raises:
        BadTensor: the lengths do not add up.
    """
    elements: list[bytes] = []
    position, end = 0, len(raw)
    while position < end:
        start = position + 4
        stop = start + int.from_bytes(raw[position:start], "little")
        if start > end or stop > end:
            raise errors.BadTensor(
                model.name,
                name,
                f"BYTES whose element {len(elements)} ends at byte {stop} of {end}",
                "each element behind its length as 4 bytes, little-endian",
            )
        elements.append(raw[start:stop])
        position = stop
    return elements


def join_bytes(elements: Sequence[bytes]) -> bytes:
    """Return the raw form of BYTES elements."""
    return b"".join(part for element in elements for part in (len(element).to_bytes(4, "little"), element))
