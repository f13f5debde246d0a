"""Gathers requests into batches and runs them; does what the planner decides.

Path: images → **batcher** → session.

A failure stays with its cause: who is gone never takes a place, whose deadline passes is told at
once, and when a run raises, only the requests in that run fail.
"""

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import math
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from typing import Protocol

from service import errors
from service.batching import planner, slots


@dataclasses.dataclass(frozen=True, slots=True)
class BatchResult:
    """The outputs of one run, name → (N, ...), and its times."""

    outputs: slots.Tensors
    gather_s: float
    run_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One request's rows of the outputs, and the times of the batch that it was in."""

    outputs: slots.Tensors
    queue_s: float
    gather_s: float
    run_s: float


RunBatch = Callable[[Sequence[slots.Tensors], frozenset[str]], Awaitable[BatchResult]]
"""Runs requests together: their inputs, and the names of the outputs that anybody wants."""


class Timer(Protocol):
    """What `Clock.call_at` returns."""

    def cancel(self) -> None:
        """Do not call."""


class Clock(Protocol):
    """The event loop, or a test's clock."""

    def time(self) -> float:
        """Seconds, monotonic."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back at that time."""


class Observer(Protocol):
    """Hears of every run."""

    def ran(self, samples: int, gather_s: float, run_s: float) -> None:
        """A batch of that many samples has run."""


@dataclasses.dataclass(slots=True)
class _Entry:
    """One waiting request."""

    inputs: slots.Tensors
    outputs: frozenset[str]
    samples: int
    shape_key: Hashable
    arrived_s: float
    deadline_s: float
    number: int
    place: "Place"
    answer: asyncio.Future[Answer]


class Place:
    """An admitted request's share of the queue's bound, held from admission until it runs or gives up.

    Mutable state: `_samples`, 0 once given back; touched only on the event loop.
    """

    def __init__(self, batcher: "Batcher", samples: int) -> None:
        self._batcher = batcher
        self._samples = samples

    async def submit(self, inputs: slots.Tensors, outputs: frozenset[str], deadline_s: float = math.inf) -> Answer:
        """Wait for a batch, and return this request's rows of it.

        Args:
            inputs: name → (samples, ...).
            outputs: names of the outputs wanted.
            deadline_s: time of the batcher's clock after which a run is not worth starting.

        Raises:
            DeadlineExceeded: while waiting.
            RunFailed: the run raised.
        """
        return await self._batcher.submit(self, inputs, outputs, self._samples, deadline_s)

    def give_back(self) -> None:
        """Count no longer as waiting. Safe to call again."""
        self._batcher.samples_waiting -= self._samples
        self._samples = 0


class Batcher:
    """One model's queue and its runs.

    Mutable state: the queue, `samples_waiting`, the number of free instances; touched only on the
    event loop that called `submit`.
    """

    def __init__(
        self,
        model: str,
        run: RunBatch,
        policy: planner.Policy,
        *,
        samples_max: int,
        clock: Clock,
        observer: Observer,
        instances: int = 1,
    ) -> None:
        self.samples_waiting = 0
        self._model = model
        self._run = run
        self._policy = policy
        self._samples_max = samples_max
        self._clock = clock
        self._observer = observer
        self._free = instances
        self._queue: collections.OrderedDict[int, _Entry] = collections.OrderedDict()
        self._numbers = itertools.count()
        self._dispatch_is_due = False
        self._timer: Timer | None = None
        self._is_closing = False
        self._running: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def admit(self, samples: int) -> Iterator[Place]:
        """Reserve room in the queue before any work is put into the request.

        Raises:
            QueueFull: with those already waiting it would be too many samples.
        """
        if self.samples_waiting + samples > self._samples_max:
            raise errors.QueueFull(self._model, self.samples_waiting, self._samples_max)
        self.samples_waiting += samples
        place = Place(self, samples)
        try:
            yield place
        finally:
            place.give_back()

    async def submit(
        self, place: Place, inputs: slots.Tensors, outputs: frozenset[str], samples: int, deadline_s: float
    ) -> Answer:
        """See Place.submit."""
        loop = asyncio.get_running_loop()
        shape_key = tuple(tensor.shape[1:] for tensor in inputs.values())
        now_s = self._clock.time()
        number = next(self._numbers)
        entry = _Entry(inputs, outputs, samples, shape_key, now_s, deadline_s, number, place, loop.create_future())
        self._queue[number] = entry
        expiry = None
        if deadline_s != math.inf:
            expiry = self._clock.call_at(deadline_s, lambda: self._expire(entry))
        self._dispatch_soon(loop)
        try:
            return await entry.answer
        finally:
            if expiry is not None:
                expiry.cancel()
            self._take_out(entry)

    async def aclose(self) -> None:
        """Run everything that waits, without delay, and return when nothing is left."""
        self._is_closing = True
        self._dispatch()
        while self._queue or self._running:
            await asyncio.gather(*self._running, return_exceptions=True)
            await asyncio.sleep(0)  # lets the last answers reach their callers

    def _dispatch_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Dispatch when all that this turn of the event loop brought has joined the queue."""
        if self._free and not self._dispatch_is_due:
            self._dispatch_is_due = True
            loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._dispatch_is_due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._free and self._queue:
            plan = planner.plan(self._queue.values(), self._clock.time(), self._policy, is_closing=self._is_closing)
            for waiting in plan.expired:
                self._expire(waiting)
            if not plan.batch:
                if plan.look_again_s is not None:
                    self._timer = self._clock.call_at(plan.look_again_s, self._dispatch)
                return
            self._start(plan.batch)

    def _start(self, entries: Sequence[_Entry]) -> None:
        for entry in entries:
            self._take_out(entry)
        self._free -= 1
        task = asyncio.get_running_loop().create_task(self._run_batch(entries))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run_batch(self, entries: Sequence[_Entry]) -> None:
        started_s = self._clock.time()
        wanted = frozenset().union(*(entry.outputs for entry in entries))
        samples = sum(entry.samples for entry in entries)
        try:
            result = await self._run([entry.inputs for entry in entries], wanted)
            if self._policy.has_batch_axis:
                _check_rows(result.outputs, samples)
        except Exception as error:  # of any kind: it belongs to these requests, and to nobody else
            self._fail(entries, error)
        else:
            self._observer.ran(samples, result.gather_s, result.run_s)
            self._answer(entries, result, started_s)
        finally:
            self._free += 1
            self._dispatch()

    def _fail(self, entries: Sequence[_Entry], error: Exception) -> None:
        for entry in entries:
            if not entry.answer.done():
                failure = errors.RunFailed(self._model)
                failure.__cause__ = error
                entry.answer.set_exception(failure)

    def _answer(self, entries: Sequence[_Entry], result: BatchResult, started_s: float) -> None:
        first = 0
        for entry in entries:
            rows = slice(first, first + entry.samples) if self._policy.has_batch_axis else ...
            first += entry.samples
            if entry.answer.done():  # cancelled while it ran
                continue
            outputs = {name: result.outputs[name][rows] for name in entry.outputs}
            queue_s = max(0.0, started_s - entry.arrived_s)
            entry.answer.set_result(Answer(outputs, queue_s, result.gather_s, result.run_s))

    def _expire(self, entry: _Entry) -> None:
        if entry.number in self._queue:
            self._take_out(entry)
            if not entry.answer.done():
                waited_s = self._clock.time() - entry.arrived_s
                entry.answer.set_exception(errors.DeadlineExceeded(self._model, waited_s))

    def _take_out(self, entry: _Entry) -> None:
        if self._queue.pop(entry.number, None):
            entry.place.give_back()


def _check_rows(outputs: slots.Tensors, samples: int) -> None:
    for name, rows in outputs.items():
        if len(rows) != samples:
            raise ValueError(f"output {name!r} has {len(rows)} rows for a batch of {samples}")
