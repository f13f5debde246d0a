"""The networks that can be exported by name: one family per file, one line each in `ZOO`."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from export import errors
from protos import manifest_pb2

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True, slots=True)
class Architecture:
    """What the export has to know of a network.

    `mean` and `std` are per channel, of pixels scaled to 0..1; `first_conv` is the dotted name of the
    convolution that takes the image, into which the scale is folded.
    """

    name: str
    build: Callable[[int], "nn.Module"]
    classes: int
    first_conv: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image: manifest_pb2.ImageSpec
    weights: str
    """The weights taken when none are named."""


def _lenet5(classes: int) -> "nn.Module":
    from export.zoo import lenet  # noqa: PLC0415 - loads torch; the names are wanted without it

    return lenet.LeNet5(classes)


ZOO = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            name="lenet5",
            build=_lenet5,
            classes=10,
            first_conv="c1",
            mean=(0.1307,),
            std=(0.3081,),
            image=manifest_pb2.ImageSpec(
                input="image",
                height=32,
                width=32,
                color=manifest_pb2.COLOR_GRAY,
                resize=manifest_pb2.RESIZE_STRETCH,
                interpolation=manifest_pb2.INTERPOLATION_BILINEAR,
                antialias=True,
            ),
            weights="digits",
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
