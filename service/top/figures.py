"""What happened between two scrapes of servers, model by model.

Path: scrape → **figures** → table.
"""

import bisect
import collections
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from service import scrape

OK, CANCELLED = "OK", "CANCELLED"


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """Two scrapes of one server, the second later."""

    before: scrape.Scrape
    after: scrape.Scrape

    @property
    def elapsed_s(self) -> float:
        """How long it lasted."""
        return self.after.at_s - self.before.at_s

    def grown(self, name: str) -> dict[scrape.Labels, float]:
        """By how much a counter has grown, by labels; one that is lower than before has begun anew, at 0."""
        before = self.before.of(name)
        return {
            labels: value - before.get(labels, 0.0) if value >= before.get(labels, 0.0) else value
            for labels, value in self.after.of(name).items()
        }


@dataclasses.dataclass(frozen=True, slots=True)
class ModelFigures:
    """One model version on all servers. None: its metric is missing, or nothing happened to measure."""

    model: str
    version: str
    images_per_s: float | None
    requests_per_s: float | None
    p50_s: float | None
    p99_s: float | None
    batch_mean: float | None
    queue_samples: float | None
    oldest_s: float | None
    """For how long the oldest request of the queue waits."""
    saturation: float | None
    """Share of its instances' time that is taken, 0 to 1; the mean over the servers."""
    shed_per_s: float | None
    errors_per_s: float | None
    """Requests answered with an error that were not shed; callers who went away are no errors."""


def of(spans: Sequence[Span]) -> list[ModelFigures]:
    """Return the figures of all models, by name and version."""
    return [_of_model(model, spans) for model in _models(spans)]


def quantile(share: float, buckets: Iterable[tuple[float, float]]) -> float | None:
    """Estimate a quantile from (upper edge, cumulative count), ascending, as Prometheus' histogram_quantile does.

    Within a bucket values are taken to be spread evenly; above the last finite edge it is that edge. None: no values.
    """
    edges, counts = [], []
    for edge, count in buckets:
        edges.append(edge)
        counts.append(count)
    if not counts or counts[-1] <= 0:
        return None
    rank = share * counts[-1]
    index = bisect.bisect_left(counts, rank)
    if edges[index] == math.inf:
        return edges[index - 1] if index else None
    low, below = (edges[index - 1], counts[index - 1]) if index else (0.0, 0.0)
    inside = counts[index] - below
    return low + (edges[index] - low) * ((rank - below) / inside if inside else 1.0)


_Model = tuple[str, str]


def _models(spans: Iterable[Span]) -> list[_Model]:
    found = {_model(labels) for span in spans for labels in span.after.of("fovea_requests_total")}
    found |= {_model(labels) for span in spans for labels in span.after.of("fovea_images_total")}
    return sorted(found)


def _model(labels: scrape.Labels) -> _Model:
    named = dict(labels)
    return named.get("model", ""), named.get("version", "")


def _of_model(model: _Model, spans: Sequence[Span]) -> ModelFigures:
    def rate(name: str, counts: Callable[[dict[str, str]], bool] = lambda labels: True) -> float | None:
        return _rate(model, spans, name, counts)

    latencies = _buckets(model, spans, "fovea_request_duration_seconds_bucket")
    shed = rate("fovea_shed_total")
    failed = rate("fovea_requests_total", lambda labels: labels.get("code") not in {OK, CANCELLED})
    runs, samples = rate("fovea_batch_size_count"), rate("fovea_batch_size_sum")
    busy = _values(model, spans, lambda span: _per_second(span, span.grown("fovea_model_busy_seconds_total")))
    return ModelFigures(
        *model,
        images_per_s=rate("fovea_images_total"),
        requests_per_s=rate("fovea_requests_total", lambda labels: labels.get("code") == OK),
        p50_s=quantile(0.5, latencies),
        p99_s=quantile(0.99, latencies),
        batch_mean=samples / runs if runs and samples is not None else None,
        queue_samples=_sum(_values(model, spans, lambda span: span.after.of("fovea_queue_samples"))),
        oldest_s=max(_values(model, spans, lambda span: span.after.of("fovea_queue_oldest_age_seconds")), default=None),
        saturation=min(1.0, sum(busy) / len(busy)) if busy else None,
        shed_per_s=shed,
        errors_per_s=None if failed is None else max(0.0, failed - (shed or 0.0)),
    )


def _rate(model: _Model, spans: Iterable[Span], name: str, counts: Callable[[dict[str, str]], bool]) -> float | None:
    """Growth a second, summed over servers and over the series that count; None, where no server has the metric."""
    has_metric, total = False, 0.0
    for span in spans:
        for labels, grown in span.grown(name).items():
            if _model(labels) == model:
                has_metric = True
                total += grown / span.elapsed_s if counts(dict(labels)) else 0.0
    return total if has_metric else None


def _per_second(span: Span, grown: dict[scrape.Labels, float]) -> dict[scrape.Labels, float]:
    return {labels: value / span.elapsed_s for labels, value in grown.items()}


def _values(
    model: _Model, spans: Iterable[Span], of_span: Callable[[Span], Mapping[scrape.Labels, float]]
) -> list[float]:
    return [value for span in spans for labels, value in of_span(span).items() if _model(labels) == model]


def _sum(values: Sequence[float]) -> float | None:
    return sum(values) if values else None


def _buckets(model: _Model, spans: Iterable[Span], name: str) -> list[tuple[float, float]]:
    """Growth of a histogram's cumulative buckets, summed over servers, ascending."""
    grown: dict[float, float] = collections.defaultdict(float)
    for span in spans:
        for labels, count in span.grown(name).items():
            if _model(labels) == model:
                grown[float(dict(labels)["le"])] += count
    return sorted(grown.items())
