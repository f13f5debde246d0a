"""Every error of the export that is explained to somebody.

ExportError
├── UnknownArchitecture
├── WeightsError         weights that cannot be read, or do not fit
├── VerificationError    the graph does not compute what PyTorch computes, or is not what is promised
└── RepositoryError      the bundle cannot be written
"""

import difflib
from collections.abc import Iterable, Sequence


class ExportError(Exception):
    """Base of the tree."""


class UnknownArchitecture(ExportError):
    """No such network in the zoo."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        super().__init__(f"no architecture {name!r}{hint}; known: {', '.join(names)}")
        self.name = name


class WeightsError(ExportError):
    """Weights that cannot be read, or do not fit the network."""


class VerificationError(ExportError):
    """The exported graph is not what it must be. Nothing was written."""

    def __init__(self, violations: Sequence[str]) -> None:
        listed = "".join(f"\n  - {violation}" for violation in violations)
        super().__init__(f"the exported graph fails its verification; nothing was written:{listed}")
        self.violations = tuple(violations)


class RepositoryError(ExportError):
    """The bundle cannot be written where it was asked for."""
