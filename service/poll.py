"""Looks at the repository every so often, and loads what has changed once it holds still.

Path: disk → **poll** → control.
"""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Mapping

from service import control, errors
from service.models import repository

log = logging.getLogger(__name__)

Seen = Mapping[str, repository.Look]


@dataclasses.dataclass(frozen=True, slots=True)
class Changes:
    """The models to load, those whose folder has no version left, and those whose folder is gone."""

    load: tuple[str, ...]
    emptied: tuple[str, ...]
    gone: tuple[str, ...]


def changes(handled: Mapping[str, repository.Look | None], before: Seen, now: Seen) -> Changes:
    """Decide what to do. A folder that differs from the look before is still being written: it waits.

    Args:
        handled: each model's folder when it was last loaded or unloaded; None if there was none.
        before: the folders at the look before.
        now: the folders at this look.
    """
    still = [name for name, seen in now.items() if before.get(name) == seen]
    changed = [name for name in still if name not in handled or handled[name] != now[name]]
    load = [name for name in changed if now[name].versions or not handled.get(name)]
    emptied = [name for name in changed if name not in load]
    gone = [name for name, seen in handled.items() if seen is not None and name not in now and name not in before]
    return Changes(tuple(load), tuple(emptied), tuple(gone))


class Poll:
    """The looks, one every `every_s` seconds.

    Mutable state: the last look, why known models could not be read at it, and the task.
    """

    def __init__(self, models: control.Control, every_s: float) -> None:
        self._control = models
        self._every_s = every_s
        self._before: Seen | None = None
        self._unreadable: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Look no more; a load that it has begun goes on."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def look(self) -> None:
        """Look once, and load and unload what has changed and holds still."""
        try:
            now = await self._control.look()
        except errors.RepositoryError as error:
            log.warning("%s", error)
            return
        handled = self._control.seen()
        known: dict[str, repository.Look | None] = {**handled, **(self._before or {})}
        self._say_what_cannot_be_read(now, known)
        # What cannot be read for a while is as it was.
        lasts = {name: last if isinstance(last, repository.Look) else known.get(name) for name, last in now.items()}
        found = {name: seen for name, seen in lasts.items() if seen is not None}
        before, self._before = self._before, found
        if before is not None:
            await self._follow(changes(handled, before, found))

    def _say_what_cannot_be_read(
        self, now: Mapping[str, repository.Look | errors.ModelLoadError], known: Mapping[str, repository.Look | None]
    ) -> None:
        """Once for each reason, not at every look; of what never was a model, nothing."""
        reasons = {
            name: last.reason for name, last in now.items() if not isinstance(last, repository.Look) and known.get(name)
        }
        for name, reason in reasons.items():
            if self._unreadable.get(name) != reason:
                log.warning("model %s: %s; it stays as it is: put the folder back, or remove it", name, reason)
        self._unreadable = reasons

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:  # a look that fails is not the last one
                log.exception("the look at the repository failed; the next one is in %g s", self._every_s)
            await asyncio.sleep(self._every_s)

    async def _follow(self, found: Changes) -> None:
        for name in found.load:
            log.info("model %s: its folder has changed", name)
            with contextlib.suppress(errors.FoveaError):  # in the index and the log
                await self._control.load(name)
        for name in found.emptied:
            log.info("model %s: its folder has no version any more", name)
            await self._end_or_load(name)
        for name in found.gone:
            log.info("model %s: its folder is gone", name)
            with contextlib.suppress(errors.ModelNotFound):  # it did not serve
                await self._control.unload(name)
            self._control.forget(name)

    async def _end_or_load(self, name: str) -> None:
        """Unload a model that has nothing left to serve; one that did not serve is loaded, which says what is wrong."""
        try:
            await self._control.unload(name)
        except errors.ModelNotFound:
            with contextlib.suppress(errors.FoveaError):  # in the index and the log
                await self._control.load(name)
        except errors.FoveaError as error:  # the server is ending
            log.info("model %s: not unloaded: %s", name, error)
