"""Images to decode, and what the tests of this folder ask with them."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn import datasets

from protos import manifest_pb2
from service.images import decode

LIMITS = decode.Limits(image_bytes_max=10_000_000, image_pixels_max=64_000_000)


def spec(
    color: manifest_pb2.Color, size: int = 32, resize_px: int = 0, resize: manifest_pb2.Resize | None = None
) -> decode.ImageSpec:
    return decode.image_spec(
        manifest_pb2.ImageSpec(
            input="image",
            height=size,
            width=size,
            color=color,
            resize=resize or (manifest_pb2.RESIZE_SHORTER_SIDE if resize_px else manifest_pb2.RESIZE_STRETCH),
            resize_px=resize_px,
            interpolation=manifest_pb2.INTERPOLATION_BILINEAR,
            antialias=True,
        )
    )


GRAY, RGB, BGR = (spec(c) for c in (manifest_pb2.COLOR_GRAY, manifest_pb2.COLOR_RGB, manifest_pb2.COLOR_BGR))
IMAGENET = spec(manifest_pb2.COLOR_RGB, 224, 256)
AS_IT_IS = spec(manifest_pb2.COLOR_RGB, 0, resize=manifest_pb2.RESIZE_NONE)


def row(
    file: bytes,
    wanted: decode.ImageSpec,
    mode: decode.Mode = decode.Mode.EXACT,
    limits: decode.Limits = LIMITS,
) -> NDArray[np.uint8]:
    """Decode one file."""
    pixels = np.empty(decode.row_shape([file], wanted, limits), np.uint8)
    decode.decode_into(pixels, file, 0, wanted, limits, mode)
    return pixels


def saved(image: Image.Image, name: str, **options: Any) -> bytes:
    """Encode with Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def photo(size: tuple[int, int] | None = None) -> Image.Image:
    """Return a real photo, 640x427 or resized, with the grain that a camera would add."""
    image = Image.fromarray(datasets.load_sample_images().images[0])
    if size is None:
        return image
    pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC)).astype(np.float32)
    grain = np.random.default_rng(0).normal(0, 4, (*pixels.shape[:2], 1)).astype(np.float32)
    return Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Levels between two rows."""
    return np.abs(one.astype(np.int16) - other.astype(np.int16))
