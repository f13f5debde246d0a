"""What became of a trace's requests under one policy."""

import math

import numpy as np

from tests.bench.simulation import traces


class Outcome:
    """Mutable state: filled by the policy as it goes."""

    def __init__(self, trace: traces.Trace) -> None:
        self.trace = trace
        self.ended_s = [math.inf] * len(trace.arrivals)
        """When each request was answered; infinity if it was refused or dropped."""
        self.accepted = 0
        """Requests that were let in."""
        self.rows_run = 0

    @property
    def mean_s(self) -> float:
        """Mean latency of the answered."""
        return float(np.mean(self._latencies_s()))

    def percentile_s(self, percent: float) -> float:
        """A percentile of the latency of the answered."""
        return float(np.percentile(self._latencies_s(), percent))

    @property
    def goodput(self) -> float:
        """Samples answered in time, per second."""
        return self._in_time() / self.trace.duration_s

    @property
    def wasted(self) -> float:
        """The share of the rows run that was padding, or whose answer came too late."""
        return 1 - self._in_time() / self.rows_run if self.rows_run else 0.0

    @property
    def kept(self) -> float:
        """The share of the requests let in that were answered in time."""
        pairs = zip(self.trace.arrivals, self.ended_s, strict=True)
        return sum(ended_s <= one.deadline_s for one, ended_s in pairs if ended_s < math.inf) / max(1, self.accepted)

    def _in_time(self) -> int:
        pairs = zip(self.trace.arrivals, self.ended_s, strict=True)
        return sum(one.samples for one, ended_s in pairs if ended_s < math.inf and ended_s <= one.deadline_s)

    def _latencies_s(self) -> list[float]:
        pairs = zip(self.trace.arrivals, self.ended_s, strict=True)
        return [ended_s - one.at_s for one, ended_s in pairs if ended_s < math.inf] or [math.inf]
