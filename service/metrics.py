"""All numbers that the server publishes: Prometheus metrics, and the exact counts of ModelStatistics.

Path: wire and batcher report → **metrics** → wire.http (/metrics) and wire.describe (ModelStatistics).

Base units in names. Labels from closed sets: model, version, gRPC code, provider. A request for an
unknown model counts under model "".

Counting is done in plain numbers, and becomes Prometheus' families when somebody scrapes: the
library's own objects, made for many threads, cost four times as much for every request. A scrape
from another thread may see a request in one family a moment before it is in the next.
"""

import bisect
import collections
import dataclasses
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import prometheus_client
from prometheus_client import core, registry

from service.runtime import providers

# A LeNet-5 run takes 50 µs, a busy server answers within a second; 1-2.5-5 steps keep quantiles within 2.5 times.
_SECONDS = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
# Powers of two up to the largest batch that anybody configures.
_SAMPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


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


class ModelMetrics:
    """One model version's numbers; loaded again, it counts on. Implements batcher.Observer.

    Mutable state: the counts, written only on the event loop; the queues, only by Metrics.
    """

    def __init__(self, model: str, version: str) -> None:
        self.labels = (model, version)
        self.queues: tuple[Callable[[], int], ...] = ()
        """Say how many samples wait; two while a model is replaced by itself."""
        self.codes: collections.Counter[str] = collections.Counter()
        self.decode, self.wait, self.run = Histogram(_SECONDS), Histogram(_SECONDS), Histogram(_SECONDS)
        self.total, self.batch_size = Histogram(_SECONDS), Histogram(_SAMPLES)
        self.padding = 0
        self.success, self.fail, self.queue = Duration(), Duration(), Duration()
        self.compute_input, self.compute_infer, self.compute_output = Duration(), Duration(), Duration()
        self.samples = 0
        self.runs = 0
        self.last_inference_ms = 0
        self.batches: dict[int, BatchCounts] = collections.defaultdict(BatchCounts)

    def ran(self, samples: int, rows: int, gather_s: float, run_s: float) -> None:
        """A batch has run."""
        self.runs += 1
        self.padding += rows - samples
        counts = self.batches[samples]
        counts.gather.add(gather_s)
        counts.run.add(run_s)
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
        self.total.observe(stages.total_s)

    def failed(self, code: str, total_s: float) -> None:
        """A request was answered with an error, or its caller went away (CANCELLED)."""
        self.fail.add(total_s)
        self.codes[code] += 1

    def queued(self) -> int:
        """Samples that wait."""
        return sum(queue() for queue in self.queues)


class Metrics:
    """The metric families of one server, in a registry of their own.

    Mutable state: `unknown` and `load_failures`, written only on the event loop; the models' numbers, added by the
    loading thread and removed by the event loop, under a lock; the counts of those that are gone.
    """

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self.registry)
        prometheus_client.PlatformCollector(registry=self.registry)
        self.provider = prometheus_client.Gauge(
            "fovea_provider_info",
            "1 for the active execution provider.",
            ("provider",),
            registry=self.registry,
        )
        self.unknown: collections.Counter[str] = collections.Counter()
        """Requests that were for no served model, by gRPC status code."""
        self.load_failures: collections.Counter[str] = collections.Counter()
        """Loads that failed, by model."""
        self._models: dict[tuple[str, str], ModelMetrics] = {}
        self._lock = threading.Lock()
        self._gone = Totals(0, 0)
        self.registry.register(_Families(self._models, self.unknown, self.load_failures))

    def add(self, model: str, version: str, queued: Callable[[], int]) -> ModelMetrics:
        """Return the numbers of one more loaded model; `queued` says how many of its samples wait.

        A version that is there already counts on in the same numbers: to Prometheus it is the same series.
        """
        with self._lock:
            numbers = self._models.setdefault((model, version), ModelMetrics(model, version))
            numbers.queues = (*numbers.queues, queued)
        return numbers

    def remove(self, numbers: ModelMetrics, queued: Callable[[], int]) -> None:
        """Undo `add`: with its last queue a version's numbers are published no more."""
        with self._lock:
            numbers.queues = tuple(queue for queue in numbers.queues if queue is not queued)
            if not numbers.queues and self._models.pop(numbers.labels, None) is not None:
                self._gone += Totals(numbers.success.count, numbers.fail.count)

    def totals(self) -> Totals:
        """Return how all requests for models have ended, those for models that are gone included."""
        return sum((Totals(one.success.count, one.fail.count) for one in self._models.values()), self._gone)

    def set_provider(self, active: str) -> None:
        """Say which execution provider runs the models."""
        for name in (providers.CUDA, providers.CPU):
            self.provider.labels(name).set(name == active)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return prometheus_client.generate_latest(self.registry)

    def sample(self, name: str, labels: dict[str, str]) -> float | None:
        """Return one sample's value; for tests and the drain's closing line."""
        return self.registry.get_sample_value(name, labels)


_BY_MODEL = ("model", "version")
_HISTOGRAMS: tuple[tuple[str, str, Callable[[ModelMetrics], Histogram]], ...] = (
    (
        "fovea_decode_duration_seconds",
        "Decoding a request's images, waiting for a thread included.",
        lambda m: m.decode,
    ),
    ("fovea_queue_duration_seconds", "Waiting for a batch to start.", lambda m: m.wait),
    ("fovea_run_duration_seconds", "One run of the model.", lambda m: m.run),
    ("fovea_request_duration_seconds", "A request from parsed message to finished reply.", lambda m: m.total),
    ("fovea_batch_size", "Samples in one run.", lambda m: m.batch_size),
)
_COUNTERS: tuple[tuple[str, str, Callable[[ModelMetrics], int]], ...] = (
    ("fovea_images", "Samples answered with OK.", lambda m: m.samples),
    ("fovea_padding_rows", "Rows run to fill a batch up, for nobody.", lambda m: m.padding),
)


class _Families(registry.Collector):
    """The models' numbers as Prometheus' families, made anew for every scrape."""

    def __init__(
        self,
        models: Mapping[tuple[str, str], ModelMetrics],
        unknown: collections.Counter[str],
        load_failures: collections.Counter[str],
    ) -> None:
        self._models, self._unknown, self._load_failures = models, unknown, load_failures

    def collect(self) -> Iterator[core.Metric]:
        models = list(self._models.values())  # models come and go; a scrape sees those of one moment
        requests = core.CounterMetricFamily(
            "fovea_requests", "Requests answered, by gRPC status code.", labels=(*_BY_MODEL, "code")
        )
        for labels, codes in (*((model.labels, model.codes) for model in models), (("", ""), self._unknown)):
            for code, count in sorted(codes.items()):
                requests.add_metric((*labels, code), count)
        yield requests
        for name, text, number in _COUNTERS:
            counter = core.CounterMetricFamily(name, text, labels=_BY_MODEL)
            for model in models:
                counter.add_metric(model.labels, number(model))
            yield counter
        for name, text, histogram in _HISTOGRAMS:
            family = core.HistogramMetricFamily(name, text, labels=_BY_MODEL)
            for model in models:
                found = histogram(model)
                family.add_metric(model.labels, found.buckets(), found.sum)
            yield family
        waiting = core.GaugeMetricFamily(
            "fovea_queue_samples", "Samples admitted and not yet running.", labels=_BY_MODEL
        )
        for model in models:
            waiting.add_metric(model.labels, model.queued())
        yield waiting
        failures = core.CounterMetricFamily(
            "fovea_model_load_failures", "Loads that failed; RepositoryIndex and the log say why.", labels=("model",)
        )
        for name, count in sorted(self._load_failures.items()):
            failures.add_metric((name,), count)
        yield failures
