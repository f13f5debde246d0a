"""Axes: where a value is drawn, and which values get a tick.

Path: charts → **scales**.
"""

import dataclasses
import math
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True, slots=True)
class Scale:
    """From values to pixels; `low` is drawn at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return the pixel of a value; values outside lie at the ends."""
        value = min(max(value, self.low), self.high)
        if self.is_log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Return round values between the ends."""
        return _log_ticks(self.low, self.high, about) if self.is_log else _even_ticks(self.low, self.high, about)


def from_zero(values: Iterable[float], start: float, end: float) -> Scale:
    """Return a scale from 0 to a little more than the largest value."""
    most = max((value for value in values if math.isfinite(value)), default=0.0)
    return Scale(0.0, most * 1.08 or 1.0, start, end)


def around(values: Iterable[float], start: float, end: float) -> Scale:
    """Return a logarithmic scale around positive values."""
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    low, high = min(positive, default=1.0), max(positive, default=10.0)
    middle = math.sqrt(low * high)
    return Scale(min(low / 1.15, middle / 1.6), max(high * 1.15, middle * 1.6), start, end, is_log=True)


def fitting(values: Iterable[float], start: float, end: float, spread: float = 20.0) -> Scale:
    """Return a scale from 0, or a logarithmic one where values are further apart than `spread` times."""
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    if positive and max(positive) / min(positive) > spread:
        return around(positive, start, end)
    return from_zero(positive, start, end)


def number(value: float) -> str:
    """Return a tick's text: no more digits than it needs."""
    if value >= 1e4:
        return f"{value / 1e3:g}k"
    return f"{value:.4g}"


def _even_ticks(low: float, high: float, about: int) -> list[float]:
    step = _round_up((high - low) / about)
    first = math.ceil(low / step - 1e-9)
    return [round(count * step, 12) for count in range(first, math.floor(high / step + 1e-9) + 1)]


def _round_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))


def _log_ticks(low: float, high: float, about: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) <= about + 2:
            break
    return inside
