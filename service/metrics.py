"""All numbers that the server publishes: Prometheus metrics, and the exact counts of ModelStatistics.

Path: wire and batcher report → **metrics** → wire.http (/metrics) and wire.describe (ModelStatistics).

Base units in names. Labels from closed sets: model, version, gRPC code, provider. A request for an
unknown model counts under model "".
"""

import collections
import dataclasses
import time

import prometheus_client

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


class Metrics:
    """The metric families of one server, in a registry of their own.

    Mutable state: the registry's; prometheus_client's locks guard it.
    """

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self.registry)
        prometheus_client.PlatformCollector(registry=self.registry)
        by_model = ("model", "version")

        def seconds(name: str, text: str) -> prometheus_client.Histogram:
            return prometheus_client.Histogram(name, text, by_model, buckets=_SECONDS, registry=self.registry)

        self.requests = prometheus_client.Counter(
            "fovea_requests_total",
            "Requests answered, by gRPC status code.",
            (*by_model, "code"),
            registry=self.registry,
        )
        self.images = prometheus_client.Counter(
            "fovea_images_total", "Samples answered with OK.", by_model, registry=self.registry
        )
        self.decode = seconds(
            "fovea_decode_duration_seconds", "Decoding a request's images, waiting for a thread included."
        )
        self.queue = seconds("fovea_queue_duration_seconds", "Waiting for a batch to start.")
        self.run = seconds("fovea_run_duration_seconds", "One run of the model.")
        self.total = seconds("fovea_request_duration_seconds", "A request from parsed message to finished reply.")
        self.batch_size = prometheus_client.Histogram(
            "fovea_batch_size", "Samples in one run.", by_model, buckets=_SAMPLES, registry=self.registry
        )
        self.padding = prometheus_client.Counter(
            "fovea_padding_rows_total", "Rows run to fill a batch up, for nobody.", by_model, registry=self.registry
        )
        self.queue_samples = prometheus_client.Gauge(
            "fovea_queue_samples", "Samples admitted and not yet running.", by_model, registry=self.registry
        )
        self.provider = prometheus_client.Gauge(
            "fovea_provider_info",
            "1 for the active execution provider.",
            ("provider",),
            registry=self.registry,
        )

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


class ModelMetrics:
    """One loaded model's numbers. Implements batcher.Observer.

    Mutable state: the counts; touched only on the event loop.
    """

    def __init__(self, metrics: Metrics, model: str, version: str) -> None:
        labels = (model, version)
        self._requests = metrics.requests
        self._labels = labels
        self._codes: dict[str, prometheus_client.Counter] = {}
        self._images = metrics.images.labels(*labels)
        self._decode = metrics.decode.labels(*labels)
        self._queue = metrics.queue.labels(*labels)
        self._run = metrics.run.labels(*labels)
        self._total = metrics.total.labels(*labels)
        self._batch_size = metrics.batch_size.labels(*labels)
        self._padding = metrics.padding.labels(*labels)
        self.queue_samples = metrics.queue_samples.labels(*labels)
        self.success, self.fail, self.queue = Duration(), Duration(), Duration()
        self.compute_input, self.compute_infer, self.compute_output = Duration(), Duration(), Duration()
        self.samples = 0
        self.runs = 0
        self.last_inference_ms = 0
        self.batches: dict[int, BatchCounts] = collections.defaultdict(BatchCounts)

    def ran(self, samples: int, rows: int, gather_s: float, run_s: float) -> None:
        """A batch has run."""
        self.runs += 1
        if rows > samples:
            self._padding.inc(rows - samples)
        counts = self.batches[samples]
        counts.gather.add(gather_s)
        counts.run.add(run_s)
        self._run.observe(run_s)
        self._batch_size.observe(samples)

    def succeeded(self, samples: int, stages: Stages, *, had_images: bool) -> None:
        """A request was answered with OK."""
        self.samples += samples
        self.last_inference_ms = time.time_ns() // 1_000_000
        self.success.add(stages.total_s)
        self.queue.add(stages.queue_s)
        self.compute_input.add(stages.decode_s + stages.gather_s)
        self.compute_infer.add(stages.run_s)
        self.compute_output.add(stages.reply_s)
        self._count("OK")
        self._images.inc(samples)
        if had_images:
            self._decode.observe(stages.decode_s)
        self._queue.observe(stages.queue_s)
        self._total.observe(stages.total_s)

    def failed(self, code: str, total_s: float) -> None:
        """A request was answered with an error, or its caller went away (CANCELLED)."""
        self.fail.add(total_s)
        self._count(code)

    def _count(self, code: str) -> None:
        if code not in self._codes:
            self._codes[code] = self._requests.labels(*self._labels, code)
        self._codes[code].inc()
