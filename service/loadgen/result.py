"""What a load run measured: figures computed once, from the tally.

Path: tally → **result** → table, JSON, report, benchmarks.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from service.loadgen import arrivals, confidence, histogram, machine, plan, stage_times, tally, target

BARS_PER_DOUBLING = 8
"""Of the drawn histogram: 9 % wide each."""

_QUANTILES = (0.5, 0.9, 0.99, 0.999, 1.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from the intended sending to the answer, over requests answered with OK."""

    p50_s: float
    p90_s: float
    p99_s: float
    p999_s: float
    max_s: float
    mean_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """One part of the measured time: requests meant to be sent, ended with OK and otherwise, and latency."""

    from_s: float
    width_s: float
    offered_per_s: float | None
    """What the plan says for the middle of the window; None in a closed loop."""
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

    processes: int
    cpu_s: float
    cpu_s_per_request: float
    busy_cores: float
    busiest: float
    """Share of a core that the busiest process used."""
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
    """One run. Counts, sentences and latencies: of a closed loop, the requests that ended in the measured time; of
    an open one, and where so many were asked for, those meant to be sent in it. Rates are of
    answers in it, between the ends of two bursts of answers: batches answer in bursts, and a window that cuts one in
    two is wrong by up to a batch.
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
    from_sent: Latency | None
    """The same requests, from the moment of sending: what the generator was late is not in it."""
    confidence: confidence.Confidence | None
    windows: tuple[Window, ...]
    bars: tuple[tuple[float, float, int], ...]
    """The latencies' histogram: from, to (seconds), how many."""
    whole: Whole
    server: Server | None
    stages: tuple[stage_times.Stage, ...]
    """From the server's /metrics, if it was asked: other stages than ModelStatistics knows, with percentiles."""
    generator: Generator
    request_bytes: int
    answer_bytes: int
    machine: machine.Machine
    served_by: str

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return dataclasses.asdict(self)

    @property
    def failed(self) -> int:
        """Requests of the measured time without an OK."""
        return sum(count for status, count in self.counts.items() if status != "OK")


@dataclasses.dataclass(frozen=True, slots=True)
class Period:
    """When requests were sent and measured, in seconds on `time.monotonic`'s clock."""

    started_s: float
    measured_from_s: float
    ended_s: float

    @property
    def measured_s(self) -> float:
        """How long was measured."""
        return self.ended_s - self.measured_from_s


@dataclasses.dataclass(frozen=True, slots=True)
class Beside:
    """What is known beside the tally: the server's counts before and after, CPU seconds of each process, sizes."""

    before: target.Counts
    after: target.Counts
    cpu_s: tuple[float, ...]
    request_bytes: int
    answer_bytes: int
    machine: machine.Machine
    served_by: str = ""
    stages: tuple[stage_times.Stage, ...] = ()


def of(chosen: plan.Plan, counted: tally.Tally, period: Period, beside: Beside) -> Result:
    """Return the figures of a run that is over."""
    rate_per_s, good_per_s = (
        answers.rate_per_s(period.measured_from_s, period.ended_s) for answers in (counted.answered, counted.good)
    )
    width_s = tally.window_s(chosen)
    full = [counted.windows.get(number, tally.Window()) for number in range(int(period.measured_s / width_s + 1e-6))]
    return Result(
        plan=_plain(chosen),
        measured_s=period.measured_s,
        counts=dict(sorted(counted.counts.items())),
        sentences=dict(counted.sentences),
        images_per_s=rate_per_s * chosen.images_per_request,
        requests_per_s=rate_per_s,
        good_images_per_s=good_per_s * chosen.images_per_request,
        in_time=counted.in_time,
        latency=latency(counted.measured),
        from_sent=latency(counted.from_sent),
        confidence=confidence.of(full, width_s, counted.measured),
        windows=_windows(chosen, counted, period, width_s),
        bars=tuple(counted.measured.bars(BARS_PER_DOUBLING)),
        whole=_whole(chosen, counted),
        server=_server(beside.before, beside.after),
        stages=beside.stages,
        generator=_generator(beside.cpu_s, counted, period),
        request_bytes=beside.request_bytes,
        answer_bytes=beside.answer_bytes,
        machine=beside.machine,
        served_by=beside.served_by,
    )


def latency(counted: histogram.Histogram) -> Latency | None:
    """Return the percentiles; None of nothing."""
    if not len(counted):
        return None
    p50_s, p90_s, p99_s, p999_s, max_s = counted.quantiles_s(_QUANTILES)
    return Latency(p50_s, p90_s, p99_s, p999_s, max_s, counted.mean_s)


def _plain(chosen: plan.Plan) -> dict[str, Any]:
    kind = "open" if isinstance(chosen.loop, plan.Open) else "closed"
    fields = dataclasses.asdict(chosen)
    return {**fields, "loop": {"kind": kind, **fields["loop"]}}


def _whole(chosen: plan.Plan, counted: tally.Tally) -> Whole:
    wall_s = counted.last_ended_s - counted.first_sent_s
    return Whole(
        requests=counted.all_counts.total(),
        images_ok=counted.all_counts["OK"] * chosen.images_per_request,
        wall_s=wall_s if math.isfinite(wall_s) else 0.0,
        latency=latency(counted.whole),
    )


def _windows(chosen: plan.Plan, counted: tally.Tally, period: Period, width_s: float) -> tuple[Window, ...]:
    """One entry for each whole or begun window of the measured time."""
    windows = []
    for number in range(math.ceil(period.measured_s / width_s - 1e-6)):
        window = counted.windows.get(number, tally.Window())
        from_s = number * width_s
        own_s = min(width_s, period.measured_s - from_s)
        p50_s, p99_s = window.latency.quantiles_s((0.5, 0.99)) if window.ok else (None, None)
        offered = (
            arrivals.rate_per_s(chosen.loop, chosen.warmup_s + from_s + own_s / 2, chosen.warmup_s)
            if isinstance(chosen.loop, plan.Open)
            else None
        )
        windows.append(Window(from_s, own_s, offered, window.intended, window.ok, window.failed, p50_s, p99_s))
    return tuple(windows)


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


def _generator(cpu_s: tuple[float, ...], counted: tally.Tally, period: Period) -> Generator:
    wall_s = max(period.ended_s - period.started_s, 1e-9)
    return Generator(
        processes=len(cpu_s),
        cpu_s=sum(cpu_s),
        cpu_s_per_request=sum(cpu_s) / max(counted.all_counts.total(), 1),
        busy_cores=sum(cpu_s) / wall_s,
        busiest=max(cpu_s, default=0.0) / wall_s,
        lag_p99_s=counted.lag.quantiles_s((0.99,))[0] if len(counted.lag) else 0.0,
    )
