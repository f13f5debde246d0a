"""One encoded image (PNG, JPEG) to one row of a model's image input.

Path: pool → **decode** → the request's (N,H,W,C) array.

Size limits are enforced on the file's header, before memory for pixels is taken. Pillow is the
codec: its resize is the reference that torchvision's transforms are defined by. Alpha is dropped.
"""

import dataclasses
import io
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from protos import manifest_pb2
from service import errors

FORMATS = ("PNG", "JPEG")

_PNG = b"\x89PNG\r\n\x1a\n"

_MODES = {manifest_pb2.COLOR_GRAY: "L", manifest_pb2.COLOR_RGB: "RGB", manifest_pb2.COLOR_BGR: "RGB"}
_FILTERS = {
    manifest_pb2.INTERPOLATION_BILINEAR: Image.Resampling.BILINEAR,
    manifest_pb2.INTERPOLATION_BICUBIC: Image.Resampling.BICUBIC,
}

# `_open` has its own limit and its own error; Pillow's warning at 89 megapixels would be a second one.
Image.MAX_IMAGE_PIXELS = None


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What one encoded image may have at most."""

    image_bytes_max: int
    image_pixels_max: int


@dataclasses.dataclass(frozen=True, slots=True)
class ImageSpec:
    """How an image becomes a row; the plain form of the manifest's ImageSpec, sizes in pixels.

    A height and width of 0: the image keeps its size.
    """

    input: str
    height: int
    width: int
    mode: str
    is_bgr: bool
    shorter_side: int
    filter: Image.Resampling

    @property
    def row_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one row; 0 where the image decides."""
        return (self.height, self.width, 1 if self.mode == "L" else 3)

    @property
    def keeps_size(self) -> bool:
        """Whether every image keeps its size."""
        return not self.height


def image_spec(message: manifest_pb2.ImageSpec) -> ImageSpec:
    """Return the manifest's spec in plain form.

    Raises:
        ValueError: a field has no value, or one that this version does not know.
    """
    sizes = () if message.resize == manifest_pb2.RESIZE_NONE else ("height", "width")
    for field in ("color", "resize", "interpolation", "input", *sizes):
        if not getattr(message, field):
            raise ValueError(f"the manifest's image spec has no {field}")
    shorter_side = message.resize_px if message.resize == manifest_pb2.RESIZE_SHORTER_SIDE else 0
    if message.resize == manifest_pb2.RESIZE_SHORTER_SIDE and shorter_side < max(message.height, message.width):
        raise ValueError(f"resize_px {shorter_side} is smaller than the crop {message.width}x{message.height}")
    if not message.antialias:
        raise ValueError("resizing without antialias is not supported; set antialias: true")
    return ImageSpec(
        input=message.input,
        height=message.height,
        width=message.width,
        mode=_MODES[message.color],
        is_bgr=message.color == manifest_pb2.COLOR_BGR,
        shorter_side=shorter_side,
        filter=_FILTERS[message.interpolation],
    )


def row_shape(files: Sequence[bytes], spec: ImageSpec, limits: Limits) -> tuple[int, int, int]:
    """Return the shape of the rows that the images of one request become: (height, width, channels).

    Where images keep their size, it is read from their headers.

    Raises:
        BadImage: an image is not readable, over a limit, or has another size than the first.
    """
    if not spec.keeps_size:
        return spec.row_shape
    sizes = [_open(file, index, limits).size for index, file in enumerate(files)]
    for index, (width, height) in enumerate(sizes):
        if (width, height) != sizes[0]:
            raise errors.BadImage(
                index,
                f"the image is {width}x{height} pixels and the request's first is {sizes[0][0]}x{sizes[0][1]}; "
                "this model takes images as they are, and one request is one tensor",
                "send images of different sizes in requests of their own",
            )
    return (sizes[0][1], sizes[0][0], spec.row_shape[2])


def decode_into(row_hwc: NDArray[np.uint8], file: bytes, index: int, spec: ImageSpec, limits: Limits) -> None:
    """Decode, convert, resize and crop `file` into `row_hwc`, uint8 of the shape that `row_shape` gave.

    Args:
        row_hwc: written whole.
        file: the encoded image.
        index: its place in the request, for the error.
        spec: size and colour of the row.
        limits: of bytes and pixels.

    Raises:
        BadImage: not a PNG or JPEG, damaged, or over a limit.
    """
    image = _open(file, index, limits)
    try:
        pixels = np.asarray(_fit(_convert(image, spec.mode), spec))
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises on damaged data
        raise errors.BadImage(
            index, f"the {image.format} data is damaged ({error})", "send the file as it was written, whole"
        ) from error
    pixels_hwc = pixels.reshape(row_hwc.shape)
    row_hwc[...] = pixels_hwc[..., ::-1] if spec.is_bgr else pixels_hwc


def _open(file: bytes, index: int, limits: Limits) -> Image.Image:
    if len(file) > limits.image_bytes_max:
        raise errors.BadImage(
            index,
            f"the file has {len(file)} bytes; the limit is {limits.image_bytes_max}",
            "compress or shrink it before sending, or raise --image-bytes-max on the server",
        )
    if file[:8] == _PNG and file[12:16] == b"IHDR":  # a header alone is enough to refuse a bomb
        width, height = struct.unpack(">II", file[16:24].ljust(8, b"\0"))
        _check_pixels(width, height, index, limits)
    try:
        image = Image.open(io.BytesIO(file), formats=FORMATS)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise errors.BadImage(
            index,
            f"{len(file)} bytes that begin with {file[:8]!r} are not a readable PNG or JPEG file",
            "send the encoded file itself, or pixels as UINT8",
        ) from error
    _check_pixels(image.width, image.height, index, limits)
    return image


def _check_pixels(width: int, height: int, index: int, limits: Limits) -> None:
    if width * height > limits.image_pixels_max:
        raise errors.BadImage(
            index,
            f"the image is {width}x{height} pixels; the limit is {limits.image_pixels_max} in all",
            "resize it before sending, or raise --image-pixels-max on the server",
        )


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image if image.mode == mode else image.convert(mode)


def _fit(image: Image.Image, spec: ImageSpec) -> Image.Image:
    if spec.keeps_size:
        return image
    if not spec.shorter_side:
        size = (spec.width, spec.height)
        return image if image.size == size else image.resize(size, spec.filter)
    # The longer side is truncated and the crop rounded, as torchvision's Resize and CenterCrop do.
    size = (
        max(spec.shorter_side, int(image.width * spec.shorter_side / min(image.size))),
        max(spec.shorter_side, int(image.height * spec.shorter_side / min(image.size))),
    )
    image = image if image.size == size else image.resize(size, spec.filter)
    left, top = round((image.width - spec.width) / 2), round((image.height - spec.height) / 2)
    return image.crop((left, top, left + spec.width, top + spec.height))
