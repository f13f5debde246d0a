"""Durations counted in buckets that are as wide as they are long: any number of them in the same memory.

Path: ledger → **histogram** → result.

256 buckets to each doubling, from a microsecond to half an hour: a value is known to 0.14 %, half a bucket's width,
far below what one run differs from the next. In return a run of a day takes no more memory than one of a minute, and
what several processes counted adds up without any further error: bucket by bucket, integers.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LEAST_S = 1e-6
PER_DOUBLING = 256
DOUBLINGS = 31
BUCKETS = PER_DOUBLING * DOUBLINGS
"""About 8000; the last takes all that is longer than 36 minutes."""

EDGES_S: NDArray[np.float64] = LEAST_S * 2.0 ** (np.arange(BUCKETS + 1) / PER_DOUBLING)
"""Bucket i holds values in [EDGES_S[i], EDGES_S[i + 1]); the first also all that is shorter."""


@dataclasses.dataclass(slots=True)
class Histogram:
    """How many values fell into which bucket; the shortest, the longest and the sum as they were.

    Mutable state: all of it; touched only by its owner.
    """

    counts: NDArray[np.int64] = dataclasses.field(default_factory=lambda: np.zeros(BUCKETS, np.int64))
    sum_s: float = 0.0
    min_s: float = np.inf
    max_s: float = 0.0

    def add(self, values_s: NDArray[np.float64]) -> None:
        """Count values, (n,) seconds."""
        if not len(values_s):
            return
        places = np.log2(np.maximum(values_s, LEAST_S) / LEAST_S) * PER_DOUBLING
        self.counts += np.bincount(np.minimum(places.astype(np.intp), BUCKETS - 1), minlength=BUCKETS)
        self.sum_s += float(values_s.sum())
        self.min_s = min(self.min_s, float(values_s.min()))
        self.max_s = max(self.max_s, float(values_s.max()))

    def merge(self, other: "Histogram") -> None:
        """Count what the other has counted, too; exact."""
        self.counts += other.counts
        self.sum_s += other.sum_s
        self.min_s, self.max_s = min(self.min_s, other.min_s), max(self.max_s, other.max_s)

    def __len__(self) -> int:
        return int(self.counts.sum())

    @property
    def mean_s(self) -> float:
        """The mean, exact; 0 of nothing."""
        return self.sum_s / max(len(self), 1)

    def quantiles_s(self, shares: Sequence[float]) -> list[float]:
        """Return the values below which these shares of all lie; NaN of nothing.

        Within a bucket values are taken to lie evenly. The ends are exact.
        """
        total = len(self)
        if not total:
            return [float("nan")] * len(shares)
        cumulative = np.cumsum(self.counts)
        ranks = np.asarray(shares, np.float64) * (total - 1)
        places = np.searchsorted(cumulative, ranks, side="right")
        inside = (ranks - (cumulative[places] - self.counts[places]) + 0.5) / self.counts[places]
        values = EDGES_S[places] + inside * (EDGES_S[places + 1] - EDGES_S[places])
        values = np.clip(values, self.min_s, self.max_s)
        values[ranks <= 0], values[ranks >= total - 1] = self.min_s, self.max_s
        return [float(value) for value in values]

    def bars(self, per_doubling: int) -> list[tuple[float, float, int]]:
        """Return (from, to, count) of coarser buckets, for drawing, without the empty ones at both ends."""
        width = PER_DOUBLING // per_doubling
        coarse = self.counts.reshape(-1, width).sum(axis=1)
        filled = np.flatnonzero(coarse)
        if not len(filled):
            return []
        return [
            (float(EDGES_S[place * width]), float(EDGES_S[(place + 1) * width]), int(coarse[place]))
            for place in range(int(filled[0]), int(filled[-1]) + 1)
        ]


def merged(several: Sequence[Histogram]) -> Histogram:
    """Return one histogram of all."""
    whole = Histogram()
    for one in several:
        whole.merge(one)
    return whole
