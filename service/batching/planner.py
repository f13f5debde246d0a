"""Decides which waiting requests run now, and how many rows the run has. Pure: no clock, no futures, no threads.

Path: batcher's queue and costs → **planner** → batcher's run.

1. Work-conserving: with a free device somebody leaves at once, unless the model's config asks for a
   delay and nobody of another shape waits for the device.
2. The head of the queue always leaves first, with those of its own shape behind it; nobody of that
   shape is overtaken by a smaller request. What is too large for a run leaves in parts; where runs
   are padded, a part of the next request takes the place of padding.
3. As many leave together as keeps the mean wait short by the measured costs (`sizes`), or as the
   config prefers; fewer, or others, where somebody would be late by that (`_in_time`).
4. Whoever cannot be answered in time any more is given up, and costs the device nothing.
"""

import itertools
import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from service.batching import costs as measured_costs
from service.batching import policy, sizes

_PRICE = 0.75
"""Simulated at loads from 0.7 to 2: at 0, up to 4 % of the goodput is lost, at 1, more of those let in are given up."""
_LOOKED_AT = 512
"""Requests looked at for one plan, where those of many shapes wait in turn."""

_HORIZON_RUNS = 2
"""Who comes within so many full runs, and before the device is idle, counts as waiting behind. Simulated: half as many
cost up to 25 % of the mean latency at high load, twice as many up to 10 %."""
_WORTH_SPREADING = 1.25
"""So many times shorter a run has to become for several devices to share what one could take."""
_ELEMENTS_MAX = 64 * 10**6
"""Where samples have no fixed size and nothing is known of a run's memory, samples run together up to so many elements
of input: the pixels that the largest image may have by default."""
_ANSWER_S = 0.005
"""So long before the last moment a batch leaves that waits for others: timers are late, answers have a way to go."""
_FEW_REQUESTS = 16
"""Fewer requests, of several samples some of them, are put together one by one; more by their samples alone."""


class Waiting(Protocol):
    """What the planner knows of a waiting request. Times are seconds of the batcher's clock."""

    samples: int
    """Rows that are left to run, at least 1."""
    level: int
    caller: str
    is_ready: bool
    """Whether its inputs are there."""
    arrived_s: float
    deadline_s: float
    """When its answer is worth nothing any more; infinity without a deadline."""
    shape: Hashable
    """Requests of different shapes cannot share a batch."""


W = TypeVar("W", bound=Waiting)


class Plan(NamedTuple, Generic[W]):
    """What to do now: give up `late`, run `batch`; if that is empty, look again at `look_again_s`."""

    batch: Sequence[tuple[W, int]] = ()
    """Requests in the order of the queue, and how many of their samples."""
    late: Sequence[W] = ()
    look_again_s: float = math.inf


class Devices(NamedTuple):
    """The devices, as the planner has to know them."""

    begins_s: float
    """When a run that is started now begins: now, if a device is free."""
    free: int = 1
    """Devices over which what waits is spread; 1 if none is free."""
    in_all: int = 1
    """Devices over which the parts of one request are spread at best."""
    coming: float = 0.0
    """Samples that are expected to come before a device is idle."""
    hold_until_s: float = -math.inf
    """Until then the device is busy, and a batch that could still grow loses nothing by it."""


class _Seen(Generic[W]):
    """What a look at the queue has found."""

    __slots__ = ("has_others", "is_full", "late", "samples", "window")

    def __init__(self) -> None:
        self.window: list[W] = []
        """The head, and those who could leave with it."""
        self.samples = 0
        """Of all in the window."""
        self.is_full = False
        """Whether the window holds all that could leave now."""
        self.late: list[W] = []
        self.has_others = False
        """Whether somebody of another shape waits."""


class _Choice(NamedTuple, Generic[W]):
    """A batch that could leave, and what it costs others: the least is the best."""

    badness: tuple[float, int, float]
    """Late samples of the head's caller, and the time's price; late samples of all; seconds per sample that runs."""
    batch: Sequence[tuple[W, int]]
    passed_over: Sequence[W]
    """Those before the last of the batch who are not in it."""


class Planner:
    """Plans one model's runs. Holds nothing that changes but the costs, which are the batcher's."""

    def __init__(self, rules: policy.Policy, costs: measured_costs.Costs) -> None:
        self.samples_max = rules.batch_samples_max
        if rules.has_batch_axis and costs.rows_max is not None:
            self.samples_max = min(rules.batch_samples_max, costs.rows_max)
        self.sizes = sizes.Sizes(costs, self.samples_max)
        self._rules = rules
        self._costs = costs

    @property
    def horizon_s(self) -> float:
        """How far the planner looks ahead for those who will come."""
        return _HORIZON_RUNS * self._costs.seconds(self.sizes.full)

    def plan(
        self, queue: Iterable[W], waiting: int, now_s: float, devices: Devices, *, is_closing: bool = False
    ) -> Plan[W]:
        """Choose the next batch.

        Args:
            queue: in the order of service.
            waiting: samples in the queue.
            now_s: the clock's time.
            devices: how many are free, or when one will be.
            is_closing: nobody else will come, so a delay has no purpose.

        Returns:
            The batch in queue order, and those met on the way who cannot be answered in time.
        """
        seen = self._look(queue, devices)
        if not seen.window:
            return Plan((), seen.late)
        leaves_s = -math.inf if is_closing else self._leaves_s(seen, devices)
        if now_s < leaves_s:
            return Plan((), seen.late, leaves_s)
        wanted = self._wanted(seen, max(0, waiting - seen.samples), devices)
        tightest_s = min([request.deadline_s for request in seen.window])
        if len(seen.window) > 1 and tightest_s < devices.begins_s + self._careful_s(wanted, seen.window[0].shape):
            return self._in_time(seen, wanted, devices)
        return Plan(self._fitting(seen.window, wanted), seen.late)

    def _look(self, queue: Iterable[W], devices: Devices) -> _Seen[W]:
        """Find the head of the queue and those who could leave with it; on the way those who are late."""
        seen: _Seen[W] = _Seen()
        room = 1
        for request in itertools.islice(queue, _LOOKED_AT):
            if not request.is_ready:
                continue
            if request.deadline_s != math.inf and self._is_late(request, devices):
                seen.late.append(request)
            elif not seen.window or request.shape == seen.window[0].shape:
                if not seen.window and self._rules.merges_requests:
                    room = self._most(request.shape) * devices.free
                seen.window.append(request)
                seen.samples += request.samples
                if seen.samples >= room:
                    seen.is_full = True
                    break
            else:
                seen.has_others = True
        return seen

    def _most(self, shape: Hashable) -> int:
        """How many samples of this shape may run together."""
        if self._costs.is_measured or not self._rules.has_batch_axis:
            return self.samples_max
        return min(self.samples_max, max(1, _ELEMENTS_MAX // _elements(shape)))

    def _is_late(self, request: W, devices: Devices) -> bool:
        """Whether it would be, although it ran at once, alone, and on all devices."""
        run_s = self._costs.seconds(-(-request.samples // devices.in_all), request.shape)
        return request.deadline_s < devices.begins_s + run_s

    def _careful_s(self, samples: int, shape: Hashable) -> float:
        """How long a run of so many samples will hardly exceed."""
        return self._costs.seconds(samples, shape) * self._costs.margin

    def _leaves_s(self, seen: _Seen[W], devices: Devices) -> float:
        """When a batch that could still grow leaves: after the delay, earlier if a deadline's slack runs out."""
        if seen.is_full:
            return -math.inf
        leaves_s = devices.hold_until_s
        preferred = self._rules.preferred_samples
        if self._rules.delay_s and not seen.has_others and not (preferred and seen.samples >= preferred[0]):
            leaves_s = max(leaves_s, min([request.arrived_s for request in seen.window]) + self._rules.delay_s)
        if leaves_s == -math.inf:
            return leaves_s
        run_s = self._careful_s(seen.samples, seen.window[0].shape)
        return min(leaves_s, *(request.deadline_s - run_s - _ANSWER_S for request in seen.window))

    def _wanted(self, seen: _Seen[W], behind: int, devices: Devices) -> int:
        """How many samples leave together if nobody has a deadline."""
        head = seen.window[0].samples
        if not self._rules.has_batch_axis:
            return head
        most = self._most(seen.window[0].shape)
        if not self._rules.merges_requests:
            return min(head, most)
        if self._rules.preferred_samples:
            fitting = [size for size in self._rules.preferred_samples if size <= seen.samples]
            return min(most, max(head, fitting[-1]) if fitting else seen.samples)
        each = min(self._spread(seen.samples, devices.free), most)
        behind += int(devices.coming)
        divided = self.sizes.together(min(each, head), sizes.MANY)  # its samples are of use only together
        is_mixed = 1 < len(seen.window) < min(seen.samples, _FEW_REQUESTS)
        if is_mixed and divided == head and self._costs.is_measured and not self._costs.pads:
            return self.sizes.among([request.samples for request in seen.window], behind)
        return max(self.sizes.together(each, behind), divided)

    def _spread(self, samples: int, free: int) -> int:
        """How many samples each free device gets; all go to one where a share takes nearly as long as all."""
        share = -(-samples // free)
        if not self._costs.is_measured or self._costs.seconds(share) * _WORTH_SPREADING < self._costs.seconds(samples):
            return share
        return samples

    def _fitting(self, window: Sequence[W], wanted: int) -> list[tuple[W, int]]:
        """Those of the window who leave together, in so many samples; parts only where nothing else fits."""
        is_filled = self._costs.pads and self._rules.merges_requests
        room = max(wanted, min(self._costs.rows(wanted), self.samples_max)) if is_filled else wanted
        batch: list[tuple[W, int]] = []
        for request in window:
            if request.samples > room and batch and not is_filled:
                break
            batch.append((request, min(room, request.samples)))
            room -= batch[-1][1]
            if not room:
                break
        return batch

    def _in_time(self, seen: _Seen[W], wanted: int, devices: Devices) -> Plan[W]:
        """The batch by which the fewest are late, now and after it.

        A head with little time left could force small batches on all behind it, who then have little
        time left themselves, and so on for ever. So it is given up where that saves more of its own
        caller's; for others' it never is. And a device's time has a price, so that nobody is saved by
        small runs at the cost of more who have yet to come.
        """
        tightest_s = min([request.deadline_s for request in seen.window])
        quick = self._costs.within((tightest_s - devices.begins_s) / self._costs.margin)
        counts = {min(wanted, quick), *(max(1, wanted >> halvings) for halvings in range(wanted.bit_length()))}
        price = self._price(devices.coming)
        choices = [self._choice(seen, size, devices.begins_s, price) for size in sorted(counts)]
        best = min([choice for choice in choices if choice], key=lambda choice: choice.badness, default=None)
        if best is None:  # nobody has time to spare: the head, at least, may be lucky
            head = seen.window[0]
            return Plan(self._fitting([head], min(head.samples, self._most(head.shape))), seen.late)
        return Plan(best.batch, [*seen.late, *best.passed_over])

    def _price(self, coming: float) -> float:
        """Samples to come that a second of a device is worth: half of what it could do, if it is always busy."""
        full = self.sizes.full
        full_s = self._costs.seconds(full)
        return _PRICE * min(1.0, coming / (_HORIZON_RUNS * full)) * full / full_s if full_s else 0.0

    def _choice(self, seen: _Seen[W], size: int, begins_s: float, price: float) -> _Choice[W] | None:
        """A batch of so many samples of those who have time for it."""
        head = seen.window[0]
        able = [request for request in seen.window if self._has_time(request, size, begins_s)]
        if not able:
            return None
        batch = self._fitting(able, size)
        samples = sum([count for _, count in batch])
        last = seen.window.index(batch[-1][0])
        taken = {id(request) for request, _ in batch}
        passed_over = [request for request in seen.window[:last] if id(request) not in taken]
        left = seen.samples - samples - sum([request.samples for request in passed_over])
        run_s = self._costs.seconds(samples, head.shape)
        next_s = self._costs.seconds(min(self.sizes.full, max(0, left)), head.shape)
        behind = [one for one in seen.window[last + 1 :] if one.deadline_s < begins_s + run_s + next_s]
        lost = [*passed_over, *behind]
        own = sum([one.samples for one in lost if one.caller == head.caller and one.level == head.level])
        badness = (own + price * (run_s + next_s), sum([one.samples for one in lost]), run_s / samples)
        return _Choice(badness, batch, passed_over)

    def _has_time(self, request: W, size: int, begins_s: float) -> bool:
        """Whether it is in time, with care, in a run of so many samples, or of its own if those are more."""
        return request.deadline_s >= begins_s + self._careful_s(max(size, request.samples), request.shape)


def _elements(shape: Hashable) -> int:
    """How many a sample of this shape has, all inputs together; 1 where it says nothing."""
    if isinstance(shape, int):
        return max(1, shape)
    if not isinstance(shape, tuple):
        return 1
    parts = [_elements(part) for part in shape]
    return sum(parts) if any(isinstance(part, tuple) for part in shape) else math.prod(parts)
