"""The metrics of one server: the models' numbers, and what else is looked at when somebody scrapes.

Path: lifecycle adds models → **published** → wire.http.
"""

import collections
import functools
import importlib.metadata
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import prometheus_client
from prometheus_client import core, registry

from service.metrics import counts, families, machine, occupancy, triton
from service.runtime import nvml, providers

DEVICE = "device"
"""The resource that runs models; others are named by who watches them."""


class Metrics:
    """The metric families of one server, in a registry of their own.

    Mutable state: `unknown` and `load_failures`, written only on the event loop; the models' numbers, added by the
    loading thread and removed by the event loop, under a lock; the counts of those that are gone; what is watched,
    set while the server starts.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Take the clock that the batchers go by."""
        self.registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self.registry)
        prometheus_client.PlatformCollector(registry=self.registry)
        self.provider = ""
        """The active execution provider; empty until it is chosen."""
        self.gpu: nvml.Gpu | None = None
        self.is_ready: Callable[[], bool] = bool
        self.certificate_ends_s: Callable[[], Mapping[str, float]] = dict
        """When certificates end, by what they are for, in Unix seconds; none without TLS."""
        self.unknown: collections.Counter[str] = collections.Counter()
        """Requests that were for no served model, by gRPC status code."""
        self.load_failures: collections.Counter[str] = collections.Counter()
        """Loads that failed, by model."""
        self._clock_s = clock_s
        self._machine = machine.Machine()
        self._device = occupancy.Busy()
        self._resources: dict[str, occupancy.Saturation] = {}
        self._models: dict[tuple[str, str], tuple[counts.ModelMetrics, occupancy.Saturation]] = {}
        self._lock = threading.Lock()
        self._gone = counts.Totals(0, 0)
        self.watch(DEVICE, self._device.seconds)
        self.registry.register(_Families(self))

    def numbers(self, model: str, version: str) -> counts.ModelMetrics:
        """Return where a model version counts; one that is there already counts on: to Prometheus it is the same."""
        with self._lock:
            known = self._models.get((model, version))
        return known[0] if known else counts.ModelMetrics(model, version, self._device)

    def add(self, numbers: counts.ModelMetrics, watched: counts.Watched) -> None:
        """Publish a loaded model's numbers, and look at it when somebody scrapes."""
        with self._lock:
            if numbers.labels not in self._models:
                saturation = occupancy.Saturation(numbers.busy.seconds, self._clock_s())
                self._models[numbers.labels] = (numbers, saturation)
            numbers.watched = (*numbers.watched, watched)

    def remove(self, numbers: counts.ModelMetrics, watched: counts.Watched) -> None:
        """Undo `add`: when nothing of it is watched any more, a version's numbers are published no more."""
        with self._lock:
            numbers.watched = tuple(one for one in numbers.watched if one is not watched)
            if not numbers.watched and self._models.pop(numbers.labels, None) is not None:
                self._gone += counts.Totals(numbers.success.count, numbers.fail.count)

    def watch(self, resource: str, busy_s: Callable[[float], float]) -> None:
        """Publish the saturation of something, given its busy seconds until a time; see occupancy."""
        self._resources[resource] = occupancy.Saturation(busy_s, self._clock_s())

    def totals(self) -> counts.Totals:
        """Return how all requests for models have ended, those for models that are gone included."""
        ended = (counts.Totals(one.success.count, one.fail.count) for one in self.models())
        return sum(ended, self._gone)

    def models(self) -> list[counts.ModelMetrics]:
        """Return the numbers of the models of this moment: they come and go."""
        return [numbers for numbers, _ in list(self._models.values())]

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        gpus = [self.gpu.read()] if self.gpu else []
        other = triton.exposition(self.models(), gpus, self._machine.read())
        return prometheus_client.generate_latest(self.registry) + other.encode()

    def families(self) -> Iterator[core.Metric]:
        """Yield our own families. For the registry."""
        models, now_s = self.models(), self._clock_s()
        yield families.requests(models, self.unknown)
        yield families.shed(models)
        yield from families.of_models(models)
        yield families.costs(models)
        yield families.load_failures(self.load_failures, models)
        of_models = [(numbers.labels, part) for numbers, part in list(self._models.values())]
        yield from families.saturations("model_", "a model's instances", ("model", "version"), of_models, now_s)
        resources = [((name,), part) for name, part in self._resources.items()]
        yield from families.saturations("", "what can run out", ("resource",), resources, now_s)
        yield families.info("fovea_build_info", "What is running.", _build())
        yield core.GaugeMetricFamily("fovea_ready", "1 if new work should be sent here.", float(self.is_ready()))
        yield _providers(self.provider)
        yield families.certificates(self.certificate_ends_s())


class _Families(registry.Collector):
    """What the registry asks."""

    def __init__(self, published: Metrics) -> None:
        self._published = published

    def collect(self) -> Iterator[core.Metric]:
        return self._published.families()


def _providers(active: str) -> core.Metric:
    family = core.GaugeMetricFamily("fovea_provider_info", "1 for the active execution provider.", labels=("provider",))
    for name in (providers.CUDA, providers.CPU):
        family.add_metric((name,), float(name == active))
    return family


@functools.cache
def _build() -> dict[str, str]:
    """Versions of what decides how the server behaves."""
    return {
        "version": _installed("fovea"),
        "python": platform.python_version(),
        "onnxruntime": _installed("onnxruntime-gpu") or _installed("onnxruntime"),
        "grpcio": _installed("grpcio"),
    }


def _installed(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
