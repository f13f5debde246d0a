"""Many image files: which they are, and a bounded number of them under way at once.

Path: places → **files** → Client.classify, file by file.
"""

import asyncio
import itertools
import pathlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

Outcome = TypeVar("Outcome")
Place = str | pathlib.Path

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})
"""Of files that a folder is searched for; a file that is named itself may have any."""


def images(places: Place | Iterable[Place]) -> list[pathlib.Path]:
    """Return files as they are, and for a folder all image files in it and in the folders in it, by name.

    A file that is not there stays in the list: reading it tells.
    """
    named = [places] if isinstance(places, str | pathlib.Path) else places
    return [path for place in named for path in _images(pathlib.Path(place))]


def _images(place: pathlib.Path) -> list[pathlib.Path]:
    if not place.is_dir():
        return [place]
    return sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


async def each(
    paths: Iterable[pathlib.Path], ask: Callable[[pathlib.Path], Coroutine[Any, Any, Outcome]], in_flight: int
) -> AsyncIterator[tuple[pathlib.Path, Outcome]]:
    """Yield what `ask` says of each path, as soon as it is known; `in_flight` are asked at once.

    Raises:
        Exception: what `ask` raised; the others are given up.
    """
    remaining = iter(paths)
    asked: dict[asyncio.Task[Outcome], pathlib.Path] = {}
    try:
        while True:
            for path in itertools.islice(remaining, in_flight - len(asked)):
                asked[asyncio.create_task(ask(path))] = path
            if not asked:
                return
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield asked.pop(task), task.result()
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
