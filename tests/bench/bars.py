"""What the engine promises, as lines: measured, wanted, met or missed.

Path: served, overload → **bars** → engine.

Every ratio is of figures of one round, which stand seconds apart; the median of the rounds counts.
"""

import dataclasses
import statistics
from collections.abc import Iterator

import numpy as np

from tests.bench import limits, served

RATE_MIN, CPU_MAX = 0.95, 1.05
NOOP_MAX = 1.5


@dataclasses.dataclass(frozen=True)
class Bar:
    """One promise. `is_least`: the measured value must not be below the wanted one, else not above it."""

    what: str
    measured: float
    wanted: float
    is_least: bool

    @property
    def is_met(self) -> bool:
        """Whether it is kept."""
        return self.measured >= self.wanted if self.is_least else self.measured <= self.wanted

    def __str__(self) -> str:
        sign, verdict = (">=" if self.is_least else "<="), ("met" if self.is_met else "MISSED")
        return f"bar: {self.what}: measured {self.measured:.3f}, wanted {sign} {self.wanted:.2f}: {verdict}"


def of_served(measured: served.Measured, model: str = "resnet18") -> Iterator[Bar]:
    """Yield the promises about one saturated core."""
    for name, way in _ways(measured, model):
        rounds = served.rounds_together(measured, model, way)
        if way.endswith("pixels"):
            rate = _median(sample.images_per_s / measured.best(model, limit).images_per_s for sample, limit in rounds)
            yield Bar(f"{name}: images/s over ONNX Runtime's alone", rate, RATE_MIN, is_least=True)
            cpu = _median(sample.cpu_s_per_image / measured.best(model, limit).cpu_s for sample, limit in rounds)
            yield Bar(f"{name}: CPU per image over ONNX Runtime's alone", cpu, CPU_MAX, is_least=False)
        else:
            cpu = _median(
                sample.cpu_s_per_image / (measured.best(model, limit).cpu_s + limit.decoded.cpu_s)
                for sample, limit in rounds
            )
            yield Bar(f"{name}: CPU per image over decoding and running alone", cpu, CPU_MAX, is_least=False)


def of_messages(measured: served.Measured) -> Iterator[Bar]:
    """Yield what a message costs beside its run, against the server that does nothing."""
    for way, noops in measured.noop.items():
        rounds = served.rounds_together(measured, served.LENET, way)
        ratio = _median(
            beside_run_s(sample, limit) / noop.cpu_s_per_message
            for (sample, limit), noop in zip(rounds, noops, strict=True)
        )
        plain_ms = served.median([sample for sample, _ in rounds], "cpu_s_per_image") * 1e3
        beside_us = _median(beside_run_s(sample, limit) for sample, limit in rounds) * 1e6
        noop_us = served.median(noops, "cpu_s_per_message") * 1e6
        what = f"{served.LENET}, {way}: CPU per message beside the run over a no-op's"
        facts = f" ({beside_us:.0f} over {noop_us:.0f} us; in all {plain_ms:.3f} ms per image)"
        yield Bar(what + facts, ratio, NOOP_MAX, is_least=False)


def beside_run_s(sample: served.Sample, limit: limits.Round) -> float:
    """Return CPU seconds per message without ONNX Runtime's for the batches that were formed.

    That is counted, not timed while serving: batches formed, times what a run of their size takes alone.
    """
    sizes = sorted(limit.runs)
    run_s = [limit.runs[size].cpu_s * size for size in sizes]
    in_runs_s = sum(float(np.interp(size, sizes, run_s)) * runs for size, runs in sample.batches.items())
    return sample.cpu_s_per_message - in_runs_s / sample.messages


def _ways(measured: served.Measured, model: str) -> Iterator[tuple[str, str]]:
    for found, way in measured.samples:
        if found == model:
            yield f"{model}, {way}", way


def _median(values: Iterator[float]) -> float:
    return statistics.median(list(values))
