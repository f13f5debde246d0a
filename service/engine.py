"""The one door to the models: what wire knows of everything behind it.

Path: wire → **engine** → images, batching → runtime.

Later front ends run in processes of their own, and this interface becomes a channel; so wire uses
nothing of the models but what is here: descriptions, admission, a place's `submit`, the numbers.
"""

import asyncio
import dataclasses
import enum
import weakref
from collections.abc import Iterable, Mapping

from service import errors, metrics
from service.batching import place
from service.models import description, lifecycle

Caller = place.Caller
Place = place.Place


class State(enum.Enum):
    """Where the server is in its life."""

    STARTING = "starting"
    SERVING = "serving"
    NOT_READY = "draining, but still answering"
    DRAINING = "draining"


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far the loading of a model is: `done` of `all` batch sizes are warm."""

    model: str
    done: int
    all: int


_NEWEST = ""
"""The version that a request without one gets."""


class Engine:
    """The served models, in their versions.

    Mutable state: `state`, `progress` and the models; touched only on the event loop.
    """

    def __init__(self) -> None:
        self.state = State.STARTING
        self.progress: Progress | None = None
        self._models: dict[str, dict[str, description.Description]] = {}
        self._loaded: dict[description.Description, lifecycle.ServedModel] = {}
        """Those that serve, and those that still answer what they admitted."""
        self._gone: weakref.WeakKeyDictionary[description.Description, metrics.ModelMetrics] = (
            weakref.WeakKeyDictionary()
        )
        """Where requests count whose last steps come after the end of their model."""

    @property
    def is_ready(self) -> bool:
        """Whether new work should be sent here."""
        return self.state is State.SERVING

    @property
    def condition(self) -> str:
        """The state in words, with the progress of loading."""
        if self.state is State.STARTING and self.progress is not None:
            now = self.progress
            return f"starting: warming {now.model}, {now.done} of {now.all} batch sizes"
        return self.state.value

    def serve(self, name: str, models: Iterable[lifecycle.ServedModel]) -> list[lifecycle.ServedModel]:
        """Serve these versions of a model from now on, and no others; none: the model is served no longer.

        Returns:
            Those that served until now and do so no longer: `retire` them.
        """
        before = self.serving(name)
        now = {model.description.version: model for model in models}
        self._loaded |= {model.description: model for model in now.values()}
        if now:
            versions = {version: now[version].description for version in sorted(now, key=int)}
            self._models[name] = {**versions, _NEWEST: versions[max(now, key=int)]}
        else:
            self._models.pop(name, None)
        return [model for version, model in before.items() if now.get(version) is not model]

    async def retire(self, model: lifecycle.ServedModel) -> None:
        """Let a model that serves no longer answer what it admitted, then end it and free its memory."""
        await model.drain()
        self._gone[model.description] = model.numbers
        del self._loaded[model.description]
        await asyncio.to_thread(model.close)

    def serving(self, name: str) -> Mapping[str, lifecycle.ServedModel]:
        """Return what serves of a model: version → model, ascending; empty if nothing does."""
        return {version: self._loaded[one] for version, one in self._models.get(name, {}).items() if version}

    def names(self) -> list[str]:
        """Return the names of the served models, sorted."""
        return sorted(self._models)

    def models(self) -> list[description.Description]:
        """Return the served models in all versions, by name and version."""
        return [model for name in self.names() for model in self.versions(name)]

    def versions(self, name: str) -> list[description.Description]:
        """Return the served versions of a model, ascending.

        Raises:
            ModelNotFound: no such model.
        """
        if name not in self._models:
            raise errors.ModelNotFound(name, "", self._models)
        return [model for version, model in self._models[name].items() if version]

    def model(self, name: str, version: str = _NEWEST) -> description.Description:
        """Return a model; an empty version means the newest one that is served.

        Raises:
            ModelNotFound: no such model or version.
            NotServing: none yet; it may be there when the server has started.
        """
        try:
            return self._models[name][version]
        except KeyError:
            raise self._not_found(name, version) from None

    def _not_found(self, name: str, version: str) -> errors.FoveaError:
        if self.state is State.STARTING:
            return errors.NotServing(self.condition)
        if name in self._models:
            return errors.VersionNotFound(name, version, [model.version for model in self.versions(name)])
        return errors.ModelNotFound(name, version, self._models)

    def numbers(self, model: description.Description) -> metrics.ModelMetrics:
        """Return where a model's requests are counted."""
        loaded = self._loaded.get(model)
        return loaded.numbers if loaded is not None else self._gone[model]

    def admit(self, model: description.Description, samples: int, caller: Caller, *, decode_s: float = 0.0) -> Place:
        """Reserve room for a request before any work is put into it; `submit` of the place runs it.

        Raises:
            BadRequest, QueueFull, TooLate: see Batcher.admit.
            WasReplaced: the model has ended since `model` returned it.
        """
        loaded = self._loaded.get(model)
        if loaded is None:
            raise errors.WasReplaced(model.name)
        return loaded.batcher.admit(samples, caller, decode_s=decode_s)

    def require_serving(self) -> None:
        """Check that new work may be taken.

        Raises:
            NotServing: starting, or draining and past the drain delay.
        """
        if self.state in {State.STARTING, State.DRAINING}:
            raise errors.NotServing(self.condition)

    async def aclose(self) -> None:
        """Run what waits, then end the models' threads."""
        loaded = list(self._loaded.values())
        await asyncio.gather(*(model.drain() for model in loaded))
        for model in loaded:
            model.instances.close()
