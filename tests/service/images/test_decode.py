"""One image to one row: every kind of file, its colours and its geometry, in exact mode."""

import importlib
import io
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from protos import manifest_pb2
from service import errors
from service.images import decode
from tests import oracle
from tests.conftest import encoded
from tests.service.images import samples
from tests.service.images.samples import BGR, GRAY, IMAGENET, LIMITS, RGB, row, saved

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def test_a_png_of_the_right_size_comes_through_unchanged() -> None:
    assert np.array_equal(row(encoded(PIXELS, "PNG"), RGB), PIXELS)
    assert np.array_equal(row(encoded(PIXELS, "PNG"), BGR), PIXELS[:, :, ::-1])
    assert np.array_equal(row(encoded(PIXELS[:, :, 0], "PNG"), GRAY)[:, :, 0], PIXELS[:, :, 0])


@pytest.mark.parametrize("name", ["BMP", "WEBP", "GIF"])
def test_the_other_formats_without_loss_too(name: str) -> None:
    assert np.array_equal(row(saved(few_colours(), name, lossless=True), RGB), np.asarray(few_colours().convert("RGB")))


def few_colours() -> Image.Image:
    return Image.fromarray(PIXELS).quantize(200, dither=Image.Dither.NONE)


def png_16_bit(pixels: NDArray[np.uint16], colour_type: int) -> bytes:
    """Pillow writes no 16-bit colour: made here. `pixels` (H, W, C)."""
    height, width, channels = pixels.shape
    lines = pixels.astype(">u2").reshape(height, width * channels)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0),
        b"IDAT": zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines)),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks.items()
    )


@pytest.mark.parametrize(("channels", "colour_type"), [(1, 0), (2, 4), (3, 2), (4, 6)])
def test_16_bit_channels_lose_their_lower_byte_and_are_not_clipped(channels: int, colour_type: int) -> None:
    deep = np.random.default_rng(1).integers(0, 2**16, (32, 32, channels), np.uint16)
    got = row(png_16_bit(deep, colour_type), RGB)
    wanted = (deep >> 8).astype(np.uint8)[:, :, : 3 if channels > 2 else 1]
    assert np.array_equal(got, np.broadcast_to(wanted, got.shape))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_png_mode_becomes_grey_and_rgb_as_pillow_converts_it(mode: str) -> None:
    image = Image.fromarray(PIXELS).convert(mode)
    assert np.array_equal(row(saved(image, "PNG"), GRAY)[:, :, 0], np.asarray(image.convert("L")))
    assert np.array_equal(row(saved(image, "PNG"), RGB), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(("name", "transparency"), [("PNG", 3), ("PNG", bytes(range(200))), ("GIF", 3)])
def test_transparency_of_a_palette_is_dropped_and_the_colour_stays(name: str, transparency: bytes | int) -> None:
    file = saved(few_colours(), name, transparency=transparency)
    assert np.array_equal(row(file, RGB), np.asarray(few_colours().convert("RGB")))


def test_alpha_is_dropped_and_the_colour_below_stays() -> None:
    image = Image.fromarray(np.dstack([PIXELS, np.zeros((32, 32), np.uint8)]))
    for file in (saved(image, "PNG"), saved(image, "WEBP", lossless=True, exact=True)):
        assert np.array_equal(row(file, RGB), PIXELS)


def interlaced(lines_hw: NDArray[np.uint8]) -> bytes:
    """Pillow writes no interlaced PNG: Adam7's seven passes, made here."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    body = b"".join(
        b"".join(b"\0" + line.tobytes() for line in lines_hw[top::down, left::across])
        for top, left, down, across in passes
    )
    header = struct.pack(">IIBBBBB", *lines_hw.shape[::-1], 8, 0, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))
        for name, part in ((b"IHDR", header), (b"IDAT", zlib.compress(body)), (b"IEND", b""))
    )


def test_an_interlaced_png_is_read() -> None:
    assert np.array_equal(row(interlaced(PIXELS[:, :, 0]), GRAY)[:, :, 0], PIXELS[:, :, 0])


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
def test_every_kind_of_jpeg_is_what_pillow_makes_of_it(mode: str, progressive: bool) -> None:
    file = saved(samples.photo().convert(mode), "JPEG", progressive=progressive)
    assert np.array_equal(row(file, IMAGENET), torchvisions(Image.open(io.BytesIO(file)).convert("RGB")))


def test_cmyk_is_inverted_as_adobe_writes_it() -> None:
    file = saved(Image.new("CMYK", (32, 32), (0, 0, 0, 0)), "JPEG")  # no ink
    assert row(file, RGB).min() > 250


def torchvisions(image: Image.Image) -> NDArray[np.uint8]:
    oracle.torchvision_models()  # makes torchvision importable
    transforms = importlib.import_module("torchvision.transforms")
    return np.asarray(transforms.CenterCrop(224)(transforms.Resize(256)(image)))


@pytest.mark.parametrize("size", [(640, 427), (427, 640), (257, 255), (256, 256), (40, 30), (1023, 300)])
def test_rows_equal_torchvisions_preprocessing(size: tuple[int, int]) -> None:
    file = saved(samples.photo(size), "JPEG")
    assert np.array_equal(row(file, IMAGENET), torchvisions(Image.open(io.BytesIO(file))))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_turns_the_image(name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    file = saved(samples.photo((300, 200)), name, exif=exif)
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    assert np.array_equal(row(file, IMAGENET), torchvisions(wanted))
    assert np.array_equal(row(file, samples.AS_IT_IS), np.asarray(wanted))


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "MPO"])
def test_of_several_images_the_first_is_taken(name: str) -> None:
    first, second = Image.new("RGB", (32, 32), (255, 0, 0)), Image.new("RGB", (32, 32), (0, 0, 255))
    got = row(saved(first, name, save_all=True, append_images=[second]), RGB)
    assert np.all(samples.difference(got, np.asarray(first)) <= 3)


def test_a_frame_smaller_than_its_gif_is_put_in_its_place() -> None:
    frame = Image.new("P", (8, 8), 1)
    frame.putpalette([0, 0, 0, 255, 255, 255])
    file = bytearray(saved(frame, "GIF", optimize=False))
    screen, corner = struct.pack("<HH", 32, 32), struct.pack("<HH", 16, 8)
    at = file.index(b",\0\0\0\0")
    file[6:10], file[at + 1 : at + 5] = screen, corner
    got = row(bytes(file), GRAY)[:, :, 0]
    assert np.all(got[8:16, 16:24] == 255)
    assert got.sum() == 64 * 255


def test_a_resized_image_over_the_pixel_limit_is_never_made_and_its_crop_is_the_same() -> None:
    file = saved(samples.photo((1200, 60)), "PNG")  # resized to 5120x256
    tight = decode.Limits(10_000_000, 100_000)
    assert samples.difference(row(file, IMAGENET, limits=tight), row(file, IMAGENET)).max() <= 1


def test_an_incomplete_spec_is_refused() -> None:
    with pytest.raises(ValueError, match="no color"):
        decode.image_spec(manifest_pb2.ImageSpec(input="image", height=32, width=32))


def test_images_that_keep_their_size_must_agree() -> None:
    files = [saved(Image.new("RGB", size), "PNG") for size in ((9, 5), (5, 9))]
    assert decode.row_shape(files[:1], samples.AS_IT_IS, LIMITS) == (5, 9, 3)
    with pytest.raises(errors.BadImage, match="image 1: the image is 5x9 pixels and the request's first is 9x5"):
        decode.row_shape(files, samples.AS_IT_IS, LIMITS)


def test_images_that_keep_their_size_may_have_as_many_pixels_together_as_one_may_have() -> None:
    files = [saved(Image.new("RGB", (9, 5)), "PNG")] * 3
    assert decode.row_shape(files, samples.AS_IT_IS, decode.Limits(2**20, 3 * 45)) == (5, 9, 3)
    with pytest.raises(errors.BadImage, match=r"image 2: with it the request has 135 pixels; .* may have 134 together"):
        decode.row_shape(files, samples.AS_IT_IS, decode.Limits(2**20, 3 * 45 - 1))
    assert decode.row_shape(files, RGB, decode.Limits(2**20, 45)) == RGB.row_shape, "these become small rows"
