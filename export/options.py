"""What a person asks the export for; plain values, checked once.

Path: cli → **options** → sources, pipeline.
"""

import dataclasses
import pathlib
import re

from export import errors, signature

_TOP = re.compile(r"top([1-9]\d*)")


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """The flags of `fovea export`; see its help. None means: not said."""

    weights: str = ""
    classes: int | None = None
    outputs: tuple[str, ...] = ()
    layout_asked: str | None = None
    """--input: one of `signature.LAYOUTS`."""
    precisions: tuple[str, ...] = ("fp32",)
    calibration: pathlib.Path | None = None
    input_size: tuple[int, int, int] | None = None
    """(C, H, W)."""
    is_any_size: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize_px: int | None = None
    transform_input: bool | None = None
    labels: pathlib.Path | None = None
    batch_max: int | None = None
    seed: int = 0

    @property
    def layout(self) -> str:
        """What a network that takes images gets as its input: bytes, unless floats are asked for."""
        return self.layout_asked or signature.UINT8_NHWC

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages whose feature maps are asked for."""
        return tuple(
            name.removeprefix(signature.FEATURES) for name in self.outputs if name.startswith(signature.FEATURES)
        )

    @property
    def has_probabilities(self) -> bool:
        """Whether the softmax is an output."""
        return signature.PROBABILITIES in self.outputs

    @property
    def tops(self) -> tuple[int, ...]:
        """How many best classes are asked for: 5 for "top5"."""
        return tuple(int(match[1]) for name in self.outputs if (match := _TOP.fullmatch(name)))


def outputs(text: str) -> tuple[str, ...]:
    """Parse --outputs.

    Raises:
        OptionError: a name that is none of those that exist.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        is_features = name.startswith(signature.FEATURES) and len(name) > len(signature.FEATURES)
        if not (name in {signature.LOGITS, signature.PROBABILITIES} or is_features or _TOP.fullmatch(name)):
            raise errors.OptionError(
                f"--outputs has {name!r}{errors.nearest(name, ('probabilities', 'logits', 'top5', 'features:'))}; "
                "expected probabilities, top5 (or another number), features:STAGE, separated by commas; "
                "logits are always there"
            )
    return names


def layout(text: str) -> str:
    """Parse --input.

    Raises:
        OptionError: no such input.
    """
    if text not in signature.LAYOUTS:
        raise errors.OptionError(f"--input is {text!r}; expected {' or '.join(signature.LAYOUTS)}")
    return text


def precisions(text: str) -> tuple[str, ...]:
    """Parse --precision.

    Raises:
        OptionError: a precision that does not exist, or none.
    """
    known = ("fp32", "fp16", "int8")
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise errors.OptionError(f"--precision has {text!r}; expected one or more of {', '.join(known)}")
    return names


def input_size(text: str) -> tuple[int, int, int]:
    """Parse --input-size: "3x224x224" is (3, 224, 224).

    Raises:
        OptionError: not three numbers, or a number of channels that images do not have.
    """
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    sizes = tuple(int(part) for part in match.groups()) if match else ()
    if len(sizes) != 3 or sizes[0] not in {1, 3} or min(sizes) < 1:
        raise errors.OptionError(
            f"--input-size is {text!r}; expected channels (1 or 3), height and width, such as 3x224x224"
        )
    return sizes[0], sizes[1], sizes[2]


def numbers(flag: str, text: str) -> tuple[float, ...]:
    """Parse --mean or --std: "0.485,0.456,0.406".

    Raises:
        OptionError: not numbers.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise errors.OptionError(
            f"{flag} is {text!r}; expected one number for each channel, such as 0.485,0.456,0.406"
        ) from None
