"""A clock that a test moves by hand, and runs that a test ends by hand."""

import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from service.batching import batcher, slots


class ManualTimer:
    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when, self.callback, self.is_cancelled = when, callback, False

    def cancel(self) -> None:
        self.is_cancelled = True


class ManualClock:
    def __init__(self) -> None:
        self.now_s = 100.0
        self._timers: list[ManualTimer] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, when: float, callback: Callable[[], None]) -> ManualTimer:
        self._timers.append(ManualTimer(when, callback))
        return self._timers[-1]

    @property
    def timers(self) -> int:
        return sum(not timer.is_cancelled for timer in self._timers)

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        while due := [timer for timer in self._timers if timer.when <= self.now_s]:
            self._timers = [timer for timer in self._timers if timer.when > self.now_s]
            for timer in due:
                if not timer.is_cancelled:
                    timer.callback()


class ManualRuns:
    """A `batcher.RunBatch` whose runs end when the test says so; doubles its input."""

    def __init__(self) -> None:
        self.started: list[list[int]] = []
        self.rows: list[int] = []
        self._ends: list[asyncio.Future[Exception | None]] = []

    async def __call__(
        self, requests: Sequence[slots.Tensors], wanted: frozenset[str], rows: int
    ) -> batcher.BatchResult:
        values = np.concatenate([request["x"] for request in requests])
        self.started.append([int(value) for value in values.ravel()])
        self.rows.append(rows)
        end: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._ends.append(end)
        error = await end
        if error is not None:
            raise error
        return batcher.BatchResult({"y": values * 2}, 0.0, 0.0)

    def is_ended(self, run: int) -> bool:
        return self._ends[run].done()

    def end(self, run: int, error: Exception | None = None) -> None:
        self._ends[run].set_result(error)


class Observed:
    """A `batcher.Observer` that remembers batch sizes, and when which share of the devices was taken and given back."""

    def __init__(self) -> None:
        self.samples: list[int] = []
        self.shares: list[tuple[float, float]] = []

    def ran(self, samples: int, rows: int, gather_s: float, run_s: float) -> None:
        self.samples.append(samples)

    def occupied(self, share: float, now_s: float) -> None:
        self.shares.append((share, now_s))
