"""Conditions that make a run a failure: `--fail-if 'p99>50ms'`, for those who run it in CI.

Path: command line → **conditions** ← result.
"""

import dataclasses
import math
import re

from service.loadgen import plan, result

_LATENCIES = {"p50": "p50_s", "p90": "p90_s", "p99": "p99_s", "p99.9": "p999_s", "max": "max_s", "mean": "mean_s"}
_FORM = re.compile(r"\s*([a-z0-9.]+)\s*([<>])\s*([0-9.]+)\s*(us|ms|s|m|%|)\s*")

EXPECTED = (
    "write p50, p90, p99, p99.9, max, mean or lag with a time (p99>50ms), errors with a share or a number "
    "(errors>0.1%, errors>0), throughput or goodput with images a second (throughput<1000)"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Condition:
    """A figure that must not be above (or below) a limit; seconds, images a second, requests, or a share of them."""

    text: str
    figure: str
    is_above: bool
    limit: float
    is_share: bool

    def holds(self, measured: result.Result) -> bool:
        """Whether the run has failed by it. A latency of no answers at all is infinite."""
        value = self.value(measured)
        return value > self.limit if self.is_above else value < self.limit

    def value(self, measured: result.Result) -> float:
        """Return the figure."""
        if self.figure in _LATENCIES:
            return getattr(measured.latency, _LATENCIES[self.figure]) if measured.latency else math.inf
        if self.figure == "errors":
            return measured.failed / max(sum(measured.counts.values()), 1) if self.is_share else measured.failed
        if self.figure == "lag":
            return measured.generator.lag_p99_s
        return measured.images_per_s if self.figure == "throughput" else measured.good_images_per_s

    def explain(self, measured: result.Result) -> str:
        """Return a sentence for a run that has failed."""
        value = self.value(measured)
        if self.is_share:
            return f"{self.text}: it is {value:.2%}"
        if self.figure in _LATENCIES or self.figure == "lag":
            return f"{self.text}: it is {value * 1e3:.2f} ms" if math.isfinite(value) else f"{self.text}: no answers"
        return f"{self.text}: it is {value:.1f}"


def parse(text: str) -> Condition:
    """Return a condition.

    Raises:
        ValueError: it is none; with what is expected.
    """
    match = _FORM.fullmatch(text)
    figure, unit = (match[1], match[4]) if match else ("", "")
    is_time = figure in _LATENCIES or figure == "lag"
    is_known = is_time or figure in {"errors", "throughput", "goodput"}
    fits = (unit in {"us", "ms", "s", "m"}) if is_time else unit == "" or (unit == "%" and figure == "errors")
    if match is None or not is_known or not fits:
        raise ValueError(f"{text!r} is no condition; {EXPECTED}")
    number = match[3] + unit
    limit = plan.seconds(number) if is_time else float(match[3]) / (100 if unit == "%" else 1)
    return Condition(text.strip(), figure, match[2] == ">", limit, unit == "%")
