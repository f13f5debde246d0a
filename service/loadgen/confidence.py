"""How far a run's figures can be trusted: what its parts say about the whole.

Path: tally → **confidence** → result.

The measured time is cut into up to ten parts. If their rates scatter by little, another run will say the same; the
interval is Student's for the mean of the parts (batch means: parts depend on each other less than requests do).
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from service.loadgen import histogram, tally

PARTS_MAX = 10

_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Two-sided 95 % points of Student's t for 1 to 9 degrees of freedom."""

DRIFT_MAX = 0.1
"""Between the halves of a run. Ten percent is more than a steady server on a quiet machine shows in ten seconds."""

BEYOND_MIN = 10
"""Answers that have to lie beyond a percentile before it means much."""


@dataclasses.dataclass(frozen=True, slots=True)
class Confidence:
    """The rate's 95 % interval, the range of p99 over the parts, and how the second half differs from the first."""

    parts: int
    part_s: float
    requests_per_s: float
    plus_minus_per_s: float
    p99_least_s: float
    p99_most_s: float
    drift: float
    """Of the rate, from the first half to the second, as a share."""
    beyond_p99: int
    """Answers that took longer than p99: few of them make it a matter of luck."""

    @property
    def is_steady(self) -> bool:
        """Whether the halves agree, as far as can be told from so few parts."""
        return abs(self.drift) <= max(DRIFT_MAX, 2 * self.plus_minus_per_s / max(self.requests_per_s, 1e-9))


def of(windows: Sequence[tally.Window], window_s: float, measured: histogram.Histogram) -> Confidence | None:
    """Return what the full windows of a run say; None of fewer than two, or where nothing was answered."""
    parts = _parts(windows)
    if len(parts) < 2 or not len(measured):
        return None
    part_s = window_s * (len(windows) // len(parts))
    rates = np.array([part.ok / part_s for part in parts])
    p99s_s = [part.latency.quantiles_s((0.99,))[0] for part in parts if part.ok]
    half = len(parts) // 2
    first, second = rates[:half].mean(), rates[-half:].mean()
    return Confidence(
        parts=len(parts),
        part_s=part_s,
        requests_per_s=float(rates.mean()),
        plus_minus_per_s=_STUDENT[len(parts) - 2] * float(rates.std(ddof=1)) / math.sqrt(len(parts)),
        p99_least_s=min(p99s_s, default=0.0),
        p99_most_s=max(p99s_s, default=0.0),
        drift=float(second / first - 1) if first else 0.0,
        beyond_p99=math.floor(0.01 * len(measured)),
    )


def _parts(windows: Sequence[tally.Window]) -> list[tally.Window]:
    """Equal groups of windows, what is left over at the beginning left out."""
    size = max(math.ceil(len(windows) / PARTS_MAX), 1)
    first = len(windows) % size
    parts = []
    for start in range(first, len(windows), size):
        part = tally.Window()
        for window in windows[start : start + size]:
            part.merge(window)
        parts.append(part)
    return parts
