"""Tensors of a request, checked against the model: views on the message's bytes, or encoded images.

Path: messages → **tensors** → images and engine.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protos import inference_pb2
from service import datatypes, errors
from service.models import description

InputTensor = inference_pb2.ModelInferRequest.InferInputTensor

_ANY = -1


class Inputs(NamedTuple):
    """A request's inputs: `tensors` ready to run, and `images` that have to be decoded first."""

    tensors: dict[str, NDArray[np.generic]]
    images: list[bytes]


class Layout:
    """What the header of a request says about its inputs, checked against the model. Never changes."""

    def __init__(self, request: inference_pb2.ModelInferRequest, raws: int, model: description.Description) -> None:
        """Check the inputs.

        Raises:
            BadRequest: inputs missing, unknown or given twice; raw and typed contents mixed; rows that differ.
            BadTensor: wrong datatype or shape, or typed contents that do not fit it.
        """
        if raws and raws != len(request.inputs):
            raise errors.BadRequest(
                f"{raws} raw_input_contents for {len(request.inputs)} inputs; send one for each, in their order",
                "raw_input_contents",
            )
        _check_names(request, model)
        self._model = model
        self.samples = 0 if model.is_batched else 1
        self._raws: list[_Raw] = []
        self._typed: dict[str, NDArray[np.generic]] = {}
        self._images: list[bytes] = []
        for position, tensor in enumerate(request.inputs):
            if raws and tensor.HasField("contents"):
                raise errors.BadRequest(
                    f"input {tensor.name!r} has typed contents beside raw_input_contents; send one of the two",
                    errors.path("inputs", tensor.name) + ".contents",
                )
            samples = self._take(tensor, is_raw=raws > 0)
            if position and samples != self.samples:
                raise errors.BadRequest(
                    f"input {tensor.name!r} has {samples} rows, the inputs before it {self.samples}; "
                    "send the same number",
                    errors.path("inputs", tensor.name) + ".shape",
                )
            self.samples = samples

    def read(self, raws: Sequence[memoryview]) -> Inputs:
        """Return the inputs of a request with this header: views on its raw contents.

        Raises:
            BadTensor: a wrong number of bytes.
        """
        if not raws:
            return Inputs(dict(self._typed), self._images)
        tensors: dict[str, NDArray[np.generic]] = {}
        images: list[bytes] = []
        for (name, spec, shape, wanted_bytes), raw in zip(self._raws, raws, strict=True):
            if spec is None:
                images = _as_many(split_bytes(raw, name, self._model), shape, name, self._model)
            elif len(raw) != wanted_bytes:
                if spec.datatype is not datatypes.STRING:
                    wanted = f"{wanted_bytes} for {spec.datatype.wire} {list(shape)}"
                    raise errors.BadTensor(self._model.name, name, f"{len(raw)} raw bytes", wanted)
                tensors[name] = _strings(split_bytes(raw, name, self._model), shape, name, self._model)
            else:
                tensors[name] = np.frombuffer(raw, spec.datatype.numpy).reshape(shape)
        return Inputs(tensors, images)

    def _take(self, tensor: InputTensor, *, is_raw: bool) -> int:
        """Check one input, remember how to read it, and return its rows."""
        model, name = self._model, tensor.name
        spec = model.inputs[name]
        shape = tuple(tensor.shape)
        takes_images = model.image is not None and model.image.input == name
        is_image = tensor.datatype == "BYTES" and takes_images
        if not is_image and tensor.datatype != spec.datatype.wire:
            encoded = ", or BYTES with encoded images" if takes_images else ""
            raise errors.BadTensor(
                model.name, name, f"datatype {tensor.datatype!r}", spec.datatype.wire + encoded, ".datatype"
            )
        _check_shape(name, shape, spec, model, is_image)
        if is_raw:
            is_string = spec.datatype is datatypes.STRING
            wanted_bytes = _ANY if is_string else math.prod(shape) * spec.datatype.numpy.itemsize
            self._raws.append(_Raw(name, None if is_image else spec, shape, wanted_bytes))
        elif is_image:
            files: list[bytes] = list(_typed(tensor, "BYTES", model))
            self._images = _as_many(files, shape, name, model)
        else:
            self._typed[name] = _from_contents(tensor, shape, spec, model)
        return shape[0] if model.is_batched else 1


class _Raw(NamedTuple):
    """How to read the raw contents of an input."""

    name: str
    spec: datatypes.TensorSpec | None
    """None: it holds encoded images."""
    shape: tuple[int, ...]
    bytes: int
    """How many there must be; _ANY for strings, each of which has its own length."""


def _check_names(request: inference_pb2.ModelInferRequest, model: description.Description) -> None:
    names = [tensor.name for tensor in request.inputs]
    if len(names) == len(model.inputs) and model.inputs.keys() == set(names):
        return
    for name in names:
        if name not in model.inputs:
            raise errors.BadRequest(
                f"model {model.name!r} has no input {name!r}{errors.nearest(name, model.inputs)}; "
                f"its inputs: {', '.join(model.inputs)}",
                errors.path("inputs", name),
            )
    if len(set(names)) != len(names):
        raise errors.BadRequest(f"an input is given twice: {', '.join(names)}; give each once", "inputs")
    missing = [name for name, spec in model.inputs.items() if name not in names and not spec.is_optional]
    if missing:
        raise errors.BadRequest(
            f"model {model.name!r} needs {', '.join(missing)} too; the request has no such input",
            errors.path("inputs", missing[0]),
        )


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
            raise errors.BadTensor(
                model.name, name, f"shape {list(shape)} for encoded images", "[N] or [N, 1]", ".shape"
            )
    elif not _fits(shape, spec.shape):
        wanted = f"shape {list(spec.shape)} (-1: any)" + (" or encoded images as BYTES [N]" if model.image else "")
        raise errors.BadTensor(model.name, name, f"shape {list(shape)}", wanted, ".shape")
    is_image_input = model.image is not None and model.image.input == name
    if any(size < 0 for size in shape) or (is_image_input and 0 in shape) or (model.is_batched and shape[0] == 0):
        raise errors.BadTensor(model.name, name, f"shape {list(shape)}", "at least one row", ".shape")


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a shape is one that the graph takes.

    Scalars and tensors without a declared rank look the same in ONNX Runtime: both shapes are left to it.
    """
    return not wanted or (
        len(shape) == len(wanted) and all(most in {-1, size} for size, most in zip(shape, wanted, strict=True))
    )


def _from_contents(
    tensor: InputTensor,
    shape: tuple[int, ...],
    spec: datatypes.TensorSpec,
    model: description.Description,
) -> NDArray[np.generic]:
    values = _typed(tensor, spec.datatype.wire, model)
    if spec.datatype is datatypes.STRING:
        return _strings(values, shape, spec.name, model)
    if len(values) != math.prod(shape):
        raise errors.BadTensor(
            model.name, spec.name, f"{len(values)} values", f"{math.prod(shape)} for {list(shape)}", ".contents"
        )
    try:
        return np.array(values, spec.datatype.numpy).reshape(shape)
    except OverflowError as error:
        raise errors.BadTensor(
            model.name, spec.name, f"a value out of range ({error})", f"values of {spec.datatype.wire}", ".contents"
        ) from error


def _typed(tensor: InputTensor, datatype: str, model: description.Description) -> Sequence[Any]:
    field = datatypes.CONTENTS.get(datatype)
    if field is None or not tensor.HasField("contents"):
        raise errors.BadTensor(
            model.name,
            tensor.name,
            "no data",
            f"raw_input_contents{f' or contents.{field}' if field else ''}",
        )
    values: Sequence[Any] = getattr(tensor.contents, field)
    return values


def _strings(
    elements: Sequence[bytes], shape: tuple[int, ...], name: str, model: description.Description
) -> NDArray[np.generic]:
    """Return BYTES as text, which is what ONNX Runtime's strings are: str of the shape given."""
    if len(elements) != math.prod(shape):
        wanted = f"{math.prod(shape)} for {list(shape)}"
        raise errors.BadTensor(model.name, name, f"{len(elements)} elements", wanted)
    made = np.empty(len(elements), np.object_)
    for place, element in enumerate(elements):
        try:
            made[place] = element.decode()
        except UnicodeDecodeError as error:
            got = f"BYTES whose element {place} is not UTF-8 (byte {error.start}: {error.reason})"
            raise errors.BadTensor(model.name, name, got, "text in UTF-8; send binary contents as UINT8") from error
    return made.reshape(shape)


def _as_many(files: list[bytes], shape: tuple[int, ...], name: str, model: description.Description) -> list[bytes]:
    """Check that there are as many encoded images as the shape says."""
    if len(files) != shape[0]:
        raise errors.BadTensor(
            model.name, name, f"{len(files)} encoded images", f"{shape[0]}, as the shape {list(shape)} says"
        )
    return files


def split_bytes(raw: memoryview, name: str, model: description.Description) -> list[bytes]:
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
        elements.append(bytes(raw[start:stop]))
        position = stop
    return elements


def join_strings(texts: NDArray[np.generic]) -> bytes:
    """Return the raw form of an object array of str, row by row."""
    return datatypes.join_bytes([text.encode() for text in texts.ravel().tolist()])
