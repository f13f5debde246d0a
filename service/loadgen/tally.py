"""What one generator has counted: sums that add up exactly over processes, and as large after a day as after a minute.

Path: ledger → **tally** → result.

Full arrays of times would be exact, too, but grow by 25 bytes a request: 900 MB an hour at 10 000 a second, to be sent
from process to process. Histograms (0.14 %) are as good for every question that a report answers. Kept as they are:
the times of the answers near both ends of the measured time, because a rate counted between bursts needs them.
"""

import collections
import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from service.loadgen import histogram, plan

EDGE = 0.2
"""Share of the measured time at either end in which the rates' period may begin and end."""

EDGE_MAX_S = 2.0
"""And never more than this: no batch takes longer, and what is kept of a long run stays small."""

WINDOWS = 60
"""About so many in a run: enough to see a second in a minute, few enough for a picture and for percentiles in each."""

Times = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """A run's times on `time.monotonic`'s clock, and what its plan says about counting."""

    started_s: float
    measured_from_s: float
    window_s: float
    edge_s: float
    deadline_s: float
    counts_intended: bool
    """What was meant to be sent in the measured time counts: of an open loop, and where so many requests were asked
    for; otherwise, of a closed loop, what ended in it."""


def frame(chosen: plan.Plan, started_s: float) -> Frame:
    """Return the frame of a run that begins at a moment; all processes that share a run share it."""
    return Frame(
        started_s=started_s,
        measured_from_s=started_s + chosen.warmup_s,
        window_s=window_s(chosen),
        edge_s=min(EDGE * chosen.duration_s, EDGE_MAX_S),
        deadline_s=chosen.deadline_s or math.inf,
        # What callers had under way when the warm-up ended would come on top of the requests that were asked for.
        counts_intended=isinstance(chosen.loop, plan.Open) or chosen.requests_max is not None,
    )


def window_s(chosen: plan.Plan) -> float:
    """Return a round width, 1, 2 or 5 times a power of ten.

    It makes about WINDOWS of the duration, fewer where an open loop would send less than ten requests in one.
    """
    exact = max(chosen.duration_s / WINDOWS, 0.05)
    if isinstance(chosen.loop, plan.Open):
        exact = max(exact, min(10 / chosen.loop.rate_per_s, chosen.duration_s / 10))
    power = 10.0 ** math.floor(math.log10(exact) + 1e-9)
    return next((step * power for step in (1, 2, 5) if step * power >= exact * (1 - 1e-9)), 10 * power)


@dataclasses.dataclass(slots=True)
class Window:
    """One part of the measured time: requests meant to be sent in it, ended in it, and the latter's latency."""

    intended: int = 0
    ok: int = 0
    failed: int = 0
    latency: histogram.Histogram = dataclasses.field(default_factory=histogram.Histogram)

    def merge(self, other: "Window") -> None:
        """Count what the other has counted, too."""
        self.intended += other.intended
        self.ok += other.ok
        self.failed += other.failed
        self.latency.merge(other.latency)


@dataclasses.dataclass(slots=True)
class Answers:
    """When answers came, near the beginning and the end of the measured time; in between, how many."""

    head_s: Times = dataclasses.field(default_factory=lambda: np.empty(0))
    between: int = 0
    tail_s: Times = dataclasses.field(default_factory=lambda: np.empty(0))

    def add(self, ended_s: Times, head_until_s: float, tail_s: float) -> None:
        """Note answers, in order of their coming."""
        in_head = int(np.searchsorted(ended_s, head_until_s))
        self.head_s = np.concatenate((self.head_s, ended_s[:in_head]))
        tail = np.concatenate((self.tail_s, ended_s[in_head:]))
        kept_from = int(np.searchsorted(tail, tail[-1] - tail_s)) if len(tail) else 0
        self.between += kept_from
        self.tail_s = tail[kept_from:]

    def merge(self, other: "Answers") -> None:
        """Note the other's, too."""
        self.head_s = np.sort(np.concatenate((self.head_s, other.head_s)))
        self.tail_s = np.sort(np.concatenate((self.tail_s, other.tail_s)))
        self.between += other.between

    def __len__(self) -> int:
        return len(self.head_s) + self.between + len(self.tail_s)

    def rate_per_s(self, from_s: float, until_s: float) -> float:
        """Answers per second from the end of one burst to the end of another; the window's where there are too few."""
        edge_s = min(EDGE * (until_s - from_s), EDGE_MAX_S)
        near_s = np.concatenate((self.head_s, self.tail_s))
        first = _burst_end(near_s, from_s, from_s + edge_s)
        last = _burst_end(near_s, until_s - edge_s, until_s)
        if first is not None and last is not None and near_s[last] > near_s[first]:
            skipped = self.between if first < len(self.head_s) <= last else 0
            return float((last - first + skipped) / (near_s[last] - near_s[first]))
        return len(self) / max(until_s - from_s, 1e-9)


def _burst_end(answered_s: Times, from_s: float, to_s: float) -> int | None:
    """The answer in a part of the window after which nothing came for longest: the end of a burst."""
    start, stop = np.searchsorted(answered_s, (from_s, to_s))
    gaps_s = np.diff(answered_s[start : stop + 1])
    return int(start + gaps_s.argmax()) if len(gaps_s) else (int(start) if stop > start else None)


def _histogram() -> histogram.Histogram:
    return histogram.Histogram()


@dataclasses.dataclass(slots=True)
class Tally:
    """All counts of one run. `measured` is without the warm-up, `whole` with it; both of answers with OK.

    Mutable state: all of it; touched only by the ledger that fills it, then by whoever merges.
    """

    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Of the measured time, by status."""
    all_counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    sentences: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Of the measured time, too: errors' words, without their numbers."""
    measured: histogram.Histogram = dataclasses.field(default_factory=_histogram)
    """Seconds from the intended sending to the answer."""
    from_sent: histogram.Histogram = dataclasses.field(default_factory=_histogram)
    """The same requests' seconds from the sending itself: without what the generator was late."""
    whole: histogram.Histogram = dataclasses.field(default_factory=_histogram)
    lag: histogram.Histogram = dataclasses.field(default_factory=_histogram)
    """How late requests were sent."""
    in_time: int = 0
    windows: dict[int, Window] = dataclasses.field(default_factory=dict)
    answered: Answers = dataclasses.field(default_factory=Answers)
    good: Answers = dataclasses.field(default_factory=Answers)
    first_sent_s: float = math.inf
    last_ended_s: float = -math.inf

    def merge(self, other: "Tally") -> None:
        """Count what another process has counted of the same run, too."""
        self.counts += other.counts
        self.all_counts += other.all_counts
        self.sentences += other.sentences
        for mine, its in (
            (self.measured, other.measured), (self.from_sent, other.from_sent), (self.whole, other.whole),
            (self.lag, other.lag),
        ):  # fmt: skip
            mine.merge(its)
        self.in_time += other.in_time
        for number, window in other.windows.items():
            self.windows.setdefault(number, Window()).merge(window)
        self.answered.merge(other.answered)
        self.good.merge(other.good)
        self.first_sent_s = min(self.first_sent_s, other.first_sent_s)
        self.last_ended_s = max(self.last_ended_s, other.last_ended_s)
