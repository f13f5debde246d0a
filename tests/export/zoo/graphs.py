"""Convolutions and banks as exported graphs in ONNX Runtime, each exported once for all tests.

Kernels are inputs of the graph, so that one graph serves any values; number and size of images and
channels are dynamic, the size of the kernel is not.
"""

import functools
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from export import runtime, signature, tapped, trace, zoo

Array = NDArray[np.float32]

VALID, SAME, FULL = "valid", "same", "full"


class Correlation(nn.Module):
    """Images (N, L, H, W) and kernels (I, L, M, N) to maps (N, I, H', W'); the pads are explicit zeros."""

    def __init__(self, stride: int, pads: Sequence[int]) -> None:
        super().__init__()
        self.stride, self.pads = stride, list(pads)

    def forward(self, images: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.pad(images, self.pads), kernels, stride=self.stride)


class Correlation1d(nn.Module):
    """Signals (N, L, W) and kernels (I, L, N) to (N, I, W'), valid."""

    def forward(self, images: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
        return F.conv1d(images, kernels)


class Pooled(nn.Module):
    """The largest of |maps| over size_px x size_px neighbours, at every pixel: invariance without subsampling."""

    def __init__(self, size_px: int) -> None:
        super().__init__()
        self.size_px = size_px

    def forward(self, images: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(F.conv2d(images, kernels).abs(), self.size_px, stride=1)


def pads(kernel_hw: tuple[int, int], padding: str) -> list[int]:
    """(left, right, top, bottom); an even kernel's odd pixel goes to the right and the bottom, as in SAME_UPPER."""
    height, width = kernel_hw
    if padding == SAME:
        return [(width - 1) // 2, width // 2, (height - 1) // 2, height // 2]
    return [width - 1, width - 1, height - 1, height - 1] if padding == FULL else [0, 0, 0, 0]


def correlate(images: Array, kernels: Array, padding: str = VALID, stride: int = 1) -> Array:
    """Run the exported cross-correlation of images (N, L, H, W) with kernels (I, L, M, N)."""
    return _run(_correlation(kernels.shape[2:], stride, padding), images, kernels)


def correlate1d(signals: Array, kernels: Array) -> Array:
    """Run the exported valid cross-correlation of signals (N, L, W) with kernels (I, L, N)."""
    return _run(_correlation1d(kernels.shape[-1]), signals, kernels)


def pooled(images: Array, kernels: Array, size_px: int) -> Array:
    """Run the exported convolution with maximum pooling at stride 1."""
    return _run(_pooled(kernels.shape[2:], size_px), images, kernels)


def bank(name: str, images: Array) -> Mapping[str, Array]:
    """Run an exported bank of filters of the zoo."""
    return _bank(name).run({signature.INPUT: images})


def _run(session: runtime.Session, images: Array, kernels: Array) -> Array:
    maps: Array = session.run({"images": images, "kernels": kernels})["maps"]
    return maps


@functools.cache
def _correlation(kernel_hw: tuple[int, int], stride: int, padding: str) -> runtime.Session:
    return _exported(Correlation(stride, pads(kernel_hw, padding)), kernel_hw)


@functools.cache
def _correlation1d(kernel_px: int) -> runtime.Session:
    return _exported(Correlation1d(), (kernel_px,))


@functools.cache
def _pooled(kernel_hw: tuple[int, int], size_px: int) -> runtime.Session:
    return _exported(Pooled(size_px), kernel_hw)


@functools.cache
def _bank(name: str) -> runtime.Session:
    architecture = zoo.find(name)
    network = tapped.Tapped(architecture.build(architecture.classes), {})
    return runtime.Session(trace.trace(network, (1, 24, 20), architecture.outputs, is_any_size=True), threads=1)


def _exported(network: nn.Module, kernel_size: tuple[int, ...]) -> runtime.Session:
    sides = {axis: name for axis, name in zip((2, 3), ("height", "width"), strict=False) if axis < 2 + len(kernel_size)}
    example = (torch.zeros((2, 3, *(15,) * len(kernel_size))), torch.zeros((4, 3, *kernel_size)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.onnx warns of its own internals
        program = torch.onnx.export(
            network.eval(),
            example,
            dynamo=True,
            opset_version=trace.OPSET,
            input_names=["images", "kernels"],
            output_names=["maps"],
            dynamic_shapes=({0: "batch", 1: "channels", **sides}, {0: "maps", 1: "channels"}),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return runtime.Session(program.model_proto, threads=1)
