"""One encoded image (JPEG, PNG, WebP, BMP, GIF) to one row of a model's image input.

Path: pool → **decode** → the request's (N,H,W,C) array.

Pillow is the codec: its resize is the reference that torchvision's transforms are defined by, and its
JPEG decoder is libjpeg-turbo, as everybody else's.

Two modes. `Mode.EXACT` equals Pillow's own `open`, `convert`, `resize`, `crop` to the bit. `Mode.FAST`
reads a JPEG at 1/2, 1/4 or 1/8 of its size where that is still `SCALED_MARGIN` times what the resize
needs, takes grey from its luminance, and resizes only what the crop shows. Where nothing is read scaled,
or grey, it differs by at most 1 level (bicubic 2, turned by EXIF 4); scaled by up to 13 on synthetic colours;
`python -m tests.bench.decoded` prints how much on photos.

In both modes: EXIF's orientation is applied (torchvision's loader leaves that to the caller); alpha is
dropped, the colour below stays; 16-bit channels lose their lower byte; colour profiles are ignored; of
an animation or several images the first is taken. CMYK is inverted, as Adobe writes it.

Memory at its highest, measured with 63 megapixels: 4 bytes for each pixel of the file, 8 where colours are
converted, 10 for a progressive JPEG without subsampling, 12 for one in CMYK, 16 for WebP.
"""

import dataclasses
import enum
import io
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from protos import manifest_pb2
from service import errors
from service.images import fitting, formats, headers

Limits = formats.Limits
Pixels = formats.Pixels
Source = formats.Source

SCALED_MARGIN = 2
"""How many times larger than the resized image a JPEG is still decoded in FAST mode.

With 1 a 12-megapixel photo costs a sixth less and differs three times as much from EXACT.
"""

_MODES = {manifest_pb2.COLOR_GRAY: "L", manifest_pb2.COLOR_RGB: "RGB", manifest_pb2.COLOR_BGR: "RGB"}
_FILTERS = {
    manifest_pb2.INTERPOLATION_BILINEAR: Image.Resampling.BILINEAR,
    manifest_pb2.INTERPOLATION_BICUBIC: Image.Resampling.BICUBIC,
}
_Decoded = tuple[Image.Image, float]
# Not `Image.open`: it would try others, and make a warning of every file that holds a second image.
_CODECS: dict[str, Callable[[io.BytesIO], Image.Image]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}
_PIXELS = {headers.GRAY: "L", headers.RGB: "RGB"}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# `formats` has its own limit and its own error; Pillow's warning at 89 megapixels would be a second one.
Image.MAX_IMAGE_PIXELS = None


class Mode(enum.Enum):
    """How an image becomes a row; see the module's text."""

    EXACT = "exact"
    FAST = "fast"


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


def row_shape(files: Sequence[Source], spec: ImageSpec, limits: Limits) -> tuple[int, int, int]:
    """Return the shape of the rows that the images of one request become: (height, width, channels).

    Where images keep their size, it is read from their headers.

    Raises:
        BadImage: an image is not readable, over a limit, or has another size than the first; or together they have
            more pixels than one may have, where all of them are kept.
    """
    if not spec.keeps_size:
        return spec.row_shape
    sizes = [formats.read(file, index, limits).size for index, file in enumerate(files)]
    for index, (width, height) in enumerate(sizes):
        if (width, height) != sizes[0]:
            raise errors.BadImage(
                index,
                f"the image is {width}x{height} pixels and the request's first is {sizes[0][0]}x{sizes[0][1]}; "
                "this model takes images as they are, and one request is one tensor",
                "send images of different sizes in requests of their own",
            )
    width, height = sizes[0]
    fit = limits.image_pixels_max // max(1, width * height)
    if len(files) > fit:
        raise errors.BadImage(
            fit,
            f"with it the request has {(fit + 1) * width * height} pixels; this model takes images as they are, and "
            f"all of a request may have {limits.image_pixels_max} together",
            "send fewer at once, or raise --image-pixels-max on the server",
        )
    return (height, width, spec.row_shape[2])


def decode_into(
    row_hwc: NDArray[np.uint8], file: Source, index: int, spec: ImageSpec, limits: Limits, mode: Mode = Mode.EXACT
) -> None:
    """Decode, convert, turn, resize and crop `file` into `row_hwc`, uint8 of the shape that `row_shape` gave.

    Args:
        row_hwc: written whole.
        file: the encoded image, or pixels.
        index: its place in the request, for the error.
        spec: size and colour of the row.
        limits: of bytes, pixels and aspect.
        mode: exact or fast.

    Raises:
        BadImage: not of a format that is read, damaged, or over a limit.
    """
    header = formats.read(file, index, limits)
    fitted = None if spec.keeps_size else fitting.fit(header.size, (spec.width, spec.height), spec.shorter_side)
    try:
        image, scale = _decoded(header, spec, fitted, mode)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises whatever its parsers trip over, from OSError to ZeroDivisionError
        raise formats.damaged(index, header.format, str(error)) from error
    if fitted is None:
        image = _turn(image, header.orientation)
    elif header.size != fitted.resized and _resizes_crop_only(fitted, limits, mode):
        image = _resize_crop(image, scale, header, fitted, spec.filter)
    else:
        image = _resize_whole(_turn(image, header.orientation), fitted, spec.filter)
    pixels = np.frombuffer(image.tobytes("raw", "BGR" if spec.is_bgr else spec.mode), np.uint8)
    row_hwc[...] = pixels.reshape(row_hwc.shape)


def _decoded(header: headers.Header, spec: ImageSpec, fitted: fitting.Fit | None, mode: Mode) -> _Decoded:
    """Return the pixels as stored, in the spec's colours, and by which divisor they are smaller than stored."""
    if header.format in _PIXELS:
        whole = Image.frombytes(_PIXELS[header.format], (header.width, header.height), header.file)
        return _convert(whole, spec.mode), 1.0
    image = _CODECS[header.format](io.BytesIO(header.file))
    if image.size != (header.width, header.height):
        raise ValueError(f"it says {header.width}x{header.height} pixels and then {image.width}x{image.height}")
    scale = 1.0
    if mode is Mode.FAST and isinstance(image, JpegImagePlugin.JpegImageFile):
        scale = _draft(image, header, spec, fitted)
    image.load()
    return _convert(image, spec.mode), scale


def _draft(
    image: JpegImagePlugin.JpegImageFile, header: headers.Header, spec: ImageSpec, fitted: fitting.Fit | None
) -> float:
    """Have the JPEG decoded smaller, and in grey if that is asked for; return the divisor."""
    size = None
    if fitted is not None:
        width, height = fitting.turned(fitted.resized, header.orientation)
        size = (SCALED_MARGIN * width, SCALED_MARGIN * height)
    drafted = image.draft(spec.mode, size)
    return header.width / drafted[1][2] if drafted else 1.0


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image.info.pop("transparency", None)  # dropped; Pillow would carry it over, or warn that it cannot
    return image if image.mode == mode else image.convert(mode)


def _turn(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _resizes_crop_only(fitted: fitting.Fit, limits: Limits, mode: Mode) -> bool:
    # The whole image resized may be far larger than its crop; above the limit it is never made.
    return mode is Mode.FAST or fitted.resized[0] * fitted.resized[1] > limits.image_pixels_max


def _resize_whole(image: Image.Image, fitted: fitting.Fit, resampling: Image.Resampling) -> Image.Image:
    if image.size != fitted.resized:
        image = image.resize(fitted.resized, resampling)
    return image if image.size == fitted.row else image.crop(fitted.crop)


def _resize_crop(
    image: Image.Image, scale: float, header: headers.Header, fitted: fitting.Fit, resampling: Image.Resampling
) -> Image.Image:
    """Resize only what the row shows, then turn that: the same numbers up to the rounding of the box's edges."""
    box = fitting.source_box(fitted, header.size)
    left, top, right, bottom = fitting.stored_box(box, (header.width, header.height), header.orientation)
    stored = (left / scale, top / scale, right / scale, bottom / scale)
    return _turn(image.resize(fitting.turned(fitted.row, header.orientation), resampling, stored), header.orientation)
