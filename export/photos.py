"""Images for checking, calibrating and looking at: files of a folder, photos and digits that packages ship.

Path: disk → **photos** → verify, precision, inspection.

`fit` is the server's exact preprocessing, written once more because export and service share no code;
a test holds both against each other.
"""

import pathlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from export import errors
from protos import manifest_pb2

SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})

_MODES = {manifest_pb2.COLOR_GRAY: "L", manifest_pb2.COLOR_RGB: "RGB", manifest_pb2.COLOR_BGR: "RGB"}
_FILTERS = {
    manifest_pb2.INTERPOLATION_BILINEAR: Image.Resampling.BILINEAR,
    manifest_pb2.INTERPOLATION_BICUBIC: Image.Resampling.BICUBIC,
}


def read(path: pathlib.Path) -> Image.Image:
    """Return the image in a file, decoded.

    Raises:
        ImageError: it is not there, or no image that can be decoded.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise errors.ImageError(f"{path} is not an image that can be read ({error}); expected a PNG or JPEG") from error


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the PNG and JPEG files below a folder, in order of their paths.

    Raises:
        ImageError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise errors.ImageError(f"{folder} is not a folder; expected one with PNG or JPEG files in it")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise errors.ImageError(f"{folder} holds no image; expected PNG or JPEG files in it or below it")
    return found


def fit(image: Image.Image, spec: manifest_pb2.ImageSpec) -> NDArray[np.uint8]:
    """Return an image as the model's row: (H, W, C) uint8, in the colours, size and crop of the spec."""
    mode = _MODES[spec.color]
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    fitted = _sized(image.convert(mode), spec)
    row_hwc = np.asarray(fitted).reshape(fitted.height, fitted.width, 1 if mode == "L" else 3)
    return np.ascontiguousarray(row_hwc[..., ::-1]) if spec.color == manifest_pb2.COLOR_BGR else row_hwc


def _sized(image: Image.Image, spec: manifest_pb2.ImageSpec) -> Image.Image:
    if spec.resize == manifest_pb2.RESIZE_NONE:
        return image
    size = (spec.width, spec.height)
    if spec.resize == manifest_pb2.RESIZE_STRETCH:
        return image if image.size == size else image.resize(size, _FILTERS[spec.interpolation])
    # The longer side is truncated and the crop rounded, as torchvision's Resize and CenterCrop do.
    shorter = min(image.size)
    scaled = tuple(max(spec.resize_px, int(side * spec.resize_px / shorter)) for side in image.size)
    if image.size != scaled:
        image = image.resize((scaled[0], scaled[1]), _FILTERS[spec.interpolation])
    left, top = round((image.width - size[0]) / 2), round((image.height - size[1]) / 2)
    return image.crop((left, top, left + size[0], top + size[1]))


def real(shape_hwc: tuple[int, int, int], count: int) -> NDArray[np.uint8]:
    """Return real images of any size: (count, H, W, C) uint8, C of 1 or 3; always the same ones.

    Digits for one channel at 32x32, else crops of scikit-learn's two photos (a temple, a flower) at
    several scales, every second one mirrored.
    """
    height, width, channels = shape_hwc
    if shape_hwc == (32, 32, 1):
        from export import digits  # noqa: PLC0415 - loads torch and scikit-learn

        return digits.load()[1].images_nhwc[:count]
    rows = (_as_array(crop, channels) for crop in _crops((width, height)))
    return np.stack([next(rows) for _ in range(count)])


def _as_array(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(image.height, image.width, channels)


def _crops(size: tuple[int, int]) -> Iterator[Image.Image]:
    """Yield crops without end, of the two photos in turn."""
    from sklearn import datasets  # noqa: PLC0415 - slow to load, and used only here

    photos = [Image.fromarray(pixels) for pixels in datasets.load_sample_images().images]
    random = np.random.default_rng(0)
    number = 0
    while True:
        photo = photos[number % len(photos)]
        share = random.uniform(0.4, 1.0) * min(photo.width / size[0], photo.height / size[1])
        box_width, box_height = share * size[0], share * size[1]
        left, top = random.uniform(0, photo.width - box_width), random.uniform(0, photo.height - box_height)
        box = (left, top, left + box_width, top + box_height)
        crop = photo.resize(size, Image.Resampling.BILINEAR, box=box)
        yield crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 4 >= 2 else crop
        number += 1
