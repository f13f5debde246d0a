"""The one door to the models: what wire knows of everything behind it.

Path: wire → **engine** → batching → runtime.

Later front ends run in processes of their own, and this interface becomes a channel; so wire uses
nothing of the models but what is here.
"""

import asyncio
import enum
import logging
from collections.abc import Iterable

from service import errors
from service.models import lifecycle

log = logging.getLogger(__name__)


class State(enum.Enum):
    """Where the server is in its life."""

    STARTING = "starting"
    SERVING = "serving"
    NOT_READY = "draining, but still answering"
    DRAINING = "draining"


class Engine:
    """The served models.

    Mutable state: `state` and the models; touched only on the event loop.
    """

    def __init__(self) -> None:
        self.state = State.STARTING
        self._models: dict[str, lifecycle.ServedModel] = {}

    @property
    def is_ready(self) -> bool:
        """Whether new work should be sent here."""
        return self.state is State.SERVING

    def serve(self, models: Iterable[lifecycle.ServedModel]) -> None:
        """Take the loaded models into service."""
        self._models = {model.name: model for model in models}
        self.state = State.SERVING

    def models(self) -> list[lifecycle.ServedModel]:
        """Return the served models, by name."""
        return [self._models[name] for name in sorted(self._models)]

    def model(self, name: str, version: str = "") -> lifecycle.ServedModel:
        """Return a model; an empty version means the served one.

        Raises:
            ModelNotFound: no such model or version.
        """
        model = self._models.get(name)
        if model is None or version not in {"", model.version}:
            raise errors.ModelNotFound(name, version, self._models)
        return model

    def require_serving(self) -> None:
        """Check that new work may be taken.

        Raises:
            NotServing: starting, or draining and past the drain delay.
        """
        if self.state in {State.STARTING, State.DRAINING}:
            raise errors.NotServing(self.state.value)

    async def aclose(self) -> None:
        """Run what waits, then end the models' threads."""
        await asyncio.gather(*(model.batcher.aclose() for model in self._models.values()))
        for model in self._models.values():
            model.session.close()
