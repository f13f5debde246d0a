"""When the requests of an open loop arrive.

Path: plan → **arrivals** → traffic.
"""

import math
import random
from collections.abc import Iterator

from service.loadgen import plan


def times_s(loop: plan.Open, started_s: float, warmup_s: float) -> Iterator[float]:
    """When requests arrive, without end, from `started_s` on.

    Arrivals of rate 1 are drawn, then moved to when as many are expected at the loop's rate: that makes a
    Poisson process of any changing rate out of one of rate 1, and equal gaps out of whole numbers.
    """
    source = random.Random(loop.seed)
    expected = 0.0 if loop.arrivals == "poisson" else loop.phase
    while True:
        expected += source.expovariate(1.0) if loop.arrivals == "poisson" else 1.0
        yield started_s + _when_s(loop, expected, warmup_s)


def rate_per_s(loop: plan.Open, elapsed_s: float, warmup_s: float) -> float:
    """Return the rate so many seconds after the beginning."""
    if loop.ramp is None:
        return loop.rate_per_s
    share = min(max((elapsed_s - warmup_s) / loop.ramp.within_s, 0.0), 1.0)
    return loop.rate_per_s + share * (loop.ramp.to_per_s - loop.rate_per_s)


def _when_s(loop: plan.Open, expected: float, warmup_s: float) -> float:
    """When so many arrivals are expected: the inverse of the rate's integral.

    Cases: 1. at the first rate: no ramp, or the warm-up; 2. on the ramp; 3. after it.
    """
    first = loop.rate_per_s
    if loop.ramp is None or expected <= first * warmup_s:  # case 1
        return expected / first
    left, last, within_s = expected - first * warmup_s, loop.ramp.to_per_s, loop.ramp.within_s
    on_ramp = within_s * (first + last) / 2
    if left >= on_ramp:  # case 3
        return warmup_s + within_s + (left - on_ramp) / last
    # Case 2: first * t + slope / 2 * t^2 = left, in the form that also holds for a slope of nothing.
    slope = (last - first) / within_s
    return warmup_s + 2 * left / (first + math.sqrt(first * first + 2 * slope * left))
