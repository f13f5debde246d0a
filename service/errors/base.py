"""The root of the tree, and words that many messages share."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the nearest known name, or ""."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def path(field: str, name: str) -> str:
    """Return the path of a named part of a request, such as `inputs["image"]`."""
    return f'{field}["{name}"]'


class FoveaError(Exception):
    """Base of everything that is explained to a person."""
