"""The server's stages from its /metrics: Prometheus histograms before and after a run.

Path: --metrics URL → scrape → **stage_times** → result.

Any family `fovea_<stage>_duration_seconds` of the model is a stage, so a new stage of the server shows here by itself.
"""

import dataclasses
import math
import re
from collections.abc import Mapping

from service import errors, scrape

_WITHIN_S = 10.0
_BUCKETS = re.compile(r"fovea_(\w+)_duration_seconds_bucket")

# In the order in which a request goes through them; stages without a place here come last.
_ORDER = ("decode", "queue", "gather", "copy", "run", "reply", "request", "total")

Edges = dict[float, float]
"""Upper edge in seconds → how many are not above it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Counted:
    """One stage's histogram so far."""

    sum_s: float
    edges: Edges


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """One stage over a run.

    Percentiles are as coarse as the server's buckets: the upper edge they lie in; None beyond the last edge.
    """

    name: str
    count: int
    mean_s: float
    p50_at_most_s: float | None
    p99_at_most_s: float | None


def read(url: str, model: str) -> dict[str, Counted]:
    """Return the model's stages so far, its versions together.

    Raises:
        StartupError: nothing there, no metrics of Fovea's, or none of the model.
    """
    try:
        stages = of(scrape.read(url, _WITHIN_S, by_proxy=True), model)  # the user's own address
    except scrape.NoFigures as error:
        raise errors.StartupError(f"--metrics {error}") from error
    except (ValueError, KeyError) as error:
        raise errors.StartupError(f"--metrics {url} is not Prometheus' text format: a bucket without edge") from error
    if not stages:
        raise errors.StartupError(
            f"--metrics {url} has no fovea_*_duration_seconds of model {model!r}; is it the server's address?"
        )
    return stages


def of(found: scrape.Scrape, model: str) -> dict[str, Counted]:
    """Return the model's stages in a scrape, its versions together; empty, if the server does not know the model.

    Raises:
        KeyError, ValueError: a bucket has no edge, or none that is a number.
    """
    stages: dict[str, Counted] = {}
    of_model = ("model", model)
    for name, samples in found.samples.items():
        named = _BUCKETS.fullmatch(name)
        if named is None:
            continue
        edges: Edges = {}
        for labels, count in samples.items():
            if of_model in labels:
                edge = float(dict(labels)["le"])
                edges[edge] = edges.get(edge, 0.0) + count
        if edges:
            sums = found.of(f"fovea_{named[1]}_duration_seconds_sum")
            stages[named[1]] = Counted(sum(value for labels, value in sums.items() if of_model in labels), edges)
    return stages


def between(before: Mapping[str, Counted], after: Mapping[str, Counted]) -> tuple[Stage, ...]:
    """Return what was added, by stage, in a request's order; stages that nothing went through are left out."""
    stages = []
    for name, now in after.items():
        then = before.get(name, Counted(0.0, {}))
        edges = {edge: count - then.edges.get(edge, 0.0) for edge, count in sorted(now.edges.items())}
        count = max(edges.values(), default=0.0)
        if count > 0:
            p50_s, p99_s = (_at_most_s(edges, share * count) for share in (0.5, 0.99))
            stages.append(Stage(name, int(count), (now.sum_s - then.sum_s) / count, p50_s, p99_s))
    return tuple(sorted(stages, key=lambda stage: _ORDER.index(stage.name) if stage.name in _ORDER else len(_ORDER)))


def _at_most_s(edges: Edges, rank: float) -> float | None:
    edge = next(edge for edge, count in edges.items() if count >= rank)
    return edge if math.isfinite(edge) else None
