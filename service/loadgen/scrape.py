"""The server's stages from its /metrics: Prometheus histograms before and after a run.

Path: --metrics URL → **scrape** → result.

Any family `fovea_<stage>_duration_seconds` of the model is a stage, so a new stage of the server shows here by itself.
"""

import dataclasses
import math
import re
import urllib.error
import urllib.request
from collections.abc import Mapping

from prometheus_client import parser

from service import errors

_WITHIN_S = 10.0
_FAMILY = re.compile(r"fovea_(\w+)_duration_seconds")

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
        StartupError: nothing there, or no metrics of Fovea's.
    """
    try:
        with urllib.request.urlopen(url, timeout=_WITHIN_S) as response:  # the user's own address
            text = response.read().decode()
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise errors.StartupError(
            f"--metrics {url} cannot be read: {reason}; `fovea serve` says at its start where its metrics are"
        ) from error
    return parse(text, model, url)


def parse(text: str, model: str, url: str) -> dict[str, Counted]:
    """Return the stages in Prometheus' text.

    Raises:
        StartupError: it is another text, or knows nothing of the model.
    """
    stages: dict[str, Counted] = {}
    try:
        for family in parser.text_string_to_metric_families(text):
            named = _FAMILY.fullmatch(family.name)
            samples = [sample for sample in family.samples if sample.labels.get("model") == model]
            if named is None or family.type != "histogram" or not samples:
                continue
            edges: Edges = {}
            for sample in samples:
                if sample.name.endswith("_bucket"):
                    edge = float(sample.labels["le"])
                    edges[edge] = edges.get(edge, 0.0) + sample.value
            stages[named[1]] = Counted(sum(one.value for one in samples if one.name.endswith("_sum")), edges)
    except (ValueError, KeyError) as error:
        raise errors.StartupError(f"--metrics {url} is not Prometheus' text format: {error}") from error
    if not stages:
        raise errors.StartupError(
            f"--metrics {url} has no fovea_*_duration_seconds of model {model!r}; is it the server's address?"
        )
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
