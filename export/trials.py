"""What a graph is tried on: noise and real images of its size, and of others where it takes any.

Path: sources → **trials** → verify, precision, latency.
"""

import pathlib
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export import errors, options, photos, preprocessing, runtime, signature, subject, verify

ROWS = 8
"""Different images of the usual size; larger batches repeat them."""
ROWS_OTHER_SIZES = 2

_NUMPY = onnx.helper.tensor_dtype_to_np_dtype


def of_images(described: preprocessing.Preprocessing, layout: str) -> list[verify.Trial]:
    """Return noise and real images at the usual size, and real ones at other sizes if any size is taken.

    The last one is of real images at the usual size.
    """
    usual = subject.usual_size(described)
    trials = [_real(size, ROWS_OTHER_SIZES, described, layout) for size in subject.SIZES_TRIED if described.is_any_size]
    noise_nhwc = np.random.default_rng(0).integers(0, 256, (ROWS, *usual, described.channels), np.uint8)
    trials.append(verify.Trial("noise", as_input(noise_nhwc, described, layout)))
    trials.append(_real(usual, ROWS, described, layout))
    return trials


def of_any(model: onnx.ModelProto, chosen: options.Options) -> list[verify.Trial]:
    """Return random inputs for a graph that takes no images.

    Raises:
        UnsupportedNetwork: a type or a size that random inputs cannot be made for.
    """
    taken = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in taken]
    random = np.random.default_rng(0)
    return [verify.Trial("noise", {value.name: _random(value, chosen, random) for value in values})]


def from_folder(
    folder: pathlib.Path, described: preprocessing.Preprocessing, layout: str, count_max: int
) -> tuple[runtime.Arrays, int]:
    """Return the images of a folder as inputs, spread evenly over it if there are more, and how many.

    Raises:
        ImageError: no images, or one that cannot be read.
    """
    paths = photos.files(folder)
    chosen = [paths[index] for index in np.linspace(0, len(paths) - 1, min(count_max, len(paths))).astype(int)]
    spec = described.spec(signature.INPUT)
    rows = [photos.fit(photos.read(path), spec) for path in chosen]
    sizes = {row.shape for row in rows}
    if len(sizes) > 1:
        raise errors.ImageError(
            f"the images in {folder} have {len(sizes)} different sizes, and the network takes each as it is; "
            "calibrate with images of one size"
        )
    return as_input(np.stack(rows), described, layout), len(rows)


def as_input(images_nhwc: NDArray[np.uint8], described: preprocessing.Preprocessing, layout: str) -> runtime.Arrays:
    """Return pixels as the graph's input: as they are, or normalised, (N, C, H, W) float32."""
    if layout == signature.UINT8_NHWC:
        return {signature.INPUT: images_nhwc}
    return {signature.INPUT: described.normalised(images_nhwc)}


def _real(size: tuple[int, int], rows: int, described: preprocessing.Preprocessing, layout: str) -> verify.Trial:
    images_nhwc = photos.real((*size, described.channels), rows)
    return verify.Trial("real", as_input(images_nhwc, described, layout))


def _random(value: onnx.ValueInfoProto, chosen: options.Options, random: np.random.Generator) -> NDArray[Any]:
    dims = value.type.tensor_type.shape.dim
    if value.type.WhichOneof("value") != "tensor_type" or value.type.tensor_type.elem_type == onnx.TensorProto.STRING:
        raise errors.UnsupportedNetwork(f"input {value.name!r} is no tensor of numbers; such graphs cannot be checked")
    shape = [dim.dim_value for dim in dims]
    if chosen.input_size and len(shape) == 4:
        shape[1:] = chosen.input_size
    free = [dim.dim_param or "?" for dim, size in zip(dims[1:], shape[1:], strict=True) if size < 1]
    if free:
        raise errors.UnsupportedNetwork(
            f"input {value.name!r} has free dimensions besides the first: {', '.join(free)}; "
            "pass --input-size CxHxW to say at which size it is to be checked"
        )
    if shape and shape[0] < 1:
        shape[0] = ROWS
    dtype = _NUMPY(value.type.tensor_type.elem_type)
    if np.issubdtype(dtype, np.floating):
        return random.standard_normal(shape).astype(dtype)
    # Whole numbers are pixels if they are bytes, else often places in a table, which may be short.
    return random.integers(0, 256 if dtype == np.uint8 else 2, shape).astype(dtype)
