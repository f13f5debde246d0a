"""An admitted request: its place in the queue from admission to its answer.

Path: engine → **place** → batcher.
"""

import asyncio
import math
from collections.abc import Hashable, Sequence
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import numpy as np

from service.batching import policy, slots
from service.tracing import trace


class Caller(NamedTuple):
    """Who asks, how urgently, until when. Times are seconds of the batcher's clock."""

    caller: str = ""
    """Requests of one caller share one caller's share of the device."""
    priority: int = 0
    """1 is first; 0 means the model's default."""
    deadline_s: float = math.inf
    """When the answer is worth nothing any more."""
    timeout_s: float = math.inf
    """How long it may wait; the model's queue policy says whether that counts, and for what."""


class Times(NamedTuple):
    """When a request came, and until when what holds; seconds of the batcher's clock, infinity for never."""

    arrived_s: float
    deadline_s: float
    """Its answer is worth nothing later."""
    expires_s: float
    """It waits no longer for its first run to start."""
    demoted_s: float
    """From then on it waits behind all others of its priority."""


def times(now_s: float, who: Caller, level: policy.Level) -> Times:
    """Return a request's times, from its own deadline and timeout and from its level's.

    1. A timeout that demotes only does that, be it the level's or the request's own, shorter one.
    2. One that refuses says, if it is the level's, until when the run has to start, and if it is the
       request's own, until when the answer is of use.
    """
    if who.timeout_s == level.timeout_s == math.inf:
        return Times(now_s, who.deadline_s, who.deadline_s, math.inf)
    own_s = now_s + who.timeout_s if level.allows_override else math.inf
    if level.timeout_demotes:
        return Times(now_s, who.deadline_s, who.deadline_s, min(own_s, now_s + level.timeout_s))
    deadline_s = min(who.deadline_s, own_s)
    return Times(now_s, deadline_s, min(deadline_s, now_s + level.timeout_s), math.inf)


class Answer(NamedTuple):
    """One request's rows of the outputs, and the times of the batch that it was in."""

    outputs: slots.Tensors
    queue_s: float
    gather_s: float
    run_s: float


class Owner(Protocol):
    """What a place needs of its batcher."""

    def join(self, place: "Place") -> None:
        """Let it run: its inputs are there."""

    def leave(self, place: "Place") -> None:
        """Take out of the queue what is left of it there."""


class Place:
    """An admitted request; it counts against the queue's bounds until it runs or gives up.

    Mutable state: `samples`, what is left to run; `level`, changed by a timeout that demotes; the
    inputs, and what has been answered. Touched only on the event loop.
    """

    __slots__ = (
        "_answer", "_answers", "_owner", "_unanswered", "arrived_s", "caller", "deadline_s", "demoted_s", "expires_s",
        "inputs", "is_ready", "joined_s", "level", "outputs", "samples", "shape", "trace", "whole",
    )  # fmt: skip

    def __init__(self, owner: Owner, samples: int, level: int, caller: str, times: Times) -> None:
        self.samples = self.whole = self._unanswered = samples
        self.level = level
        self.caller = caller
        self.arrived_s, self.deadline_s, self.expires_s, self.demoted_s = times
        self.is_ready = False
        self.joined_s = self.arrived_s
        self.shape: Hashable = None
        self.inputs: slots.Tensors = {}
        self.outputs: frozenset[str] = frozenset()
        self.trace: trace.Trace | None = None
        """Where its runs are noted, if it is traced."""
        self._owner = owner
        self._answer: asyncio.Future[Answer] | None = None
        self._answers: list[tuple[int, Answer]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.samples:
            self._owner.leave(self)

    @property
    def look_s(self) -> float:
        """When one of its timeouts is over."""
        return self.expires_s if self.expires_s < self.demoted_s else self.demoted_s

    def submit(self, inputs: slots.Tensors, outputs: frozenset[str]) -> asyncio.Future[Answer]:
        """Join a batch, and return what waits for this request's rows of it. Once, within the place's `with`.

        Args:
            inputs: name → (samples, ...).
            outputs: names of the outputs wanted.

        Raises, when awaited:
            DeadlineExceeded, TooLate: while waiting.
            RunFailed: the run raised, or that of one of its parts.
        """
        self.inputs, self.outputs, self.shape = inputs, outputs, _shape(inputs)
        self._answer = asyncio.get_running_loop().create_future()
        self._owner.join(self)
        return self._answer

    def take(self, samples: int) -> "Part":
        """Return the next so many samples as a part to run; they are not left any more."""
        first = self.whole - self.samples
        self.samples -= samples
        self.expires_s = self.deadline_s  # it waits no longer for its first run
        return Part(self, first, samples)

    def answered(self, first: int, samples: int, answer: Answer) -> None:
        """Take the answer to a part; the last one of them makes the request's answer."""
        assert self._answer is not None, "only what was submitted runs"
        if self._answer.done():  # cancelled, or another part failed
            return
        if samples == self.whole:
            self._answer.set_result(answer)
            return
        self._answers.append((first, answer))
        self._unanswered -= samples
        if not self._unanswered:
            self._answer.set_result(_rejoined(sorted(self._answers, key=lambda part: part[0])))

    def fail(self, error: Exception) -> None:
        """Answer with an error, and run nothing of it any more; unless there is an answer already."""
        if self.samples:
            self._owner.leave(self)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


class Part:
    """Samples of a request that run together: all of it, or of a large one as many as fit."""

    __slots__ = ("first", "place", "samples")

    def __init__(self, place: Place, first: int, samples: int) -> None:
        self.place, self.first, self.samples = place, first, samples

    @property
    def inputs(self) -> slots.Tensors:
        """Its rows of the request's inputs."""
        inputs = self.place.inputs
        if self.samples == self.place.whole:
            return inputs
        return {name: rows[self.first : self.first + self.samples] for name, rows in inputs.items()}


def _shape(inputs: slots.Tensors) -> Hashable:
    """What must be equal for two requests to share a batch."""
    if len(inputs) == 1:
        (rows,) = inputs.values()
        return rows.shape[1:]
    return tuple(inputs[name].shape[1:] for name in sorted(inputs))


def _rejoined(parts: Sequence[tuple[int, Answer]]) -> Answer:
    """The parts of one request as one answer; it has waited until the first part ran, and run as long as all."""
    answers = [answer for _, answer in parts]
    outputs = {name: np.concatenate([answer.outputs[name] for answer in answers]) for name in answers[0].outputs}
    return Answer(
        outputs,
        min(answer.queue_s for answer in answers),
        sum(answer.gather_s for answer in answers),
        sum(answer.run_s for answer in answers),
    )
