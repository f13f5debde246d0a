"""The one door to the models: what wire knows of everything behind it.

Path: wire → **engine** → images, batching → runtime.

Later front ends run in processes of their own, and this interface becomes a channel; so wire uses
nothing of the models but what is here: descriptions, admission, a place's `submit`, the numbers.
"""

import asyncio
import dataclasses
import enum
from collections.abc import Iterable

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


class Engine:
    """The served models.

    Mutable state: `state`, `progress` and the models; touched only on the event loop.
    """

    def __init__(self) -> None:
        self.state = State.STARTING
        self.progress: Progress | None = None
        self._models: dict[str, lifecycle.ServedModel] = {}

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

    def serve(self, models: Iterable[lifecycle.ServedModel]) -> None:
        """Take the loaded models into service."""
        self._models = {model.description.name: model for model in models}
        self.state = State.SERVING

    def models(self) -> list[description.Description]:
        """Return the served models, by name."""
        return [self._models[name].description for name in sorted(self._models)]

    def model(self, name: str, version: str = "") -> description.Description:
        """Return a model; an empty version means the served one.

        Raises:
            ModelNotFound: no such model or version.
        """
        served = self._models.get(name)
        if served is None or version not in {"", served.description.version}:
            raise errors.ModelNotFound(name, version, self._models)
        return served.description

    def numbers(self, model: description.Description) -> metrics.ModelMetrics:
        """Return where a model's requests are counted."""
        return self._models[model.name].numbers

    def admit(self, model: description.Description, samples: int, caller: Caller, *, decode_s: float = 0.0) -> Place:
        """Reserve room for a request before any work is put into it; `submit` of the place runs it.

        Raises:
            BadRequest, QueueFull, TooLate: see Batcher.admit.
        """
        return self._models[model.name].batcher.admit(samples, caller, decode_s=decode_s)

    def require_serving(self) -> None:
        """Check that new work may be taken.

        Raises:
            NotServing: starting, or draining and past the drain delay.
        """
        if self.state in {State.STARTING, State.DRAINING}:
            raise errors.NotServing(self.condition)

    async def aclose(self) -> None:
        """Run what waits, then end the models' threads."""
        await asyncio.gather(*(model.batcher.aclose() for model in self._models.values()))
        for model in self._models.values():
            model.instances.close()
