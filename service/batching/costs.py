"""What a run of so many rows costs: measured when the model is loaded, corrected while it serves.

Path: runtime measures → **costs** → sizes, planner and admission.
"""

import bisect
import dataclasses
from collections.abc import Hashable, Mapping

_MEMORY_RUNS = 20
"""Runs that the correction of all is the mean of, nearly."""
_MEMORY_RUNS_OF_SIZE = 80
"""Runs of one size that its correction beside the others is the mean of."""
_PRIOR_RUNS = 4
"""What was measured at load counts as so many runs."""
_NEWS = 0.05
"""Corrections that change a cost by less do not reach the tables: whoever reads them twice should read the same."""
_MARGIN_MIN, _MARGIN_MAX = 1.02, 1.5
_SHAPES_MAX = 256
"""Shapes whose costs are remembered, where nothing could be measured."""


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of a run by its rows, as measured at load."""

    seconds: Mapping[int, float]
    """Empty where nothing could be measured: images of any size."""
    pads: bool
    """True: only these counts of rows can run, others are filled up. False: any count up to the largest."""


class Costs:
    """The costs of one model's runs.

    Between the measured counts of rows costs are interpolated. The runs correct them: all together
    as the device becomes slower or faster, and each beside the others, so that a size that has not
    run for long is not judged by what the device was like then. Both are moving means over the middle
    one of the last three, so that one run that lost its processor changes nothing. Where nothing was
    measured, the cost of a sample is learnt from the runs, for every shape by itself; what has not run
    yet costs 0.

    Mutable state: the corrections and the table made of them; touched only on the event loop.
    """

    def __init__(self, measured: Measured, overhead_s: float = 0.0) -> None:
        """Take what was measured; `overhead_s` is what a run costs besides, for planning, handing over, answering."""
        self.version = 0
        """Changes whenever `seconds` does."""
        self.margin = 1.1
        """Runs are rarely longer than so many times their expected seconds: the mean error counts twice."""
        self._points = [_Point(rows, measured.seconds[rows] + overhead_s) for rows in sorted(measured.seconds)]
        self._pads = measured.pads
        self._overhead_s = overhead_s if measured.seconds else 0.0
        counts = range(self._points[-1].rows + 1) if self._points else range(0)
        self._measured_s = self._of_all([point.measured_s for point in self._points])
        """What was measured at load, by samples; between the points interpolated."""
        self._nearest = [self._points[self._nearest_place(samples)] for samples in counts]
        self._all = _Correction(_MEMORY_RUNS)
        self._compared = _Correction(_MEMORY_RUNS)
        """Of all sizes too, by the clock by which they are compared."""
        self._table: list[float] = []
        self._unmeasured = _PerSample()
        self._tabulate()

    @property
    def is_known(self) -> bool:
        """Whether anything is known yet."""
        return bool(self._points) or self._unmeasured.mean_s > 0

    @property
    def is_measured(self) -> bool:
        """Whether different counts of rows can be compared."""
        return bool(self._points)

    @property
    def pads(self) -> bool:
        """Whether runs are filled up to certain counts of rows."""
        return self._pads and bool(self._points)

    @property
    def rows_max(self) -> int | None:
        """The most rows of one run; None where nothing was measured."""
        return self._points[-1].rows if self._points else None

    @property
    def counts(self) -> list[int]:
        """The measured counts of rows, ascending."""
        return [point.rows for point in self._points]

    def expected_s(self) -> dict[int, float]:
        """Return the expected seconds of every measured count of rows. From any thread."""
        table = self._table
        return {point.rows: table[point.rows] for point in self._points}

    def rows(self, samples: int) -> int:
        """Return the rows that run for so many samples: more, where batches are padded."""
        if not self.pads:
            return samples
        return self._points[self._place(samples)].rows

    def seconds(self, samples: int, shape: Hashable = None) -> float:
        """Return what so many samples are expected to take on one device, in several runs if one is too small.

        Args:
            samples: how many.
            shape: of one of them; None for any, which counts only where nothing was measured.
        """
        if not self._points:
            return samples * self._unmeasured.seconds(shape)
        if samples < len(self._table):
            return self._table[samples]
        runs, rest = divmod(samples, len(self._table) - 1)
        return runs * self._table[-1] + self._table[rest]

    def least_s(self, samples: int) -> float:
        """Return what so many samples take at least, whatever their shape."""
        return self.seconds(samples) if self._points else samples * self._unmeasured.least_s

    def within(self, seconds: float) -> int:
        """Return how many samples run together within so many seconds; at least 1."""
        return max(1, bisect.bisect_right(self._table, seconds) - 1)

    def observe(self, samples: int, seconds: float, shape: Hashable = None, *, cpu_s: float = 0.0) -> None:
        """Correct the costs by a run.

        Args:
            samples: how many ran.
            seconds: from its start to its end.
            shape: of a sample.
            cpu_s: of the thread that ran it; 0 where that is not what it costs.
        """
        seconds += self._overhead_s
        expected_s = self.seconds(samples, shape)
        if expected_s > 0:
            error = min(1.0, abs(seconds / expected_s - 1))
            self.margin += (min(_MARGIN_MAX, max(_MARGIN_MIN, 1 + 2 * error)) - self.margin) / _MEMORY_RUNS
        if not self._points:
            self._unmeasured.observe(seconds / samples, shape)
            return
        samples = min(samples, len(self._nearest) - 1)
        before_s = self._measured_s[samples]
        if before_s <= 0:
            return
        point = self._nearest[samples]
        self._all.observe(seconds / before_s)
        factor = (cpu_s + self._overhead_s if cpu_s else seconds) / before_s
        self._compared.observe(factor)
        point.correction.observe(factor / self._compared.factor)
        if abs(point.correction.factor * self._all.factor / point.tabulated - 1) > _NEWS:
            self._tabulate()

    def _place(self, samples: int) -> int:
        """The first point with room for so many samples; the last, if none has."""
        for place, point in enumerate(self._points):
            if point.rows >= samples:
                return place
        return len(self._points) - 1

    def _nearest_place(self, samples: int) -> int:
        place = self._place(samples)
        if self.pads or place == 0:
            return place
        low, high = self._points[place - 1].rows, self._points[place].rows
        return place - 1 if samples - low < high - samples else place

    def _of_all(self, seconds: list[float]) -> list[float]:
        """The points' seconds, for every count of samples from 0."""
        return (
            [0.0, *(self._between(samples, seconds) for samples in range(1, self._points[-1].rows + 1))]
            if seconds
            else []
        )

    def _between(self, samples: int, seconds: list[float]) -> float:
        place = self._place(samples)
        high = self._points[place].rows
        if self.pads or place == 0 or samples >= high:
            return seconds[place]
        low = self._points[place - 1].rows
        share = (samples - low) / (high - low)
        return seconds[place - 1] * (1 - share) + seconds[place] * share

    def _tabulate(self) -> None:
        """Write down the corrected seconds of every count of samples."""
        if not self._points:
            return
        for point in self._points:
            point.tabulated = point.correction.factor * self._all.factor
        self._table = self._of_all([point.measured_s * point.tabulated for point in self._points])
        self.version += 1


class _Correction:
    """How much longer than expected runs take: a moving mean over the middle one of each three."""

    __slots__ = ("_before", "_memory_runs", "factor", "runs")

    def __init__(self, memory_runs: int) -> None:
        self._memory_runs = memory_runs
        self.factor = 1.0
        self.runs = 0
        self._before = (1.0, 1.0)

    def observe(self, factor: float) -> None:
        older, old = self._before
        self._before = (old, factor)
        self.runs += 1
        middle = sorted((older, old, factor))[1]
        self.factor += (middle - self.factor) / min(self._memory_runs, _PRIOR_RUNS + self.runs)


class _Point:
    """One measured count of rows."""

    __slots__ = ("correction", "measured_s", "rows", "tabulated")

    def __init__(self, rows: int, measured_s: float) -> None:
        self.rows, self.measured_s = rows, measured_s
        self.correction = _Correction(_MEMORY_RUNS_OF_SIZE)
        self.tabulated = 1.0


class _PerSample:
    """Seconds of a sample, learnt from runs alone."""

    def __init__(self) -> None:
        self.mean_s = 0.0
        self.least_s = 0.0
        self._by_shape: dict[Hashable, float] = {}

    def seconds(self, shape: Hashable) -> float:
        return self.mean_s if shape is None else self._by_shape.get(shape, 0.0)

    def observe(self, seconds: float, shape: Hashable) -> None:
        if len(self._by_shape) >= _SHAPES_MAX and shape not in self._by_shape:
            del self._by_shape[next(iter(self._by_shape))]
        known_s = self._by_shape.get(shape, seconds)
        self._by_shape[shape] = known_s + (seconds - known_s) / _PRIOR_RUNS
        self.mean_s = (self.mean_s or seconds) + (seconds - (self.mean_s or seconds)) / _MEMORY_RUNS
        self.least_s = min(self._by_shape.values())
