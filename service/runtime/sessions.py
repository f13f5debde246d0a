"""A model's sessions: the first, which says what the model is, and as many of so many threads as run it best.

Path: instances → **sessions** → session, trial.
"""

import collections
import logging
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from service import datatypes
from service.runtime import cores, knobs, providers, session, trial

log = logging.getLogger(__name__)


class Network(NamedTuple):
    """A loaded graph without its weights: how many nodes run where, how many of each operator, its tensors."""

    nodes: Mapping[str, int]
    operators: Mapping[str, int]
    inputs: Sequence[datatypes.TensorSpec]
    outputs: Sequence[datatypes.TensorSpec]


class Sessions:
    """The sessions of a model on its device.

    Mutable state: the layout, the first session, and what loading took, until `load` has chosen; touched by the
    loading thread.
    """

    def __init__(
        self,
        model: str,
        path: pathlib.Path,
        options: session.Options,
        wanted: knobs.Knobs,
        before: "Sessions | None" = None,
    ) -> None:
        """Load the first one.

        Args:
            model: its name.
            path: the graph.
            options: provider and threads.
            wanted: what its config asks for.
            before: those of the model as it was loaded before. If this is the same network, perhaps with other
                weights, and nobody says how many instances and threads, what was measured then is taken over.

        Raises:
            ModelLoadError: see session.Session.
        """
        self._model = model
        self._path = path
        self._options = options
        self._wanted = wanted
        self._layout = _layout(options, wanted)
        self._loading_s: dict[int, float] = collections.defaultdict(float)
        self.trial_s = 0.0
        """What the trial of layouts took, beyond loading the sessions that it chose; 0: there was none."""
        likely = self._layout or (before.layout if before is not None else None)
        self._threads_first = likely.threads if likely else cores.available()
        self.first = self._load(self._threads_first)
        placed = self.first.placement
        self.network = Network(placed.nodes, placed.operators, self.first.inputs, self.first.outputs)
        if self._layout is None and before is not None and self.network == before.network:
            self._layout = before.layout

    @property
    def layout(self) -> trial.Candidate:
        """Instances and threads, as chosen."""
        return self._layout or trial.Candidate(1, cores.available())

    def load(self, zeros: trial.Inputs | None, rows_max: int, *, may_share: bool) -> list[session.Session]:
        """Load the others, after measuring how many there should be where nobody has said so; all of them.

        Args:
            zeros: makes inputs; None: there are none to try with.
            rows_max: the model's largest batch.
            may_share: whether instances of one thread do with one session.
        """
        if self._layout is None and zeros is not None:
            return self._try(zeros, rows_max)
        more = 0 if may_share and self.layout.threads == 1 else self.layout.instances - 1
        return [self.first, *(self._load(self.layout.threads) for _ in range(more))]

    def close(self) -> None:
        """Hold the first session no longer."""
        del self.first

    def _load(self, threads: int) -> session.Session:
        options = session.Options(self._options.provider, threads)
        began_s = time.perf_counter()
        loaded = session.Session(self._model, self._path, options, self._wanted)
        self._loading_s[threads] += time.perf_counter() - began_s
        return loaded

    def _try(self, zeros: trial.Inputs, rows_max: int) -> list[session.Session]:
        loaded = {self._threads_first: self.first}

        def load(threads: int) -> session.Session:
            return loaded.pop(threads, None) or self._load(threads)

        first_s, began_s = self._loading_s[self._threads_first], time.perf_counter()
        outcome = trial.choose(cores.available(), load, zeros, rows_max)
        self.trial_s = first_s + time.perf_counter() - began_s - self._loading_s[outcome.chosen.threads]
        self._layout, self.first = outcome.chosen, outcome.sessions[0]
        log.info("model %s: %s threads; measured: %s", self._model, outcome.chosen, outcome.table or "one core")
        return outcome.sessions


def _layout(options: session.Options, wanted: knobs.Knobs) -> trial.Candidate | None:
    """What config and flags say, the config first; None: measure."""
    threads = wanted.threads or options.threads
    if threads or options.provider.name == providers.CUDA or wanted.runs_branches_in_parallel:
        return trial.Candidate(wanted.instances or 1, threads or cores.available())
    if wanted.instances:
        return trial.Candidate(wanted.instances, max(1, cores.available() // wanted.instances))
    return None
