"""The tree of errors as service.errors draws it is the one that there is."""

import re

from service import errors


def walk(kind: type[errors.FoveaError]) -> list[type[errors.FoveaError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in walk(child))]


OURS = [kind for kind in walk(errors.FoveaError) if kind.__module__.startswith("service.")]


def drawn() -> dict[str, tuple[str, str]]:
    """Class → its base and the part of the package that it stands under, as the docstring draws them."""
    found: dict[str, tuple[str, str]] = {}
    above: list[str] = []
    part = ""
    for line in (errors.__doc__ or "").splitlines():
        if named := re.fullmatch(r" {4}│ +(\w+): .*", line):
            part = named[1]
        elif kind := re.match(r" {4}((?:│   |    )*[├└]── )?([A-Z]\w+)(?: {2,}|$)", line):
            depth = len(kind[1] or "") // 4
            above[depth:] = [kind[2]]
            found[kind[2]] = (above[depth - 1] if depth else "Exception", part if depth else "base")
    return found


def test_the_tree_is_drawn_as_it_is() -> None:
    assert drawn() == {
        kind.__name__: (kind.__bases__[0].__name__, kind.__module__.removeprefix("service.errors.")) for kind in OURS
    }


def test_every_error_is_reached_from_the_package() -> None:
    assert {name for name in errors.__all__ if name[0].isupper()} == {kind.__name__ for kind in OURS}
    assert [kind for kind in OURS if getattr(errors, kind.__name__) is not kind] == []
