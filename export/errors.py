"""Every error of the export that is explained to somebody.

ExportError
├── UnknownArchitecture
├── UnknownStage         no such part of the network to let out
├── UnsupportedClasses   the network cannot have that number of classes
├── UnsupportedNetwork   a user's network or graph that cannot be exported
├── OptionError          options that contradict each other or the network
├── FilterError          a filter that cannot exist on a pixel grid
├── WeightsError         weights that cannot be read, or do not fit
│   ├── WeightsMismatch  names, shapes or kinds that are not the network's
│   └── DownloadError    weights that cannot be fetched
├── ImageError           images that cannot be read
├── VerificationError    the graph does not compute what PyTorch computes, or is not what is promised
└── RepositoryError      the bundle cannot be written, or the repository not read
"""

import difflib
from collections.abc import Iterable, Sequence


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the nearest known name, or ""."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f" (did you mean {near[0]!r}?)" if near else ""


class ExportError(Exception):
    """Base of the tree."""


class UnknownArchitecture(ExportError):
    """No such network in the zoo."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        super().__init__(
            f"no architecture {name!r}{nearest(name, names)}; known: {', '.join(names)}; "
            "or name a file: path/to/file.py:function, model.onnx"
        )
        self.name = name


class UnknownStage(ExportError):
    """No part of that name whose output could be let out."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"features:{stage} cannot be an output: {reason}")
        self.stage = stage


class UnsupportedClasses(ExportError):
    """The network cannot have that number of classes."""


class UnsupportedNetwork(ExportError):
    """A network or graph that cannot be exported as it is."""


class OptionError(ExportError):
    """Options that contradict each other, or that this network does not have."""


class FilterError(ExportError):
    """A filter that cannot exist on a pixel grid."""


class WeightsError(ExportError):
    """Weights that cannot be read, or do not fit the network."""


class WeightsMismatch(WeightsError):
    """Names, shapes or kinds of the tensors are not the network's."""

    def __init__(self, source: str, problems: Sequence[str], hint: str = "") -> None:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(f"weights {source} do not fit the network:{listed}" + (f"\n{hint}" if hint else ""))
        self.problems = tuple(problems)


class DownloadError(WeightsError):
    """Weights that cannot be fetched. `may_pass` says whether trying again may help."""

    def __init__(self, url: str, reason: str, *, may_pass: bool = False) -> None:
        super().__init__(
            f"{url} cannot be downloaded: {reason}. "
            "The file may also be fetched by other means (--weights FILE), or done without (--weights random)"
        )
        self.url = url
        self.reason = reason
        self.may_pass = may_pass


class ImageError(ExportError):
    """An image, or a folder of them, that cannot be read."""


class VerificationError(ExportError):
    """The exported graph is not what it must be. Nothing was written."""

    def __init__(self, violations: Sequence[str]) -> None:
        listed = "".join(f"\n  - {violation}" for violation in violations)
        super().__init__(f"the exported graph fails its verification; nothing was written:{listed}")
        self.violations = tuple(violations)


class RepositoryError(ExportError):
    """The bundle cannot be written where it was asked for, or the repository cannot be read."""
