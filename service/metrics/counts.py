"""What is counted while requests pass, in plain numbers of one model version.

Path: wire and batcher report → **counts** → families, triton, and wire.describe (ModelStatistics).
"""

import bisect
import collections
import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence

from service import errors
from service.batching import queue
from service.metrics import occupancy

# A LeNet-5 run takes 50 µs, a busy server answers within a second; 1-2.5-5 steps keep quantiles within 2.5 times.
_SECONDS = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
# Copying a batch into its place and writing an answer take 5 µs for LeNet-5 and milliseconds for feature maps.
_SHORT_SECONDS = (
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
)  # fmt: skip
# Powers of two up to the largest batch that anybody configures.
_SAMPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

# These are published from the start, at zero: Prometheus does not see the growth of what was not there before.
CODES = ("OK", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")
SHED: tuple[tuple[type[errors.FoveaError], str], ...] = (
    (errors.QueueFull, "queue_full"),
    (errors.TooLate, "too_late"),
    (errors.DeadlineExceeded, "deadline"),
    (errors.RateExceeded, "rate"),
    (errors.CallerFull, "caller"),
    (errors.Refused, "other"),
)
"""Why a request was not run although it was well-formed, by its error: the first kind that fits."""


@dataclasses.dataclass(slots=True)
class Stages:
    """Seconds that a request spent in each stage; `total_s` is measured at the edge, around all of them."""

    decode_s: float
    queue_s: float
    gather_s: float
    run_s: float
    reply_s: float
    total_s: float


@dataclasses.dataclass(slots=True)
class Duration:
    """How often, and how many nanoseconds in all."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float, count: int = 1) -> None:
        """Count something that took so long."""
        self.count += count
        self.ns += round(seconds * 1e9)


@dataclasses.dataclass(slots=True)
class BatchCounts:
    """Runs of one batch size."""

    gather: Duration = dataclasses.field(default_factory=Duration)
    run: Duration = dataclasses.field(default_factory=Duration)


class Histogram:
    """How many values fell into which bucket. Mutable state: the counts; one thread writes, any may read."""

    __slots__ = ("counts", "edges", "sum")

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value in the first bucket whose edge is not below it."""
        self.counts[bisect.bisect_left(self.edges, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, int]]:
        """Return Prometheus' cumulative buckets: upper edge and how many values are not above it."""
        names = [*(str(float(edge)) for edge in self.edges), "+Inf"]
        return list(zip(names, itertools.accumulate(self.counts), strict=True))


@dataclasses.dataclass(frozen=True, slots=True)
class Totals:
    """Requests answered with OK, and with an error."""

    ok: int
    failed: int

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(self.ok + other.ok, self.failed + other.failed)


@dataclasses.dataclass(frozen=True, slots=True)
class Watched:
    """What is looked at when somebody scrapes, of one loaded model. Called from any thread."""

    waiting: Callable[[], queue.Waiting]
    """What waits to run."""
    costs_s: Callable[[], Mapping[int, float]]
    """Expected seconds of a run by its rows; empty where nothing could be measured."""
    instances: int
    """Runs that compute at the same time."""


class ModelMetrics:
    """One model version's numbers; loaded again, it counts on. Implements batcher.Observer.

    Mutable state: the counts, written only on the event loop; what is watched, only by Metrics.
    """

    def __init__(self, model: str, version: str, device: occupancy.Busy) -> None:
        self.labels = (model, version)
        self.watched: tuple[Watched, ...] = ()
        """Two while a model is replaced by itself."""
        self.codes = collections.Counter(dict.fromkeys(CODES, 0))
        self.shed = collections.Counter({reason: 0 for _, reason in SHED})
        self.busy = occupancy.Busy()
        self._device = device
        self.decode, self.wait, self.run = Histogram(_SECONDS), Histogram(_SECONDS), Histogram(_SECONDS)
        self.copy, self.reply = Histogram(_SHORT_SECONDS), Histogram(_SHORT_SECONDS)
        self.total, self.batch_size = Histogram(_SECONDS), Histogram(_SAMPLES)
        self.padding = 0
        self.success, self.fail, self.queue = Duration(), Duration(), Duration()
        self.compute_input, self.compute_infer, self.compute_output = Duration(), Duration(), Duration()
        self.samples = 0
        self.runs = 0
        self.last_inference_ms = 0
        self.batches: dict[int, BatchCounts] = collections.defaultdict(BatchCounts)

    def occupied(self, share: float, now_s: float) -> None:
        """A run has taken a share of the model's instances, or, if it is negative, given it back."""
        self.busy.occupy(share, now_s)
        self._device.occupy(share, now_s)

    def ran(self, samples: int, rows: int, gather_s: float, run_s: float) -> None:
        """A batch has run."""
        self.runs += 1
        self.padding += rows - samples
        counts = self.batches[samples]
        counts.gather.add(gather_s)
        counts.run.add(run_s)
        self.copy.observe(gather_s)
        self.run.observe(run_s)
        self.batch_size.observe(samples)

    def succeeded(self, samples: int, stages: Stages, *, had_images: bool) -> None:
        """A request was answered with OK."""
        self.samples += samples
        self.last_inference_ms = time.time_ns() // 1_000_000
        self.success.add(stages.total_s)
        self.queue.add(stages.queue_s)
        self.compute_input.add(stages.decode_s + stages.gather_s)
        self.compute_infer.add(stages.run_s)
        self.compute_output.add(stages.reply_s)
        self.codes["OK"] += 1
        if had_images:
            self.decode.observe(stages.decode_s)
        self.wait.observe(stages.queue_s)
        self.reply.observe(stages.reply_s)
        self.total.observe(stages.total_s)

    def failed(self, code: str, total_s: float, error: BaseException | None = None) -> None:
        """A request was answered with an error, or its caller went away (CANCELLED)."""
        self.fail.add(total_s)
        self.codes[code] += 1
        for kind, reason in SHED:
            if isinstance(error, kind):
                self.shed[reason] += 1
                break

    def waiting(self) -> queue.Waiting:
        """What waits to run."""
        now = [watched.waiting() for watched in self.watched]
        return queue.Waiting(
            sum(one.samples for one in now),
            sum(one.requests for one in now),
            max((one.oldest_age_s for one in now), default=0.0),
        )
