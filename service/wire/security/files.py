"""Whether files have changed, also behind links as Kubernetes swaps them.

Path: certificates, tokens → **files**.
"""

import pathlib
from collections.abc import Iterable

Stamp = tuple[tuple[int, int, int] | None, ...]
"""Inode, size and time of each file; None for one that is not there."""


def stamp(paths: Iterable[pathlib.Path]) -> Stamp:
    """Return what changes when a file behind one of the paths does: written, replaced, or another link target."""
    return tuple(map(_of, paths))


def _of(path: pathlib.Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def text(path: pathlib.Path) -> str:
    """Return a file's text.

    Raises:
        ValueError: it cannot be read, or is not text; the message says why, without the path.
    """
    try:
        return path.read_text()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError("is not text") from error
