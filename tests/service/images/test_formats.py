"""What is refused, and with which words: formats, limits, and files made to cost time or memory."""

import io
import random
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from service import errors
from service.images import decode, formats, headers
from tests.service.images import samples
from tests.service.images.samples import AS_IT_IS, GRAY, LIMITS, RGB, row, saved

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99), np.uint8))
FLAT = Image.new("RGB", (40, 30), (200, 100, 50))


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_header(width: int, height: int) -> bytes:
    return headers.PNG_MAGIC + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def jpeg_of_size(width: int, height: int) -> bytes:
    file = saved(FLAT.convert("L"), "JPEG")
    at = file.index(b"\xff\xc0") + 5
    return file[:at] + struct.pack(">HH", height, width) + file[at + 4 :]


def webp_of_canvas(width: int, height: int) -> bytes:
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    still = saved(FLAT, "WEBP")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + sides + still[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif_of_frame(width: int, height: int) -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0, 0, 0)
    return screen + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00;"


def bmp_of_size(width: int, height: int, compression: int = 0) -> bytes:
    core = struct.pack("<IIiHHIIiiII", 40, width, height, 1, 8, compression, 0, 0, 0, 2, 0)
    return b"BM" + struct.pack("<IHHI", 200, 0, 0, 62) + core + bytes(200)


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        (b"", r"0 bytes that begin with b'' are not a readable PNG, JPEG, WebP, BMP or GIF file; send the encoded"),
        (b"hello, I am a text file", r"begin with b'hello, I' are not a readable PNG, JPEG"),
        (saved(FLAT, "TIFF"), r"are TIFF, not a readable PNG"),
        (saved(FLAT, "AVIF"), r"are AVIF, not a readable PNG"),
        (saved(FLAT, "JPEG2000"), r"are JPEG 2000, not a readable PNG"),
        (saved(FLAT, "PPM"), r"are PNM, not a readable PNG"),
        (b"RIFF\0\0\0\0WAVEfmt ", r"are not a readable PNG"),
        (saved(FLAT, "PNG")[:-30], r"the PNG data is damaged \(image file is truncated"),
        (saved(NOISE, "JPEG")[:-2000], r"the JPEG data is damaged \(image file is truncated"),
        (saved(FLAT, "JPEG")[:100], r"the JPEG data is damaged \(it ends before its pixels begin"),
        (b"\xff\xd8\xff\xd9", r"the JPEG data is damaged \(it ends before its pixels begin"),
        (saved(FLAT, "WEBP")[:25], r"the WEBP data is damaged \(it ends within its header"),
        (b"GIF89a" + bytes(7) + b";", r"the GIF data is damaged \(it holds no image"),
        (bmp_of_size(9, 9, compression=1), r"it has run lengths, and only BMP files without compression"),
        (png_header(0, 7), r"its header says 0x7 pixels"),
        (b"x" * 10_000_001, r"10000001 bytes; the limit is 10000000; compress"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value[:40],
)
def test_bad_files_say_what_is_wrong_and_what_to_do(file: bytes, sentence: str) -> None:
    with pytest.raises(errors.BadImage, match=sentence):
        row(file, GRAY)


BOMBS = {
    "PNG": png_header,
    "JPEG": jpeg_of_size,
    "WebP": webp_of_canvas,
    "GIF": gif_of_frame,
    "BMP": bmp_of_size,
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("mode", decode.Mode)
def test_pixels_over_the_limit_are_refused_before_memory_is_taken(name: str, mode: decode.Mode) -> None:
    file = BOMBS[name](30_000, 30_000)
    tracemalloc.start()
    with pytest.raises(errors.BadImage, match="30000x30000 pixels; the limit is 64000000 in all; resize it"):
        row(file, GRAY, mode)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1_000_000
    with pytest.raises(errors.BadImage, match="the limit is 64000000"):
        decode.row_shape([file], AS_IT_IS, LIMITS)


@pytest.mark.parametrize("name", BOMBS)
def test_images_longer_than_the_aspect_limit_are_refused(name: str) -> None:
    with pytest.raises(errors.BadImage, match="5000x49 pixels; the limit is 100 to 1; cut it"):
        row(BOMBS[name](5000, 49), GRAY)
    with pytest.raises(errors.BadImage, match="10x31 pixels; the limit is 3 to 1"):
        formats.read(BOMBS[name](10, 31), 0, decode.Limits(10_000, 10_000, 3))


@pytest.mark.parametrize("size", [(4900, 49), (49, 4900)])
def test_the_limit_itself_is_allowed(size: tuple[int, int]) -> None:
    assert row(saved(Image.new("L", size, 77), "PNG"), samples.IMAGENET).min() == 77


def test_a_file_whose_contents_are_larger_than_its_header_says_is_refused() -> None:
    two_headers = png_header(10, 10) + png_header(5000, 5000)[8:] + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(errors.BadImage, match="it says 10x10 pixels and then 5000x5000"):
        row(two_headers, GRAY)
    jpeg = saved(FLAT, "JPEG")
    start = jpeg.index(b"\xff\xc0")
    frame = jpeg[start : start + 19]
    with pytest.raises(errors.BadImage, match="two frame headers"):
        row(jpeg[:start] + frame + jpeg[start:], GRAY)


@pytest.mark.parametrize("height", [29, 31, 3000])
def test_rows_that_a_png_promises_and_does_not_have_are_black_never_left_over_memory(height: int) -> None:
    whole = row(saved(FLAT, "PNG"), AS_IT_IS)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40, height, 8, 2, 0, 0, 0))
    got = row(headers.PNG_MAGIC + header + saved(FLAT, "PNG")[33:], AS_IT_IS)
    assert got.shape == (height, 40, 3)
    assert np.array_equal(got[:30], whole[:height])
    assert not got[30:].any()


def inflating(mebibytes: int) -> bytes:
    return zlib.compress(bytes(mebibytes * 2**20), 9)


@pytest.mark.parametrize(
    "ancillary",
    [
        chunk(b"iCCP", b"profile\0\0" + inflating(64)) * 3,
        chunk(b"zTXt", b"comment\0\0" + inflating(64)) * 3,
        chunk(b"iTXt", b"comment\0\1\0\0\0" + inflating(64)) * 3,
        chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)) + chunk(b"fcTL", bytes(26)),
        chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff" + bytes(40)),
    ],
    ids=["iCCP", "zTXt", "iTXt", "animation", "EXIF"],
)
def test_what_is_no_pixel_in_a_png_is_not_even_looked_at(ancillary: bytes) -> None:
    file = saved(FLAT, "PNG")
    tracemalloc.start()
    got = row(file[:33] + ancillary + file[33:-12] + ancillary + file[-12:], RGB)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(got, row(file, RGB))
    assert peak_bytes < 3_000_000


def test_what_is_no_pixel_in_a_jpeg_is_not_even_looked_at() -> None:
    file = saved(FLAT, "JPEG")
    block = b"\xff\xe1" + struct.pack(">H", 60) + b"Exif\0\0" + b"II*\0\x08\0\0\0\xff\xff" + bytes(42)
    multi = b"\xff\xe2" + struct.pack(">H", 20) + b"MPF\0" + b"\xff" * 14
    comment = b"\xff\xfe" + struct.pack(">H", 65_535) + b"\xff\xda" * 32_766 + b"!"
    assert np.array_equal(row(file[:2] + block + multi + comment * 9 + file[2:], RGB), row(file, RGB))


FLOODS = {
    "PNG": (headers.png, saved(FLAT, "PNG")[:33] + chunk(b"IDAT", b"") * headers.PARTS_MAX),
    "JPEG": (headers.jpeg, b"\xff\xd8" + b"\xff\xe0\0\x02" * headers.PARTS_MAX),
    "GIF": (headers.gif, b"GIF89a" + bytes(7) + b"!\xfe" + b"\x01x" * headers.PARTS_MAX),
    "restarts": (headers.jpeg, b"\xff\xd8" + b"\xff\xd0" * headers.PARTS_MAX),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_file_of_countless_parts_is_refused(name: str) -> None:
    _, file = FLOODS[name]
    with pytest.raises(errors.BadImage, match="it is made of more than 16384"):
        row(file, GRAY)


def scanned_again(times: int) -> bytes:
    """Return a progressive JPEG whose last scan, with its table, comes `times` more."""
    file = saved(FLAT, "JPEG", progressive=True)
    table = file.rindex(b"\xff\xc4", 0, file.rindex(b"\xff\xda"))
    return file[:-2] + file[table:-2] * times + file[-2:]


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    usual = formats.read(scanned_again(0), 0, LIMITS).scans
    assert formats.read(scanned_again(20), 0, LIMITS).scans == usual + 20
    with pytest.raises(errors.BadImage, match=f"40x30 pixels in {usual + 100} scans; the limit for this size is 100"):
        row(scanned_again(100), GRAY)
    with pytest.raises(errors.BadImage, match="the limit for this size is 32; save it again without progressive"):
        row(scanned_again(32), GRAY, limits=decode.Limits(10_000_000, 1200))


def test_scans_are_counted_where_pixels_are_not_in_comments_or_behind_the_end() -> None:
    file = saved(FLAT, "JPEG", progressive=True)
    comment = b"\xff\xfe" + struct.pack(">H", 402) + b"\xff\xda" * 200
    again = file[: file.rindex(b"\xff\xda")] + comment + file[file.rindex(b"\xff\xda") :] + b"\xff\xda\0\x02" * 200
    assert formats.read(comment.join((file[:2], again[2:])), 0, LIMITS).scans == formats.read(file, 0, LIMITS).scans


def varied() -> dict[str, bytes]:
    """Return small files of every kind."""
    blocks = np.random.default_rng(1).integers(0, 256, (6, 5, 3), np.uint8)
    image = Image.fromarray(np.kron(blocks, np.ones((8, 8, 1), np.uint8)))
    few, other, exif = image.quantize(20), image.rotate(180), Image.Exif()
    exif[274] = 6
    exif[305] = "camera"
    return {
        "jpeg": saved(image, "JPEG", exif=exif),
        "progressive": saved(image, "JPEG", progressive=True),
        "cmyk": saved(image.convert("CMYK"), "JPEG"),
        "two images": saved(image, "MPO", save_all=True, append_images=[other]),
        "png": saved(image, "PNG", exif=exif),
        "palette": saved(few, "PNG", transparency=b"\1\2"),
        "webp": saved(image, "WEBP", exif=exif),
        "lossless webp": saved(image, "WEBP", lossless=True),
        "animated webp": saved(image, "WEBP", save_all=True, append_images=[other]),
        "bmp": saved(image.resize((20, 16)), "BMP"),
        "palette bmp": saved(few.resize((20, 16)), "BMP"),
        "gif": saved(few, "GIF", save_all=True, append_images=[other], comment=b"hey", transparency=3),
    }


VARIED = varied()
SMALL = decode.Limits(1_000_000, 1_000_000)


def pixels_or_bad_image(file: bytes) -> np.ndarray | None:
    """Decode in both modes and as it is; any other exception than BadImage, and any warning, fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            for mode in decode.Mode:
                row(file, RGB, mode, SMALL)
            return row(file, AS_IT_IS, limits=SMALL)
        except errors.BadImage:
            return None


@pytest.mark.parametrize("name", VARIED)
def test_a_file_cut_anywhere_is_a_bad_image_or_whole(name: str) -> None:
    file = VARIED[name]
    whole = pixels_or_bad_image(file)
    assert whole is not None
    for length in range(len(file)):
        got = pixels_or_bad_image(file[:length])
        assert got is None or np.array_equal(got, whole), f"cut after {length} bytes"


@pytest.mark.parametrize("name", VARIED)
def test_flipped_bytes_are_a_bad_image_or_some_pixels(name: str) -> None:
    chance = random.Random(name)
    outcomes = set()
    for _ in range(400):
        file = bytearray(VARIED[name])
        for _ in range(chance.choice((1, 1, 2, 5, 20))):
            near_start = chance.random() < 0.5
            at = chance.randrange(min(64, len(file)) if near_start else len(file))
            file[at] = chance.choice((0, 255, chance.randrange(256)))
        outcomes.add(pixels_or_bad_image(bytes(file)) is None)
    assert outcomes == {True, False}


def test_damaged_exif_is_an_upright_image() -> None:
    good = Image.Exif()
    good[274] = 8
    block = good.tobytes().removeprefix(b"Exif\0\0")
    assert headers.exif_orientation(block) == 8
    for length in range(len(block)):
        assert headers.exif_orientation(block[:length]) in (1, 8)
    for value in range(256):
        assert 1 <= headers.exif_orientation(block.replace(b"\x08\0\0\0", bytes((value, 0, 0, 0)))) <= 8


def test_the_size_is_what_pillow_reads() -> None:
    for name, file in VARIED.items():
        header = formats.read(file, 0, LIMITS)
        assert (header.width, header.height) == Image.open(io.BytesIO(file)).size, name
