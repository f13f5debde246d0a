"""The networks that can be exported by name: one family per file, one entry each in `ZOO`.

Path: **zoo** → weights → trace. Importing it loads no torch: the names are wanted without it.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from export import errors, preprocessing
from protos import manifest_pb2

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True, slots=True)
class Published:
    """What the literature says of an architecture at its own size and number of classes; tests check it.

    `macs` are multiply-accumulates of convolutions and matrix products for one image.
    """

    parameters: int
    macs: int
    source: str


@dataclasses.dataclass(frozen=True, slots=True)
class Architecture:
    """What the export has to know of a network.

    `outputs` name what `forward` returns; a classifier has just `logits`, (N, classes), and `classes`
    is 0 for everything else. `stages` name the parts that one would like to look at, in the order of the
    data: name → dotted path of the submodule whose output it is.
    """

    name: str
    build: Callable[[int], "nn.Module"]
    classes: int
    preprocessing: preprocessing.Preprocessing
    stages: Mapping[str, str]
    published: Published | None = None
    outputs: tuple[str, ...] = ("logits",)
    takes_other_sizes: bool = False
    """Whether the graph can be exported for any height and width; it is run at others before it is believed."""
    is_fixed: bool = False
    """Whether nothing in it is learned: a bank of filters has no weights to load."""
    weights: str = "imagenet"
    """The weights taken when none are named: "digits" (trained now), "imagenet" (downloaded), "" (there are none)."""
    batch_max: int = 32
    """The largest batch served, and verified, unless another is asked for."""


def _builder(module: str, name: str, **options: object) -> Callable[[int], "nn.Module"]:
    """Return a builder that imports its family, and with it torch, only when it is called."""

    def build(classes: int) -> "nn.Module":
        network: nn.Module = getattr(importlib.import_module(f"export.zoo.{module}"), name)(classes, **options)
        return network

    return build


_DIGITS = preprocessing.Preprocessing(32, 32, (0.1307,), (0.3081,), manifest_pb2.COLOR_GRAY)

# LeCun et al. 1998, section II.B: background at -0.1 and ink at 1.175, that is (pixel - mean) / std at 0 and 1.
_DIGITS_OF_1998 = preprocessing.Preprocessing(32, 32, (0.1 / 1.275,), (1 / 1.275,), manifest_pb2.COLOR_GRAY)

# Krizhevsky et al. 2012, section 2: pixels less their mean over the training set, not scaled. As in Caffe's
# form, the mean is one number per channel.
_ALEXNET_OF_2012 = preprocessing.Preprocessing(
    227, 227, preprocessing.IMAGENET_MEAN, (1 / preprocessing.PIXEL_MAX,) * 3, resize_px=256
)

_GRAY = preprocessing.Preprocessing(0, 0, (0.0,), (1.0,), manifest_pb2.COLOR_GRAY)
"""Intensities of 0..1 at the image's own size."""


def _same(*names: str) -> dict[str, str]:
    """Return stages that are called as their submodules are."""
    return {name: name for name in names}


def _resnet(depth: int, parameters: int, macs: int) -> Architecture:
    return Architecture(
        name=f"resnet{depth}",
        build=_builder("resnet", "ResNet", depth=depth),
        classes=1000,
        preprocessing=preprocessing.imagenet(),
        stages={"stem": "maxpool", **_same("layer1", "layer2", "layer3", "layer4", "avgpool")},
        published=Published(parameters, macs, f"torchvision 0.28, ResNet{depth}_Weights.IMAGENET1K_V1"),
        takes_other_sizes=True,
    )


ZOO: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            name="lenet5",
            build=_builder("lenet", "LeNet5"),
            classes=10,
            preprocessing=_DIGITS,
            stages=_same("c1", "s2", "c3", "s4", "c5", "f6"),
            published=Published(
                61_706, 416_520, "LeCun et al. 1998, with C3 dense, maximum pooling and a linear output"
            ),
            weights="digits",
            batch_max=64,
        ),
        Architecture(
            name="lenet5-1998",
            build=_builder("lenet", "LeNet5Of1998"),
            classes=10,
            preprocessing=_DIGITS_OF_1998,
            stages=_same("c1", "s2", "c3", "s4", "c5", "f6"),
            published=Published(
                60_000,
                415_680,
                "LeCun et al. 1998, section II.B; MACs are those of C1, C3, C5 and F6, with C3 as the dense "
                "convolution that it is in the graph (240,000; its 60 connections alone are 150,000), without "
                "subsampling and the distances of the output units",
            ),
            weights="digits",
            batch_max=64,
        ),
        Architecture(
            name="alexnet",
            build=_builder("alexnet", "AlexNet"),
            classes=1000,
            preprocessing=preprocessing.imagenet(),
            stages={
                "conv1": "features.1",
                "pool1": "features.2",
                "conv2": "features.4",
                "pool2": "features.5",
                "conv3": "features.7",
                "conv4": "features.9",
                "conv5": "features.11",
                "pool5": "features.12",
                "fc6": "classifier.2",
                "fc7": "classifier.5",
            },
            published=Published(61_100_840, 714_188_480, "torchvision 0.28, AlexNet_Weights.IMAGENET1K_V1"),
        ),
        Architecture(
            name="alexnet-2012",
            build=_builder("alexnet", "AlexNetOf2012"),
            classes=1000,
            preprocessing=_ALEXNET_OF_2012,
            stages={
                "conv1": "features.1",
                "norm1": "features.2",
                "pool1": "features.3",
                "conv2": "features.5",
                "norm2": "features.6",
                "pool2": "features.7",
                "conv3": "features.9",
                "conv4": "features.11",
                "conv5": "features.13",
                "pool5": "features.14",
                "fc6": "classifier.1",
                "fc7": "classifier.4",
            },
            published=Published(60_965_224, 724_406_816, "Krizhevsky et al. 2012, section 3.5, at 227x227"),
            weights="",
        ),
        Architecture(
            name="googlenet",
            build=_builder("googlenet", "GoogLeNet"),
            classes=1000,
            preprocessing=preprocessing.imagenet(),
            stages=_same(
                "conv1",
                "maxpool1",
                "conv2",
                "conv3",
                "maxpool2",
                "inception3a",
                "inception3b",
                "maxpool3",
                *(f"inception4{letter}" for letter in "abcde"),
                "maxpool4",
                "inception5a",
                "inception5b",
                "avgpool",
            ),
            published=Published(
                6_624_904,
                1_498_376_192,
                "torchvision 0.28, GoogLeNet_Weights.IMAGENET1K_V1, less its two auxiliary classifiers",
            ),
            takes_other_sizes=True,
        ),
        _resnet(18, 11_689_512, 1_814_073_344),
        _resnet(34, 21_797_672, 3_663_761_408),
        _resnet(50, 25_557_032, 4_089_184_256),
        _resnet(101, 44_549_160, 7_801_405_440),
        _resnet(152, 60_192_808, 11_513_626_624),
        Architecture(
            name="resnet-digits",
            build=_builder("resnet", "ResNetForDigits"),
            classes=10,
            preprocessing=_DIGITS,
            stages={"stem": "relu", **_same("layer1", "layer2", "layer3", "avgpool")},
            published=Published(77_754, 12_206_720, "our own, after section 4.2 of He et al. 2016"),
            takes_other_sizes=True,
            weights="digits",
            batch_max=64,
        ),
        Architecture(
            name="sobel",
            build=_builder("filters", "Sobel"),
            classes=0,
            preprocessing=_GRAY,
            stages={},
            outputs=("gx", "gy", "magnitude"),
            takes_other_sizes=True,
            is_fixed=True,
        ),
        Architecture(
            name="gabor",
            build=_builder("filters", "Gabor"),
            classes=0,
            preprocessing=_GRAY,
            stages={},
            outputs=("even", "odd", "energy", "pooled"),
            takes_other_sizes=True,
            is_fixed=True,
            batch_max=8,  # 5 MB of outputs for one image of 224x224
        ),
    )
}


def find(name: str) -> Architecture:
    """Return the architecture of that name.

    Raises:
        UnknownArchitecture: names the nearest known one.
    """
    if name not in ZOO:
        raise errors.UnknownArchitecture(name, ZOO)
    return ZOO[name]
