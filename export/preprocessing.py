"""How an image becomes a network's input. It belongs to the weights, not to the architecture.

Path: zoo, weights → **preprocessing** → front (into the graph), bundle (into the manifest), photos.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protos import manifest_pb2

PIXEL_MAX = 255


@dataclasses.dataclass(frozen=True, slots=True)
class Affine:
    """Per channel, what stands between the graph's input and the network's: (x - offset) * scale."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    @property
    def is_identity(self) -> bool:
        """Whether nothing has to be done."""
        return not any(self.offset) and all(scale == 1 for scale in self.scale)


@dataclasses.dataclass(frozen=True, slots=True)
class Preprocessing:
    """Size, colour and normalisation.

    `mean` and `std` are per channel, of pixels scaled to 0..1, in the order of `color`. A height or
    width of 0 means any: the image keeps its size. `resize_px` is the length of the shorter side before
    the centre crop; 0 means that each side is stretched to its target.

    `transform_input` is torchvision's GoogLeNet option: a second, channel-wise affine map behind the
    normalisation, from ImageNet's mean and deviation to 0.5 and 0.5, which its weights were trained with.
    """

    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    color: manifest_pb2.Color = manifest_pb2.COLOR_RGB
    resize_px: int = 0
    interpolation: manifest_pb2.Interpolation = manifest_pb2.INTERPOLATION_BILINEAR
    transform_input: bool = False

    @property
    def channels(self) -> int:
        """1 for grey images, else 3."""
        return len(self.mean)

    @property
    def is_any_size(self) -> bool:
        """Whether images keep their size."""
        return self.height == 0 or self.width == 0

    def from_pixels(self) -> Affine:
        """Return what takes pixels of 0..255 to the network's input, in float64."""
        second = self.from_normalised()
        offset = [
            PIXEL_MAX * (mean + shift * std)
            for mean, std, shift in zip(self.mean, self.std, second.offset, strict=True)
        ]
        scale = [gain / (PIXEL_MAX * std) for std, gain in zip(self.std, second.scale, strict=True)]
        return Affine(tuple(offset), tuple(scale))

    def from_normalised(self) -> Affine:
        """Return what takes normalised values, (pixel / 255 - mean) / std, to the network's input."""
        if not self.transform_input:
            return Affine((0.0,) * self.channels, (1.0,) * self.channels)
        # x * (std / 0.5) + (mean - 0.5) / 0.5, as torchvision has it, written as (x - offset) * scale.
        offset = [(0.5 - mean) / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
        return Affine(tuple(offset), tuple(std / 0.5 for std in IMAGENET_STD))

    def normalised(self, pixels_nhwc: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (N, H, W, C) pixels as (N, C, H, W) float32, contiguous: (pixel / 255 - mean) / std."""
        values = (pixels_nhwc / PIXEL_MAX - np.array(self.mean)) / np.array(self.std)
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2).astype(np.float32))

    def sentence(self) -> str:
        """Return what is done to an image, for people."""
        size = f"to {self.width}x{self.height}" if not self.is_any_size else "at its own size"
        if self.resize_px:
            size = f"shorter side to {self.resize_px} (bilinear, antialiased), centre crop {self.width}x{self.height}"
        color = manifest_pb2.Color.Name(self.color).removeprefix("COLOR_")
        values = "; ".join(
            f"{name} {', '.join(map(str, kind))}" for name, kind in (("mean", self.mean), ("std", self.std))
        )
        second = "; then GoogLeNet's map to mean 0.5, std 0.5" if self.transform_input else ""
        return f"{color}, {size}; pixels / 255, {values}{second}"

    def spec(self, image_input: str) -> manifest_pb2.ImageSpec:
        """Return what the server has to know to feed encoded images to `image_input`."""
        kind = manifest_pb2.RESIZE_SHORTER_SIDE if self.resize_px else manifest_pb2.RESIZE_STRETCH
        return manifest_pb2.ImageSpec(
            input=image_input,
            height=self.height,
            width=self.width,
            color=self.color,
            resize=manifest_pb2.RESIZE_NONE if self.is_any_size else kind,
            resize_px=self.resize_px,
            interpolation=self.interpolation,
            antialias=True,
        )


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def imagenet(crop_px: int = 224, resize_px: int = 256) -> Preprocessing:
    """Return torchvision's preprocessing for ImageNet weights: shorter side, centre crop, normalised RGB."""
    return Preprocessing(crop_px, crop_px, IMAGENET_MEAN, IMAGENET_STD, resize_px=resize_px)


def plain(shape_chw: Sequence[int]) -> Preprocessing:
    """Return pixels scaled to 0..1 and nothing else, for a network that nothing is known of."""
    channels, height, width = shape_chw
    color = manifest_pb2.COLOR_GRAY if channels == 1 else manifest_pb2.COLOR_RGB
    return Preprocessing(height, width, (0.0,) * channels, (1.0,) * channels, color)
