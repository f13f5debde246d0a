"""One model's queue and its runs: admits requests, does what the planner decides, hands out the answers.

Path: engine → **batcher** → runtime.

A failure stays with its cause: who is gone never takes a place, whose deadline passes is told at
once, and when a run raises, only the requests in that run fail.
"""

import asyncio
import dataclasses
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from service import errors
from service.batching import admission, costs, gathering, place, planner, policy, queue, slots, traced, under_way
from service.batching import clock as batching_clock
from service.tracing import trace

_GATHERING_S = 0.001
"""For so long a free device waits for what a busy event loop may still bring."""
_GATHERING_MAX_S = 0.005
"""For so long, where the device would do all that has come in less time than it took to come."""


class BatchResult(NamedTuple):
    """The outputs of one run, name → (N, ...) without padding, and its times."""

    outputs: slots.Tensors
    gather_s: float
    run_s: float
    cpu_s: float = 0.0
    """Of the thread that gathered and ran; 0 where that is not what it costs."""


RunBatch = Callable[[Sequence[slots.Tensors], frozenset[str], int], Awaitable[BatchResult]]
"""Runs requests together: their inputs, the outputs that anybody wants, and the rows to run, padding included."""
Clock = batching_clock.Clock


class Observer(Protocol):
    """Hears of every run."""

    def ran(self, samples: int, rows: int, gather_s: float, run_s: float) -> None:
        """A batch of `samples` requests' rows, run as `rows`, has run."""

    def occupied(self, share: float, now_s: float) -> None:
        """A run has taken a share of the devices, or, if it is negative, given it back."""


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """How much one model's queue takes, and how many batches may be under way at once."""

    samples_max: int
    in_flight: int = 1
    devices: int = 0
    """How many of those run at once, each of the others being made ready behind one of them; 0: all."""
    is_one_core: bool = False
    """Whether one core has to do for everything."""


class Batcher:
    """One model's queue and its runs.

    Mutable state: the queue, the runs under way, the timers; touched only on the event loop that
    called `admit`.
    """

    def __init__(
        self,
        model: str,
        run: RunBatch,
        rules: policy.Policy,
        known: costs.Costs,
        *,
        limits: Limits,
        clock: Clock,
        observer: Observer,
        tracer: trace.Tracer | None = None,
    ) -> None:
        self._model = model
        self._run = run
        self._rules = rules
        self._costs = known
        self._limits = limits
        self._clock = clock
        self._observer = observer
        self._tracer = tracer
        self._planner = planner.Planner(rules, known)
        self._outlook = admission.Outlook(model, known, self._planner.sizes)
        self._queue: queue.Queue[place.Place] = queue.Queue()
        self._under_way = under_way.UnderWay(limits.devices or limits.in_flight, observer.occupied)
        self._gather_s = 0.0
        self._gathering = gathering.Gathering(self._dispatch, self._is_enough, gives_way=limits.is_one_core)
        self._again: batching_clock.Timer | None = None
        self._sweep: batching_clock.Timer | None = None
        self._sweep_s = math.inf
        self._settled: asyncio.Future[None] | None = None

    @property
    def samples_waiting(self) -> int:
        """Samples admitted whose run has not begun."""
        return self._queue.samples

    def waiting(self) -> queue.Waiting:
        """Return what waits. From any thread."""
        return self._queue.waiting(self._clock.time())

    def admit(self, samples: int, who: place.Caller, *, decode_s: float = 0.0) -> place.Place:
        """Reserve room in the queue before any work is put into the request. Use it as a context manager.

        Args:
            samples: rows of the request.
            who: caller, priority and deadline.
            decode_s: how long its images will take to decode.

        Raises:
            BadRequest: no such priority.
            QueueFull: with those already waiting it would be too many.
            TooLate: it could not be answered before its deadline.
        """
        level = admission.level(self._model, who.priority, self._rules)
        rules = self._rules.levels[level // 2]
        queued, queued_max = self._queue.samples, self._limits.samples_max
        if queued + samples > queued_max:
            raise admission.too_many_samples(self._model, samples, queued, queued_max, self._costs)
        if rules.requests_max:
            waiting = self._queue.requests(level) + self._queue.requests(level + 1)
            if waiting >= rules.requests_max:
                raise admission.too_many_requests(self._model, waiting, rules.requests_max, self._costs)
        now_s = self._clock.time()
        times = place.times(now_s, who, rules)
        if times.deadline_s != math.inf:
            slack_s = times.deadline_s - now_s
            if not self._outlook.is_plenty(slack_s, queued + samples, decode_s):
                before = self._queue.samples_before(level, who.caller)
                self._outlook.check(samples, admission.Ahead(before, self._under_way.busy_s(now_s), decode_s), slack_s)
        admitted = place.Place(self, samples, level, who.caller, times)
        self._queue.add(admitted)
        self._under_way.arrived += samples
        return admitted

    def join(self, admitted: place.Place) -> None:
        """Let a place run, now that its inputs are there. For places only."""
        admitted.is_ready = True
        admitted.joined_s = self._clock.time()
        self._look_after(admitted.look_s)
        self._dispatch_soon()

    def leave(self, admitted: place.Place) -> None:
        """Take out of the queue what is left of a place. For places only."""
        self._queue.remove(admitted)
        if admitted.is_ready and admitted.deadline_s <= self._clock.time():  # whoever noticed first
            self._outlook.learn(in_time=0, late=1)
        admitted.samples = 0
        self._settle()

    def _dispatch_soon(self) -> None:
        """Dispatch when all that the event loop has at hand has joined the queue."""
        if len(self._under_way) < self._limits.in_flight:
            self._gathering.begin()

    def _is_enough(self, gathering_s: float) -> bool:
        """Whether a free device should get what there is, although more may come."""
        samples = self._queue.samples
        if samples >= self._planner.samples_max:
            return True
        if gathering_s < _GATHERING_S:
            return False
        return gathering_s >= _GATHERING_MAX_S or self._costs.seconds(samples) >= gathering_s

    async def aclose(self) -> None:
        """Run everything that waits, without delay, and return when nothing is left."""
        self._settled = asyncio.get_running_loop().create_future()
        self._dispatch()
        self._settle()
        await self._settled

    def _settle(self) -> None:
        if self._settled is not None and not self._queue and not self._under_way and not self._settled.done():
            self._settled.set_result(None)

    def _dispatch(self) -> None:
        self._gathering.end()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._under_way.count_arrivals(self._clock.time(), self._planner.horizon_s, is_idle=not self._queue)
        while self._queue and len(self._under_way) < self._limits.in_flight:
            now_s = self._clock.time()
            plan = self._planner.plan(
                self._queue, self._queue.samples, now_s, self._devices(now_s), is_closing=self._settled is not None
            )
            for late in plan.late:
                self._give_up(late, now_s)
            if not plan.batch:
                if plan.look_again_s != math.inf:
                    self._again = self._clock.call_at(plan.look_again_s, self._dispatch)
                return
            self._start(plan.batch, now_s)

    def _devices(self, now_s: float) -> planner.Devices:
        devices = self._under_way.devices
        coming = self._under_way.coming(now_s, self._planner.horizon_s)
        free = self._under_way.free
        if free:
            return planner.Devices(now_s, free, devices, coming)
        begins_s = now_s + self._under_way.busy_s(now_s)[0]
        lead_s = 2 * self._gather_s + batching_clock.LATE_S
        return planner.Devices(begins_s, 1, devices, coming, begins_s - lead_s)

    def _give_up(self, late: place.Place, now_s: float) -> None:
        slack_s = late.deadline_s - now_s
        if slack_s <= 0 or late.expires_s <= now_s:
            late.fail(errors.DeadlineExceeded(self._model, now_s - late.arrived_s))
        else:
            self._outlook.learn(in_time=0, late=1)
            run_s, work_s = self._costs.seconds(late.samples, late.shape), self._costs.seconds(self._queue.samples)
            late.fail(errors.TooLate(self._model, run_s, slack_s, work_s))  # a new one may fit when that is done

    def _start(self, batch: Sequence[tuple[place.Place, int]], now_s: float) -> None:
        parts = []
        for admitted, samples in batch:
            self._queue.serve(admitted, samples)
            parts.append(admitted.take(samples))
        samples = sum([part.samples for part in parts])
        run = under_way.Run(parts, now_s, self._costs.seconds(samples, parts[0].place.shape))
        self._under_way.start(run)
        run.task = asyncio.get_running_loop().create_task(self._run_batch(run))

    async def _run_batch(self, run: under_way.Run) -> None:
        try:
            wanted = run.parts[0].place.outputs
            for part in run.parts:
                if part.place.outputs is not wanted:
                    wanted |= part.place.outputs
            rows = self._costs.rows(run.samples)
            result = await self._run([part.inputs for part in run.parts], wanted, rows)
            if self._rules.has_batch_axis:
                _check_rows(result.outputs, wanted, run.samples)
        except Exception as error:  # of any kind: it belongs to these requests, and to nobody else
            for part in run.parts:
                failure = errors.RunFailed(self._model)
                failure.__cause__ = error
                part.place.fail(failure)
            traced.note_failure(self._tracer, run, self._clock.time(), error)
        else:
            self._answer(run, result)
            self._observe(run, rows, result)
            traced.note(self._tracer, run, rows, self._clock.time(), (result.gather_s, result.run_s))
        finally:
            now_s = self._clock.time()
            self._under_way.end(run, now_s)
            self._dispatch_soon()
            self._settle()

    def _observe(self, run: under_way.Run, rows: int, result: BatchResult) -> None:
        if run.began_s != math.inf:
            took_s, shape = self._clock.time() - run.began_s, run.parts[0].place.shape
            self._costs.observe(run.samples, took_s, shape, cpu_s=result.cpu_s)
        self._gather_s += (result.gather_s - self._gather_s) / 8
        self._observer.ran(run.samples, rows, result.gather_s, result.run_s)

    def _answer(self, run: under_way.Run, result: BatchResult) -> None:
        now_s = self._clock.time()
        in_time = late = first = 0
        for part in run.parts:
            asked = part.place
            rows = slice(first, first + part.samples) if self._rules.has_batch_axis else ...
            first += part.samples
            outputs = {name: result.outputs[name][rows] for name in asked.outputs}
            queue_s = max(0.0, run.started_s - asked.joined_s)
            asked.answered(part.first, part.samples, place.Answer(outputs, queue_s, result.gather_s, result.run_s))
            if asked.deadline_s != math.inf:
                in_time += asked.deadline_s >= now_s
                late += asked.deadline_s < now_s
        if in_time or late:
            self._outlook.learn(in_time=in_time, late=late)

    def _look_after(self, when_s: float) -> None:
        """See to it that somebody looks when a timeout is over: one timer for all."""
        if when_s < self._sweep_s:
            if self._sweep is not None:
                self._sweep.cancel()
            self._sweep_s = when_s
            self._sweep = self._clock.call_at(when_s, self._expire_and_demote)

    def _expire_and_demote(self) -> None:
        """Fail those who have waited too long, demote those whose policy says so, and look again for the others."""
        now_s = self._clock.time()
        self._sweep, self._sweep_s = None, math.inf
        for waiting in [waiting for waiting in self._queue if waiting.is_ready and waiting.look_s <= now_s]:
            if waiting.expires_s <= now_s:
                self._give_up(waiting, now_s)
            else:
                self._demote(waiting)
        self._look_after(min([waiting.look_s for waiting in self._queue if waiting.is_ready], default=math.inf))

    def _demote(self, waiting: place.Place) -> None:
        """Let a request wait on behind all others of its priority."""
        self._queue.remove(waiting)
        waiting.level += 1
        waiting.demoted_s = math.inf
        self._queue.add(waiting)


def _check_rows(outputs: slots.Tensors, wanted: frozenset[str], samples: int) -> None:
    for name in wanted:
        if len(outputs[name]) != samples:
            raise ValueError(f"output {name!r} has {len(outputs[name])} rows for a batch of {samples}")
