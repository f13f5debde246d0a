"""Which format a file has, how large its image is, and whether that is allowed; nothing is decoded yet.

Path: decode → **formats** → headers.
"""

import dataclasses
import struct
from collections.abc import Callable

from service import errors
from service.images import headers

_READERS: dict[str, Callable[[bytes], headers.Header]] = {
    "PNG": headers.png,
    "JPEG": headers.jpeg,
    "WEBP": headers.webp,
    "BMP": headers.bmp,
    "GIF": headers.gif,
}

# How files begin; those of formats that are not read are there to be named.
_STARTS = {
    "PNG": (headers.PNG_MAGIC,),
    "JPEG": (b"\xff\xd8\xff",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
    "JPEG XL": (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"),
    "Photoshop": (b"8BPS",),
    "icon": (b"\0\0\1\0", b"\0\0\2\0"),
    "PDF": (b"%PDF",),
    "SVG": (b"<svg", b"<?xml"),
    "OpenEXR": (b"\x76\x2f\x31\x01",),
    "DDS": (b"DDS ",),
    "QOI": (b"qoif",),
    "PNM": tuple(b"P%d%c" % (kind, space) for kind in range(1, 8) for space in b" \n"),
    "NumPy": (b"\x93NUMPY",),
}
_BOXED = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF"}

JPEG_SCANS_MAX = 100
"""Scans of one JPEG. Progressive files have about 10, CMYK 18; each one costs time for every pixel."""

JPEG_SCANS_OF_LARGEST_MAX = 32
"""Scans of a JPEG that has as many pixels as allowed; smaller ones may have more, up to the same work."""


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What one encoded image may have at most.

    `image_aspect_max` is the longer side divided by the shorter.
    """

    image_bytes_max: int
    image_pixels_max: int
    image_aspect_max: float = 100.0


@dataclasses.dataclass(frozen=True, slots=True)
class Pixels:
    """An image that is decoded already: `data` is (height, width, channels) uint8, 1 channel grey, 3 RGB."""

    width: int
    height: int
    channels: int
    data: bytes

    def __len__(self) -> int:
        return len(self.data)


Source = bytes | Pixels
"""An encoded image, or pixels."""


def read(file: Source, index: int, limits: Limits) -> headers.Header:
    """Return the header of an encoded image that keeps the limits.

    Args:
        file: the encoded image, or pixels.
        index: its place in the request, for the error.
        limits: of bytes, pixels and aspect.

    Raises:
        BadImage: another format, no size in it, or over a limit.
    """
    if isinstance(file, Pixels):
        return _of_pixels(file, index, limits)
    _check_bytes(file, index, limits)
    name = _format(file)
    if name not in _READERS:
        raise _not_read(file, name, index)
    try:
        header = _READERS[name](file)
    except (headers.Unreadable, struct.error, IndexError) as error:
        reason = error if isinstance(error, headers.Unreadable) else "it ends within its header"
        raise damaged(index, name, str(reason)) from error
    _check_size(header, index, limits)
    _check_scans(header, index, limits)
    return header


def _of_pixels(pixels: Pixels, index: int, limits: Limits) -> headers.Header:
    wanted_bytes = pixels.width * pixels.height * pixels.channels
    if pixels.channels not in {1, 3} or not wanted_bytes or len(pixels.data) != wanted_bytes:
        raise errors.BadImage(
            index,
            f"{len(pixels.data)} bytes for {pixels.height} x {pixels.width} pixels of {pixels.channels} channels",
            "send height * width * channels bytes, at least one pixel, of 1 channel (grey) or 3 (RGB)",
        )
    header = headers.Header(
        headers.GRAY if pixels.channels == 1 else headers.RGB, pixels.width, pixels.height, pixels.data
    )
    _check_size(header, index, limits)
    return header


def damaged(index: int, name: str, reason: str) -> errors.BadImage:
    """Return the error for a file of a known format that does not decode."""
    return errors.BadImage(index, f"the {name} data is damaged ({reason})", "send the file as it was written, whole")


def _format(file: bytes) -> str:
    """Return the name of the file's format, or "" for an unknown one."""
    if file.startswith(b"RIFF") and file[8:12] == b"WEBP":
        return "WEBP"
    if file[4:8] == b"ftyp":
        return _BOXED.get(file[8:12], "")
    return next((name for name, starts in _STARTS.items() if file.startswith(starts)), "")


def _not_read(file: bytes, name: str, index: int) -> errors.BadImage:
    what = f"are {name}," if name else "are"
    return errors.BadImage(
        index,
        f"{len(file)} bytes that begin with {file[:8]!r} {what} not a readable PNG, JPEG, WebP, BMP or GIF file",
        "send the encoded file itself in one of these formats, or pixels as UINT8",
    )


def _check_bytes(file: bytes, index: int, limits: Limits) -> None:
    if len(file) > limits.image_bytes_max:
        raise errors.BadImage(
            index,
            f"the file has {len(file)} bytes; the limit is {limits.image_bytes_max}",
            "compress or shrink it before sending, or raise --image-bytes-max on the server",
        )


def _check_size(header: headers.Header, index: int, limits: Limits) -> None:
    width, height = header.width, header.height
    if not width or not height:
        raise damaged(index, header.format, f"its header says {width}x{height} pixels")
    if width * height > limits.image_pixels_max:
        raise errors.BadImage(
            index,
            f"the image is {width}x{height} pixels; the limit is {limits.image_pixels_max} in all",
            "resize it before sending, or raise --image-pixels-max on the server",
        )
    if max(width, height) > limits.image_aspect_max * min(width, height):
        raise errors.BadImage(
            index,
            f"the image is {width}x{height} pixels; the limit is {limits.image_aspect_max:g} to 1",
            "cut it into pieces before sending, or raise --image-aspect-max on the server",
        )


def _check_scans(header: headers.Header, index: int, limits: Limits) -> None:
    work_max = JPEG_SCANS_OF_LARGEST_MAX * limits.image_pixels_max
    scans_max = min(JPEG_SCANS_MAX, work_max // (header.width * header.height))
    if header.scans > scans_max:
        raise errors.BadImage(
            index,
            f"the JPEG file goes over its {header.width}x{header.height} pixels in {header.scans} scans; "
            f"the limit for this size is {scans_max}",
            "save it again without progressive scans",
        )
