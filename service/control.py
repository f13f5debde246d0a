"""Which models serve, while others are served: loads, replaces and unloads them, one change at a time.

Path: server, wire.repository and the poll → **control** → lifecycle → engine.

A model is loaded, warmed and checked in a thread beside those that serve. Then, in one step on the event
loop, it takes the place of what served before, which answers what it has admitted, and is ended. What
cannot be loaded changes nothing: the versions before go on serving, and the index says why.
"""

import asyncio
import contextlib
import dataclasses
import enum
import logging
import pathlib
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Mapping
from typing import Any

from service import engine, errors, metrics
from service.models import handed, lifecycle, repository, states, versions

log = logging.getLogger(__name__)

Health = Callable[[str, bool], Awaitable[None]]
"""Told of each model whether it serves now."""


class Mode(enum.Enum):
    """When models are loaded and unloaded; Triton's words."""

    NONE = "none"
    POLL = "poll"
    EXPLICIT = "explicit"


@dataclasses.dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of loading: version → model, and version → why not."""

    loaded: dict[str, lifecycle.ServedModel]
    failed: dict[str, errors.ModelLoadError]


class Control:
    """The changes, one after another: they share memory and cores.

    Mutable state: the index; of each model what was loaded last; whether it ends. Touched only on the event
    loop.
    """

    def __init__(
        self, served: engine.Engine, path: pathlib.Path, mode: Mode, numbers: metrics.Metrics, health: Health
    ) -> None:
        self.mode = mode
        self._engine = served
        self._path = path
        self._metrics = numbers
        self._health = health
        self._loader: lifecycle.Loader | None = None
        self._states = states.States()
        self._contents: dict[str, dict[str, Hashable]] = {}
        """Model → version → what of it serves."""
        self._seen: dict[str, repository.Look | None] = {}
        """Model → its folder, as it was before it was last loaded or unloaded; None without one."""
        self._one_change = asyncio.Lock()
        self._changes: set[asyncio.Task[None]] = set()
        self._is_ending = False

    async def start(self, loader: lifecycle.Loader, names: Iterable[str]) -> None:
        """Load models for the first time: all in the repository, or in explicit mode those named; "*" names all.

        Raises:
            RepositoryError: the repository cannot be read; in mode NONE also if it is empty.
            ModelLoadError: in mode NONE, a model cannot be served; those for other devices are left aside, aloud.
        """
        self._loader = dataclasses.replace(loader, progress=self._unless_ending(loader.progress))
        if self.mode is Mode.NONE:
            await self._start_strictly(await asyncio.to_thread(repository.require_models, self._path))
            return
        found = await asyncio.to_thread(repository.names, self._path)
        wanted = found if self.mode is Mode.POLL or "*" in set(names) else list(dict.fromkeys(names))
        for name in wanted:
            with contextlib.suppress(errors.FoveaError):  # logged and in the index; the others are served
                await self.load(name)

    async def _start_strictly(self, names: Iterable[str]) -> None:
        aside = None
        for name in names:
            try:
                await self.load(name)
            except errors.NotForThisDevice as error:
                aside = error
        if aside is not None and not self._engine.names():
            raise aside

    async def load(self, name: str, given: handed.Handed | None = None) -> None:
        """Load a model, or what has changed of it; return when it serves and what served before has ended.

        A caller who goes away meanwhile changes nothing: the load goes on.

        Raises:
            BadRequest: see handed.check.
            NotInRepository: there is no such model.
            ModelLoadError: a version cannot be served; those before go on.
            NotServing: the server is ending.
        """
        given = given or handed.Handed()
        if not repository.is_name(name):  # it becomes a path, and files are written below it
            raise errors.NotInRepository(name, str(self._path), ())
        handed.check(given)
        await self._change(self._load(name, given))

    async def unload(self, name: str) -> None:
        """Serve a model no longer; return when what it admitted is answered and its memory is free.

        Raises:
            ModelNotFound: it is not served.
            NotServing: the server is ending.
        """
        await self._change(self._unload(name))

    async def index(self, *, only_ready: bool) -> list[states.Entry]:
        """Return the state of every model in the repository, and of those loaded by calls.

        Raises:
            RepositoryError: the repository cannot be read.
        """
        on_disk = await asyncio.to_thread(repository.names, self._path)
        return self._states.entries(on_disk, only_ready=only_ready)

    async def look(self) -> dict[str, repository.Look | errors.ModelLoadError]:
        """Look at all models on disk; an error says why one cannot be read now.

        Raises:
            RepositoryError: the repository cannot be read.
        """
        return await asyncio.to_thread(repository.look_at_all, self._path)

    def seen(self) -> dict[str, repository.Look | None]:
        """Return how models' folders were before they were last loaded or unloaded; None: there was none."""
        return dict(self._seen)

    def forget(self, name: str) -> None:
        """Let go of what is known of a model that is gone from disk and does not serve."""
        self._seen.pop(name, None)
        self._contents.pop(name, None)
        self._states.forget(name)
        self._metrics.load_failures.pop(name, None)

    async def aclose(self) -> None:
        """Begin no change any more, and break off the one under way at its next step."""
        self._is_ending = True
        await asyncio.gather(*self._changes, return_exceptions=True)

    async def _change(self, change: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._alone(change))
        self._changes.add(task)
        task.add_done_callback(self._ended)
        await asyncio.shield(task)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._changes.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may be gone; it is in the log

    async def _alone(self, change: Coroutine[Any, Any, None]) -> None:
        try:
            async with self._one_change:
                self._require_going_on()
                await change
        finally:
            change.close()

    def _require_going_on(self) -> None:
        if self._loader is None:
            raise errors.NotServing(engine.State.STARTING.value)
        if self._is_ending:
            raise errors.NotServing(engine.State.DRAINING.value)

    def _unless_ending(self, progress: lifecycle.Progress) -> lifecycle.Progress:
        """Breaks a load off between two batch sizes."""

        def report(model: str, done: int, total: int) -> None:
            self._require_going_on()
            progress(model, done, total)

        return report

    async def _load(self, name: str, given: handed.Handed) -> None:
        before = self._engine.serving(name)
        seen = await asyncio.to_thread(repository.glance, self._path, name)
        with contextlib.ExitStack() as stack:
            try:
                place = self._path
                if given.files:
                    place = await asyncio.to_thread(stack.enter_context, handed.written(name, given))
                choice = await asyncio.to_thread(versions.choose, place, name, given)
            except errors.NotInRepository:
                raise
            except errors.ModelLoadError as error:
                self._seen[name] = seen
                self._failed(name, before, {"": error})
                await self._health(name, bool(before))
                raise
            outcome = await self._bring(name, given, choice, before)
        self._require_going_on()
        self._seen[name] = seen
        await self._replace(name, choice, outcome, before)
        if outcome.failed:
            raise next(iter(outcome.failed.values()))

    async def _bring(
        self, name: str, given: handed.Handed, choice: versions.Choice, before: Mapping[str, lifecycle.ServedModel]
    ) -> _Outcome:
        """Load the versions that are new or have changed."""
        assert self._loader is not None, "no change begins without it"
        outcome = _Outcome({}, {})
        newest = before[max(before, key=int)] if before else None
        for version, folder in choice.folders.items():
            if version in before and self._contents[name].get(version) == choice.contents[version]:
                continue
            self._states.set(name, version, states.State.LOADING)
            measured = before.get(version, newest)
            try:
                outcome.loaded[version] = await asyncio.to_thread(
                    self._loader.load, folder, lifecycle.Given(given.config, measured)
                )
            except errors.ModelLoadError as error:
                outcome.failed[version] = error
            except Exception:  # a mistake of ours must not leave the model between two states
                log.exception("model %s version %s: the load ended in an unexpected error", name, version)
                outcome.failed[version] = errors.ModelLoadError(
                    name, "unexpected error; the server's log has the cause"
                )
        return outcome

    async def _replace(
        self, name: str, choice: versions.Choice, outcome: _Outcome, before: Mapping[str, lifecycle.ServedModel]
    ) -> None:
        """In one step let the versions chosen serve; where one failed, also those that served before."""
        kept = {version: model for version, model in before.items() if outcome.failed or version in choice.folders}
        now = {**kept, **outcome.loaded}
        contents = self._contents.get(name, {})
        for version in outcome.loaded:
            contents = {**contents, version: choice.contents[version]}
        self._contents[name] = {version: contents[version] for version in now}
        replaced = self._engine.serve(name, now.values())
        self._failed(name, now, outcome.failed)
        await self._health(name, bool(now))
        await self._retire(replaced)

    async def _unload(self, name: str) -> None:
        before = self._engine.versions(name)
        seen = await asyncio.to_thread(repository.glance, self._path, name)
        replaced = self._engine.serve(name, ())
        for model in before:
            self._states.set(name, model.version, states.State.UNLOADING)
        self._contents.pop(name, None)
        self._seen[name] = seen
        await self._health(name, False)
        await self._retire(replaced)
        self._states.settle(name, (), {})
        if seen is None:
            self.forget(name)
        log.info("model %s: unloaded", name)

    async def _retire(self, models: Iterable[lifecycle.ServedModel]) -> None:
        for model in models:
            await self._engine.retire(model)

    def _failed(self, name: str, serving: Iterable[str], failed: Mapping[str, errors.ModelLoadError]) -> None:
        """Write the index after a load; what failed is also logged and counted."""
        serving = list(serving)
        self._states.settle(name, serving, {version: str(error) for version, error in failed.items()})
        for error in failed.values():
            if isinstance(error, errors.NotForThisDevice):
                log.warning("%s", error)
                continue
            self._metrics.load_failures[name] += 1
            goes_on = f"; still serving: version {', '.join(serving)}" if serving else ""
            log.error("%s%s", error, goes_on)
