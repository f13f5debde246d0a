"""How many of the waiting samples run together. Pure, but for the tables that it remembers.

Path: costs → **sizes** → planner and admission.

Whoever waits wants the mean latency to be small, and that is a sum: a run makes everybody wait for
its seconds, those in it and those behind it. So with n samples that could run together and w more
behind them, the best first run has b samples with

    F(n) = min over b of  (n + w) · seconds(b) + F(n - b),      F(0) = 0.

With few behind, this prefers short runs that answer the first early; the more wait, the more it
prefers what the device does cheapest. Padding and splitting are weighed by the same sum: where 16 or
32 rows can run, and some wait behind, 17 samples leave as 16 and 1.
"""

import math
from collections.abc import Sequence

from service.batching import costs as measured_costs

_FEW = 12
"""Up to so many, every count of samples is considered for a run; beyond, the measured ones and all that wait."""
MANY = 4096
"""So many behind are as good as any number: all that counts is what is cheapest for the device."""
_STEPS = 2
"""Tables for each doubling of those behind."""


class Sizes:
    """The choice of batch sizes for one model.

    Mutable state: the tables, forgotten when the costs change; touched only on the event loop.
    """

    def __init__(self, costs: measured_costs.Costs, samples_max: int) -> None:
        self._costs = costs
        self._samples_max = samples_max
        self._version = costs.version
        self._tables: dict[int, _Table] = {}
        self._counts = self._considered()
        self._full = 0

    def together(self, samples: int, behind: int) -> int:
        """Return how many of so many waiting samples to run now; `behind` them wait more, for later runs."""
        samples = min(samples, self._samples_max)
        if samples == 1 or not self._costs.is_measured:
            return samples
        return self._table(behind).first(samples)

    def among(self, requests: Sequence[int], behind: int) -> int:
        """Return how many samples to run now of requests of more than one sample, none of them divided.

        The same sum over requests instead of samples: nobody is served before his last sample is.
        """
        weight = behind * len(requests) / sum(requests)
        sums_s = [0.0] * (len(requests) + 1)
        best = 0
        for first in range(len(requests) - 1, -1, -1):
            samples = 0
            sums_s[first] = math.inf
            for last in range(first, len(requests)):
                samples += requests[last]
                if samples > self._samples_max and last > first:
                    break
                sum_s = (len(requests) - first + weight) * self._costs.seconds(samples) + sums_s[last + 1]
                if sum_s < sums_s[first]:
                    sums_s[first], best = sum_s, samples
        return min(best, self._samples_max)

    @property
    def full(self) -> int:
        """The size of batches when very many wait."""
        self._refresh()
        if not self._full:
            self._full = self.together(self._samples_max, MANY)
        return self._full

    def _table(self, behind: int) -> "_Table":
        self._refresh()
        level = round(_STEPS * math.log2(1 + min(behind, MANY)))
        if level not in self._tables:
            weight = 2.0 ** (level / _STEPS) - 1
            self._tables[level] = _Table(self._costs, self._counts, weight)
        return self._tables[level]

    def _refresh(self) -> None:
        if self._version != self._costs.version:
            self._version = self._costs.version
            self._tables.clear()
            self._full = 0

    def _considered(self) -> list[int]:
        few = [] if self._costs.pads else range(1, _FEW + 1)
        return sorted(count for count in {*few, *self._costs.counts, self._samples_max} if count <= self._samples_max)


class _Table:
    """The best first run for every number of waiting samples, with so many behind; grown as asked."""

    def __init__(self, costs: measured_costs.Costs, counts: list[int], behind: float) -> None:
        self._runs = [(count, costs.seconds(count)) for count in counts]
        self._costs, self._behind = costs, behind
        self._first, self._sums_s = [0], [0.0]

    def sum_s(self, first: int, samples: int) -> float:
        """What is to be minimal, if so many run first."""
        self.first(samples)
        return (samples + self._behind) * self._costs.seconds(first) + self._sums_s[samples - first]

    def first(self, samples: int) -> int:
        while len(self._first) <= samples:
            self._grow(len(self._first))
        return self._first[samples]

    def _grow(self, samples: int) -> None:
        best, best_s = samples, (samples + self._behind) * self._costs.seconds(samples)
        for count, seconds in self._runs:
            if count >= samples:
                break
            sum_s = (samples + self._behind) * seconds + self._sums_s[samples - count]
            if sum_s < best_s:
                best, best_s = count, sum_s
        self._first.append(best)
        self._sums_s.append(best_s)
