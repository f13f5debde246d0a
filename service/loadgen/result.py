"""What a load run measured: figures computed once, from the ledger.

Path: ledger → **result** → table, JSON, benchmarks.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.loadgen import ledger, plan, target

_EDGE = 0.2
"""Share of the window at either end in which the rates' period may begin and end."""


@dataclasses.dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from the intended sending to the answer, over requests answered with OK."""

    p50_s: float
    p90_s: float
    p99_s: float
    p999_s: float
    max_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Second:
    """One second of the measured time: requests meant to be sent, ended with OK and otherwise, and latency."""

    second: int
    intended: int
    ok: int
    failed: int
    p50_s: float | None
    p99_s: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """The server's own counts over the whole run, warm-up included: means per request, and batches by size."""

    queue_s: float
    compute_input_s: float
    compute_infer_s: float
    compute_output_s: float
    total_s: float
    mean_batch: float
    batches: dict[int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Generator:
    """What the generator itself cost: it must not be what is measured."""

    cpu_s: float
    cpu_s_per_request: float
    busy_cores: float
    lag_p99_s: float
    """How late requests were sent, against their intended time (open loop)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Whole:
    """The whole run, warm-up and last answers included; `wall_s` from the first sending to the last answer."""

    requests: int
    images_ok: int
    wall_s: float
    latency: Latency | None


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """One run. Counts and latencies: of a closed loop, the requests that ended in the measured time; of an open
    one, those meant to be sent in it. Rates are of answers in it, between the ends of two bursts of answers:
    batches answer in bursts, and a window that cuts one in two is wrong by up to a batch.
    """  # noqa: D205 - one thought

    plan: dict[str, Any]
    measured_s: float
    counts: dict[str, int]
    sentences: dict[str, int]
    images_per_s: float
    requests_per_s: float
    good_images_per_s: float
    in_time: int
    latency: Latency | None
    seconds: tuple[Second, ...]
    whole: Whole
    server: Server | None
    generator: Generator
    request_bytes: int
    answer_bytes: int

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, slots=True)
class Period:
    """When requests were sent and measured, in seconds on the clock of the ledger."""

    started_s: float
    measured_from_s: float
    ended_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Beside:
    """What is known beside the ledger: the server's counts before and after, CPU seconds, message sizes."""

    before: target.Counts
    after: target.Counts
    cpu_s: float
    request_bytes: int
    answer_bytes: int


def of(chosen: plan.Plan, ends: ledger.Ledger, period: Period, beside: Beside) -> Result:
    """Return the figures of a run that is over."""
    intended_s, sent_s, ended_s = ends.times_s()
    statuses = ends.statuses()
    is_open = isinstance(chosen.loop, plan.Open)
    by_s = intended_s if is_open else ended_s
    measured = (by_s >= period.measured_from_s) & (by_s <= period.ended_s)
    is_ok = statuses == ledger.OK
    latency_s = ended_s - intended_s
    good = is_ok & (latency_s <= (chosen.deadline_s or np.inf))
    rate_per_s, good_per_s = (_rate_per_s(ended_s[which], period) for which in (is_ok, good))
    wall_s = float(ended_s.max() - sent_s.min()) if len(ends) else 0.0
    names, counts = np.unique(statuses[measured], return_counts=True)
    return Result(
        plan=_plain(chosen),
        measured_s=period.ended_s - period.measured_from_s,
        counts=dict(zip(names.tolist(), counts.tolist(), strict=True)),
        sentences=dict(ends.sentences),
        images_per_s=rate_per_s * chosen.images_per_request,
        requests_per_s=rate_per_s,
        good_images_per_s=good_per_s * chosen.images_per_request,
        in_time=int((good & measured).sum()),
        latency=_latency(latency_s[is_ok & measured]),
        seconds=_seconds(intended_s, ended_s, is_ok, period),
        whole=Whole(len(ends), int(is_ok.sum()) * chosen.images_per_request, wall_s, _latency(latency_s[is_ok])),
        server=_server(beside.before, beside.after),
        generator=_generator(beside.cpu_s, (sent_s - intended_s)[statuses != ledger.NOT_SENT], period, len(ends)),
        request_bytes=beside.request_bytes,
        answer_bytes=beside.answer_bytes,
    )


def _plain(chosen: plan.Plan) -> dict[str, Any]:
    kind = "open" if isinstance(chosen.loop, plan.Open) else "closed"
    fields = dataclasses.asdict(chosen)
    return {**fields, "loop": {"kind": kind, **fields["loop"]}}


def _rate_per_s(answered_s: NDArray[np.float64], period: Period) -> float:
    """Answers per second from the end of one burst to the end of another; the window's where there are too few."""
    edge_s = _EDGE * (period.ended_s - period.measured_from_s)
    first = _burst_end(answered_s, period.measured_from_s, period.measured_from_s + edge_s)
    last = _burst_end(answered_s, period.ended_s - edge_s, period.ended_s)
    if first is not None and last is not None and answered_s[last] > answered_s[first]:
        return float((last - first) / (answered_s[last] - answered_s[first]))
    inside = (answered_s >= period.measured_from_s) & (answered_s <= period.ended_s)
    return float(inside.sum() / max(period.ended_s - period.measured_from_s, 1e-9))


def _burst_end(answered_s: NDArray[np.float64], from_s: float, to_s: float) -> int | None:
    """The answer in a part of the window after which nothing came for longest: the end of a burst."""
    start, stop = np.searchsorted(answered_s, (from_s, to_s))
    gaps_s = np.diff(answered_s[start : stop + 1])
    return int(start + gaps_s.argmax()) if len(gaps_s) else (int(start) if stop > start else None)


def _latency(latency_s: NDArray[np.float64]) -> Latency | None:
    if not len(latency_s):
        return None
    return Latency(*(float(value) for value in np.percentile(latency_s, (50, 90, 99, 99.9, 100))))


def _seconds(
    intended_s: NDArray[np.float64], ended_s: NDArray[np.float64], is_ok: NDArray[np.bool_], period: Period
) -> tuple[Second, ...]:
    """One entry for each whole or begun second of the measured time."""
    seconds = []
    for second in range(int(np.ceil(period.ended_s - period.measured_from_s))):
        from_s = period.measured_from_s + second
        meant = (intended_s >= from_s) & (intended_s < from_s + 1)
        ended = (ended_s >= from_s) & (ended_s < from_s + 1)
        latency = _latency((ended_s - intended_s)[ended & is_ok])
        p50_s, p99_s = (latency.p50_s, latency.p99_s) if latency else (None, None)
        seconds.append(
            Second(second, int(meant.sum()), int((ended & is_ok).sum()), int((ended & ~is_ok).sum()), p50_s, p99_s)
        )
    return tuple(seconds)


def _server(before: target.Counts, after: target.Counts) -> Server | None:
    means_s = {name: _mean_s(before, after, name) for name in after.stages}
    batches: Mapping[int, int] = {
        size: runs - before.batches.get(size, 0)
        for size, runs in after.batches.items()
        if runs > before.batches.get(size, 0)
    }
    if not batches:
        return None
    return Server(
        queue_s=means_s["queue"],
        compute_input_s=means_s["compute_input"],
        compute_infer_s=means_s["compute_infer"],
        compute_output_s=means_s["compute_output"],
        total_s=means_s["success"],
        mean_batch=sum(size * runs for size, runs in batches.items()) / sum(batches.values()),
        batches=dict(batches),
    )


def _mean_s(before: target.Counts, after: target.Counts, stage: str) -> float:
    count_before, ns_before = before.stages.get(stage, (0, 0))
    count, ns = after.stages[stage]
    return (ns - ns_before) / 1e9 / (count - count_before) if count > count_before else 0.0


def _generator(cpu_s: float, lag_s: NDArray[np.float64], period: Period, requests: int) -> Generator:
    return Generator(
        cpu_s=cpu_s,
        cpu_s_per_request=cpu_s / max(requests, 1),
        busy_cores=cpu_s / max(period.ended_s - period.started_s, 1e-9),
        lag_p99_s=float(np.percentile(lag_s, 99)) if len(lag_s) else 0.0,
    )
