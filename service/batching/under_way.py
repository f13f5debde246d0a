"""The runs under way: when a device is free again, and how many come meanwhile.

Path: planner → **under_way** → costs and admission.
"""

import asyncio
import collections
import math
from collections.abc import Callable, Sequence

from service.batching import place

_MEMORY_STARTS = 16
"""Starts of runs that the expectation of arrivals is the mean of, nearly."""
_LASTS_ON = 2.0
"""A busy spell is expected to go on for so many times as long as it has lasted."""
_COMING_FIRST = 64.0
"""Until something is known, many are expected: then the device does what is cheapest for it."""


class Run:
    """A batch under way. Mutable state: `began_s`, set when a device takes it."""

    __slots__ = ("began_s", "expected_s", "parts", "samples", "started_s", "task")

    def __init__(self, parts: Sequence[place.Part], started_s: float, expected_s: float) -> None:
        self.parts = parts
        self.samples = sum([part.samples for part in parts])
        self.started_s = started_s
        self.expected_s = expected_s
        self.began_s = math.inf
        self.task: asyncio.Task[None] | None = None


class UnderWay:
    """The runs under way, in the order of their start.

    The first `devices` of them run, the others are made ready behind those and begin when one ends.

    Mutable state: the runs, and the counts of arrivals; touched only on the event loop.
    """

    def __init__(self, devices: int, occupied: Callable[[float, float], None] = lambda share, now_s: None) -> None:
        """Take how many devices there are, and who hears which share of them is taken or, negative, given back."""
        self.runs: list[Run] = []
        self.arrived = 0
        """Samples that have come, ever."""
        self._coming = _COMING_FIRST
        self._known = 0
        self._busy_since_s = math.inf
        self.devices = devices
        self._occupied = occupied
        self._starts: collections.deque[tuple[float, int]] = collections.deque()

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def free(self) -> int:
        """Devices that are free now."""
        return max(0, self.devices - len(self.runs))

    def start(self, run: Run) -> None:
        """Take a run that starts now."""
        self._starts.append((run.started_s, self.arrived))
        self._busy_since_s = min(self._busy_since_s, run.started_s)
        self.runs.append(run)
        if len(self.runs) <= self.devices:
            run.began_s = run.started_s
            self._occupied(1 / self.devices, run.started_s)

    def end(self, run: Run, now_s: float) -> None:
        """Take out a run that has ended; the next one begins."""
        self.runs.remove(run)
        if len(self.runs) >= self.devices:
            following = self.runs[self.devices - 1]
            following.began_s = min(following.began_s, now_s)
        else:
            self._occupied(-1 / self.devices, now_s)

    def coming(self, now_s: float, horizon_s: float) -> float:
        """Samples that will be waiting before a device is idle.

        In the mean, so many came after a run was started, within the horizon and before a device was
        idle. A busy spell that has lasted for long will go on for long, one may guess.
        """
        lasts_s = _LASTS_ON * (now_s - self._busy_since_s)
        return self._coming * max(1.0, lasts_s / horizon_s if horizon_s > 0 else 1.0)

    def count_arrivals(self, now_s: float, horizon_s: float, *, is_idle: bool) -> None:
        """Learn from the starts that are `horizon_s` ago, or from all if nobody waits for a device any more."""
        while self._starts and (is_idle or self._starts[0][0] + horizon_s <= now_s):
            started_s, arrived = self._starts.popleft()
            share = min(1.0, horizon_s / (now_s - started_s)) if now_s > started_s else 1.0
            self._known = min(_MEMORY_STARTS, self._known + 1)
            self._coming += ((self.arrived - arrived) * share - self._coming) / self._known
        if is_idle and not self.runs:
            self._busy_since_s = math.inf

    def busy_s(self, now_s: float) -> list[float]:
        """Until when each device is busy, in seconds from now, ascending; 0 for a free one."""
        busy_s = [0.0] * self.devices
        for number, run in enumerate(self.runs):
            if number < self.devices:
                busy_s[number] = max(0.0, run.began_s + run.expected_s - now_s)
            else:  # it follows on whichever is free first
                busy_s.sort()
                busy_s[0] += run.expected_s
        busy_s.sort()
        return busy_s
