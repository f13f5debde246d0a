"""One image to one row: formats, limits, damage, geometry."""

import asyncio
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from protos import manifest_pb2
from service import errors
from service.images import decode, pool
from tests.conftest import encoded

LIMITS = decode.Limits(image_bytes_max=10_000_000, image_pixels_max=64_000_000)


def spec(color: int, size: int = 32, resize_px: int = 0) -> decode.ImageSpec:
    return decode.image_spec(
        manifest_pb2.ImageSpec(
            input="image",
            height=size,
            width=size,
            color=color,
            resize=manifest_pb2.RESIZE_SHORTER_SIDE if resize_px else manifest_pb2.RESIZE_STRETCH,
            resize_px=resize_px,
            interpolation=manifest_pb2.INTERPOLATION_BILINEAR,
            antialias=True,
        )
    )


GRAY, RGB, BGR = (spec(c) for c in (manifest_pb2.COLOR_GRAY, manifest_pb2.COLOR_RGB, manifest_pb2.COLOR_BGR))


def row(file: bytes, wanted: decode.ImageSpec) -> np.ndarray:
    pixels = np.empty(wanted.row_shape, np.uint8)
    decode.decode_into(pixels, file, 0, wanted, LIMITS)
    return pixels


def test_a_png_of_the_right_size_comes_through_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert np.array_equal(row(encoded(pixels, "PNG"), RGB), pixels)
    assert np.array_equal(row(encoded(pixels, "PNG"), BGR), pixels[:, :, ::-1])
    assert np.array_equal(row(encoded(pixels[:, :, 0], "PNG"), GRAY)[:, :, 0], pixels[:, :, 0])


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    pixels = np.full((32, 32), 40_000, np.uint16)
    assert np.all(row(encoded(pixels, "PNG"), GRAY) == 40_000 >> 8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_png_mode_becomes_grey_and_rgb(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (40, 30), 1 if mode in "1LP" else None).save(buffer, "PNG")
    assert row(buffer.getvalue(), GRAY).shape == (32, 32, 1)
    assert row(buffer.getvalue(), RGB).shape == (32, 32, 3)


def test_a_real_photo_as_jpeg_is_resized_and_cropped_as_pillow_does() -> None:
    photo = Image.fromarray(datasets.load_sample_images().images[0])  # 640x427
    file = encoded(np.asarray(photo), "JPEG", quality=95)
    wanted = Image.open(io.BytesIO(file)).resize((383, 256), Image.Resampling.BILINEAR).crop((80, 16, 304, 240))
    got = row(file, spec(manifest_pb2.COLOR_RGB, 224, 256))
    assert np.array_equal(got, np.asarray(wanted))


NOISE = np.random.default_rng(0).integers(0, 256, (99, 99), np.uint8)


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        (b"", r"0 bytes that begin with b'' are not a readable PNG or JPEG"),
        (b"hello, I am a text file", r"begin with b'hello, I' are not a readable PNG or JPEG"),
        (encoded(np.eye(32, dtype=np.uint8), "PNG")[:-30], r"the PNG data is damaged"),
        (encoded(NOISE, "JPEG")[:-2000], r"the JPEG data is damaged"),
        (png_header(30_000, 30_000), r"30000x30000 pixels; the limit is 64000000 in all; resize it"),
        (b"x" * 10_000_001, r"10000001 bytes; the limit is 10000000"),
    ],
    ids=["empty", "text", "truncated png", "truncated jpeg", "bomb", "too many bytes"],
)
def test_bad_files_say_what_is_wrong_and_what_to_do(file: bytes, sentence: str) -> None:
    with pytest.raises(errors.BadImage, match=sentence):
        row(file, GRAY)


def test_an_incomplete_spec_is_refused() -> None:
    with pytest.raises(ValueError, match="no color"):
        decode.image_spec(manifest_pb2.ImageSpec(input="image", height=32, width=32))


async def test_the_pool_fails_the_bad_image_and_serves_its_neighbours() -> None:
    decoders = pool.DecodePool(2, LIMITS)
    good = [encoded(np.full((32, 32), value, np.uint8), "PNG") for value in range(5)]
    answers = await asyncio.gather(
        decoders.decode(good, GRAY),
        decoders.decode([good[0], b"nonsense"], GRAY),
        decoders.decode(good[3:], GRAY),
        return_exceptions=True,
    )
    assert [int(image[0, 0, 0]) for image in answers[0].rows_nhwc] == [0, 1, 2, 3, 4]
    assert isinstance(answers[1], errors.BadImage)
    assert answers[1].index == 1
    assert [int(image[0, 0, 0]) for image in answers[2].rows_nhwc] == [3, 4]
    decoders.close()
