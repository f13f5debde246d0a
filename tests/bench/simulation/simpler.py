"""The policies that ours is compared with: greedy, and batches formed by a timer, as Triton does it."""

import collections
import dataclasses
import heapq
from collections.abc import Iterable

from tests.bench.simulation import devices, outcome, traces


@dataclasses.dataclass(eq=False)
class _Waiting:
    number: int
    arrival: traces.Arrival
    left: int
    """Samples that have not begun to run."""
    running: int = 0


Batch = list[tuple[_Waiting, int]]


@dataclasses.dataclass(frozen=True)
class Timer:
    """First come, first served: a batch leaves when it is full or its oldest request has waited for the delay.

    Without a delay it is greedy: whatever waits leaves at once, as much of it as fits. Whoever has
    expired is dropped.
    """

    name: str
    delay_runs: float
    """The delay, in runs of one sample."""

    def __call__(self, device: devices.Device, trace: traces.Trace) -> outcome.Outcome:
        replay = _Replay(device, trace, self.delay_runs * device.run_s(1))
        replay.run()
        return replay.outcome


class _Replay:
    def __init__(self, device: devices.Device, trace: traces.Trace, delay_s: float) -> None:
        self.device, self.delay_s = device, delay_s
        self.outcome = outcome.Outcome(trace)
        self.outcome.accepted = len(trace.arrivals)
        self.noise = devices.Noise()
        self.queue: collections.deque[_Waiting] = collections.deque()
        self.free = device.instances
        self.events: list[tuple[float, int, Batch]] = []
        self.order = 0

    def run(self) -> None:
        arrivals = enumerate(self.outcome.trace.arrivals)
        coming = collections.deque(_Waiting(number, arrival, arrival.samples) for number, arrival in arrivals)
        while coming or self.events:
            if coming and (not self.events or coming[0].arrival.at_s <= self.events[0][0]):
                self.queue.append(coming.popleft())
                now_s = self.queue[-1].arrival.at_s
            else:
                now_s, _, ended = heapq.heappop(self.events)
                self._end(ended, now_s)
            while self.free and self._starts(now_s):
                pass

    def _end(self, batch: Batch, now_s: float) -> None:
        self.free += bool(batch)  # without one it was the timer
        for waiting, count in batch:
            waiting.running -= count
            if not waiting.left and not waiting.running:
                self.outcome.ended_s[waiting.number] = now_s

    def _starts(self, now_s: float) -> bool:
        if self.outcome.trace.has_deadlines:
            self.queue = collections.deque(one for one in self.queue if one.arrival.deadline_s > now_s)
        batch, is_full = _taken(self.queue, self.device.samples_max)
        if not batch:
            return False
        leaves_s = batch[0][0].arrival.at_s + self.delay_s
        if not is_full and now_s < leaves_s:
            self._at(leaves_s, [])
            return False
        for waiting, count in batch:
            waiting.left -= count
            waiting.running += count
            if not waiting.left:
                self.queue.remove(waiting)
        rows = self.device.rows(sum(count for _, count in batch))
        self.outcome.rows_run += rows
        self.free -= 1
        self._at(now_s + self.device.seconds(rows) * self.noise(), batch)
        return True

    def _at(self, when_s: float, batch: Batch) -> None:
        self.order += 1
        heapq.heappush(self.events, (when_s, self.order, batch))


def _taken(queue: Iterable[_Waiting], room: int) -> tuple[Batch, bool]:
    """The head and those of its shape that fit, and whether waiting could bring no more."""
    batch: Batch = []
    for waiting in queue:
        if batch and waiting.arrival.shape != batch[0][0].arrival.shape:
            continue
        if batch and waiting.left > room:
            return batch, True
        batch.append((waiting, min(waiting.left, room)))
        room -= batch[-1][1]
        if not room:
            return batch, True
    return batch, False


POLICIES = (Timer("greedy", 0.0), Timer("timer 0.05", 0.05), Timer("timer 0.25", 0.25), Timer("timer 1", 1.0))
"""ResNet-18's delays are 1, 5 and 20 ms; those of the others are to their runs as these to its."""
