"""What is exported: a graph before its passes, what it must compute, and all that is known of it.

Path: sources → **subject** → pipeline.
"""

import dataclasses
from collections.abc import Mapping

import onnx
from torch import nn

from export import errors, options, preprocessing, reference, signature

SIZES_TRIED = ((160, 192), (97, 131), (48, 64))
"""Other heights and widths that a graph for any size is run at; one of them odd, one small enough for goldens."""
USUAL_SIZE = (96, 128)
"""Of a network that has no size of its own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a network besides its graph."""

    name: str
    """Of the model, unless the person says another."""
    origin: str
    """Such as "resnet50", "net.py:build", "model.onnx"."""
    weights_source: str
    weights_sha256: str
    outputs: tuple[str, ...]
    """What the network itself returns."""
    stages: Mapping[str, str]
    parameters: Mapping[str, int]
    """Name → elements, before anything is folded."""
    preprocessing: preprocessing.Preprocessing | None
    """None: a graph whose inputs are not images."""
    network: nn.Module | None
    batch_max: int
    classes: int
    """0 for what is no classifier, or where it is not known."""
    notes: tuple[str, ...] = ()

    @property
    def is_classifier(self) -> bool:
        """Whether it has logits."""
        return signature.LOGITS in self.outputs


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A graph before its passes: float32 (N, C, H, W) in, every stage an output; and what it must compute."""

    facts: Facts
    graph: onnx.ModelProto
    reference: reference.Reference


def usual_size(described: preprocessing.Preprocessing) -> tuple[int, int]:
    """Return the height and width that a network is made and checked at first."""
    return USUAL_SIZE if described.is_any_size else (described.height, described.width)


def normalised(found: preprocessing.Preprocessing, chosen: options.Options) -> preprocessing.Preprocessing:
    """Return the preprocessing with the normalisation and the resizing that the person asked for.

    Raises:
        OptionError: not one number for each channel, or a size below the crop.
    """
    mean, std = chosen.mean or found.mean, chosen.std or found.std
    if len(mean) != found.channels or len(std) != found.channels:
        raise errors.OptionError(
            f"--mean and --std need {found.channels} numbers, one for each channel; got {len(mean)} and {len(std)}"
        )
    if not all(value > 0 for value in std):
        raise errors.OptionError(f"--std is {std}; expected numbers above 0")
    resize_px = found.resize_px if chosen.resize_px is None else chosen.resize_px
    if resize_px and (found.is_any_size or resize_px < max(found.height, found.width)):
        raise errors.OptionError(f"--resize {resize_px} is below the crop of {found.height}x{found.width}")
    return dataclasses.replace(found, mean=mean, std=std, resize_px=resize_px)
