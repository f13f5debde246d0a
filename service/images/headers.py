"""What the bytes of a file say before anything is decoded: size, orientation, and which bytes the codec needs.

Path: formats → **headers** → decode.

The codec is shown the parts that make pixels and no others. PNG's compressed profiles and texts, JPEG's
EXIF, profiles and second images, and animation of PNG files can then neither cost time nor memory, nor
make Pillow warn. Walking is bounded by `PARTS_MAX`: Pillow walks in Python, some microseconds for each part.
"""

import dataclasses
import re
import struct

from service.images import fitting

PARTS_MAX = 16_384
"""Chunks, segments or blocks of one file. A PNG of 32 MiB written by libpng has 4096."""

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"

GRAY, RGB = "grey pixels", "RGB pixels"
"""Formats of what is no file."""

_PNG_KEPT = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND"))
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff]")
_JPEG_MARKER_IN_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # neither a stuffed byte nor a restart
_JPEG_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length: TEM, RST0-7, SOI
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_JPEG_KEPT_APPS = (0xE0, 0xEE)  # JFIF and Adobe: they say which colours the components are
_SOI, _EOI, _SOS, _APP0, _APP1, _APP15, _COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xEF, 0xFE

_BMP_RAW, _BMP_BITFIELDS = 0, 3
_BMP_COMPRESSIONS = {1: "run lengths", 2: "run lengths", 4: "a JPEG inside", 5: "a PNG inside"}


class Unreadable(Exception):
    """The file is of the format but cannot be read; the text says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """One file's header.

    `width` and `height` are of the pixels as stored, `orientation` is EXIF's, 1 to 8. `file` is what the
    codec gets. `scans` is how often a JPEG goes over its pixels, 1 for everything else.
    """

    format: str
    width: int
    height: int
    file: bytes
    orientation: int = fitting.UPRIGHT
    scans: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image as it is to be seen."""
        return fitting.turned((self.width, self.height), self.orientation)


def png(file: bytes) -> Header:
    """Read a PNG file. Truncation is left to the codec. Raises Unreadable, IndexError or struct.error."""
    if file[12:16] != b"IHDR":
        raise Unreadable("its first chunk is not IHDR")
    width, height = struct.unpack_from(">II", file, 16)
    kept, orientation, position = [(0, 8)], fitting.UPRIGHT, 8
    for _ in range(PARTS_MAX):
        if position + 12 > len(file):
            _keep(kept, position, len(file))
            break
        length, name = struct.unpack_from(">I4s", file, position)
        end = position + 12 + length
        if name in _PNG_KEPT:
            _keep(kept, position, end)
        elif name == b"eXIf":
            orientation = exif_orientation(file[position + 8 : end - 4])
        if name == b"IEND":
            break
        position = end
    else:
        raise _too_many_parts("chunks")
    return Header("PNG", width, height, _joined(file, kept), orientation)


def jpeg(file: bytes) -> Header:
    """Read a JPEG file up to its pixels. Raises Unreadable, IndexError or struct.error."""
    kept, orientation, position = [(0, 2)], fitting.UPRIGHT, 2
    frame: tuple[int, int, int, int] | None = None
    for _ in range(PARTS_MAX):
        marker = _JPEG_MARKER.search(file, position)
        if marker is None or file[marker.start() + 1] == _EOI:
            raise Unreadable("it ends before its pixels begin")
        code, position = file[marker.start() + 1], marker.end()
        if code in _JPEG_ALONE:
            continue
        end = position + max(2, *struct.unpack_from(">H", file, position))
        if code == _SOS:
            _keep(kept, marker.start(), len(file))
            break
        if code in _JPEG_FRAMES:
            if frame is not None:
                raise Unreadable("it has two frame headers")
            frame = (code, *struct.unpack_from(">HHB", file, position + 3))
        if code == _APP1 and file.startswith(b"Exif\0\0", position + 2) and orientation == fitting.UPRIGHT:
            orientation = exif_orientation(file[position + 8 : end])
        if code in _JPEG_KEPT_APPS or not (_APP0 <= code <= _APP15 or code == _COM):
            _keep(kept, marker.start(), end)
        position = end
    else:
        raise _too_many_parts("segments")
    if frame is None:
        raise Unreadable("it has no frame header before its pixels")
    code, height, width, components = frame
    is_one_scan = code not in _JPEG_PROGRESSIVE and file[position + 2] == components
    scans = 1 if is_one_scan else _scans(file, end)
    return Header("JPEG", width, height, _joined(file, kept), orientation, scans)


def _scans(file: bytes, position: int) -> int:
    """Count the scans of a JPEG file from the end of the first one's header on."""
    scans = 1
    for _ in range(PARTS_MAX):
        marker = _JPEG_MARKER_IN_SCAN.search(file, position)
        if marker is None or file[marker.start() + 1] == _EOI:
            return scans
        code, position = file[marker.start() + 1], marker.end()
        scans += code == _SOS
        if code not in _JPEG_ALONE:
            position += max(2, int.from_bytes(file[position : position + 2], "big"))
    raise _too_many_parts("segments")


def gif(file: bytes) -> Header:
    """Read a GIF file up to its first frame, which may be larger than the screen. Raises as `jpeg` does."""
    width, height, flags = struct.unpack_from("<HHB", file, 6)
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    is_in_extension = False
    for _ in range(PARTS_MAX):
        byte = file[position]
        if is_in_extension:
            is_in_extension = byte > 0
            position += 1 + byte
        elif byte == ord(","):
            left, top, frame_width, frame_height = struct.unpack_from("<HHHH", file, position + 1)
            return Header("GIF", max(width, left + frame_width), max(height, top + frame_height), file)
        elif byte in (0, ord("!")):  # stray terminators are common
            is_in_extension = byte == ord("!")
            position += 2 if is_in_extension else 1
        else:
            raise Unreadable("it holds no image")
    raise _too_many_parts("blocks")


def webp(file: bytes) -> Header:
    """Read a WebP file's canvas size, of an animation too. Raises as `jpeg` does."""
    kind = file[12:16]
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", file, 26))
        return Header("WEBP", width, height, file)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", file, 21)
        return Header("WEBP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, file)
    if kind != b"VP8X":
        raise Unreadable("its first chunk is none of VP8, VP8L, VP8X")
    flags, width, height = file[20], *(int.from_bytes(file[at : at + 3], "little") + 1 for at in (24, 27))
    return Header("WEBP", width, height, file, _webp_orientation(file) if flags & 0x08 else fitting.UPRIGHT)


def _webp_orientation(file: bytes) -> int:
    position = 12
    for _ in range(PARTS_MAX):
        if position + 8 > len(file):
            return fitting.UPRIGHT
        name, length = struct.unpack_from("<4sI", file, position)
        if name == b"EXIF":
            block = file[position + 8 : position + 8 + length]
            return exif_orientation(block.removeprefix(b"Exif\0\0"))
        position += 8 + length + length % 2
    raise _too_many_parts("chunks")


def bmp(file: bytes) -> Header:
    """Read a BMP file. Run lengths are refused: Pillow expands them in Python. Raises as `jpeg` does."""
    (header_bytes,) = struct.unpack_from("<I", file, 14)
    if header_bytes == 12:
        width, height = struct.unpack_from("<HH", file, 18)
        return Header("BMP", width, height, file)
    width, height, _, _, compression = struct.unpack_from("<IIHHI", file, 18)
    if compression not in (_BMP_RAW, _BMP_BITFIELDS):
        what = _BMP_COMPRESSIONS.get(compression, f"compression {compression}")
        raise Unreadable(f"it has {what}, and only BMP files without compression are read")
    if height >> 24 == 0xFF:  # negative: rows from the top
        height = 2**32 - height
    return Header("BMP", width, height, file)


def exif_orientation(block: bytes) -> int:
    """Return the orientation, 1 to 8, that a block of EXIF says; 1 where it says none or is damaged."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return fitting.UPRIGHT
    try:
        (position,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, position)
        for entry in range(position + 2, position + 2 + 12 * min(count, 512), 12):
            tag, kind, values, value = struct.unpack_from(order + "HHIH", block, entry)
            if (tag, kind, values) == (0x0112, 3, 1):
                return value if 1 <= value <= 8 else fitting.UPRIGHT
    except struct.error:
        pass
    return fitting.UPRIGHT


def _keep(kept: list[tuple[int, int]], start: int, end: int) -> None:
    if kept[-1][1] == start:
        kept[-1] = (kept[-1][0], end)
    else:
        kept.append((start, end))


def _joined(file: bytes, kept: list[tuple[int, int]]) -> bytes:
    if len(kept) == 1 and kept[0][1] >= len(file):
        return file
    view = memoryview(file)
    return b"".join(view[start:end] for start, end in kept)


def _too_many_parts(what: str) -> Unreadable:
    return Unreadable(f"it is made of more than {PARTS_MAX} {what}")
