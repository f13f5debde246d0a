"""Pictures of measurements. The only importer of matplotlib here, and only when something is drawn.

Path: tune_cli → **plots** → a PNG or SVG file.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from service import errors


class Point(Protocol):
    """One load: what was answered, and how fast."""

    @property
    def callers(self) -> int:
        """At once."""

    @property
    def rate(self) -> float:
        """Images a second."""

    @property
    def p50_s(self) -> float:
        """Median latency."""

    @property
    def p99_s(self) -> float:
        """Latency that 99 of 100 stay below."""


def latency_throughput(curves: Mapping[str, Sequence[Point]], path: pathlib.Path) -> None:
    """Draw p50 (line) and p99 (dashes) latency against throughput, one colour for each configuration.

    Raises:
        SettingsError: matplotlib is not installed, or the file cannot be written.
    """
    figure, axes = _figure()
    for number, (name, points) in enumerate(curves.items()):
        by_callers = sorted({point.callers: point for point in points}.values(), key=lambda point: point.callers)
        rates = [point.rate for point in by_callers]
        colour = f"C{number}"
        axes.plot(rates, [point.p50_s * 1e3 for point in by_callers], "o-", color=colour, label=f"{name}, p50")
        axes.plot(rates, [point.p99_s * 1e3 for point in by_callers], "o--", color=colour, label=f"{name}, p99")
        for point, rate in zip(by_callers, rates, strict=True):
            axes.annotate(str(point.callers), (rate, point.p50_s * 1e3), textcoords="offset points", xytext=(4, 4))
    axes.set(xlabel="images/s", ylabel="latency, ms", ylim=(0, None), title="numbers: callers at once")
    axes.legend()
    axes.grid(alpha=0.3)
    _save(figure, path)


def _figure() -> tuple[Any, Any]:
    try:
        from matplotlib import figure  # noqa: PLC0415 - 0.3 s and 30 MB that only a plot needs
    except ImportError as error:
        raise errors.SettingsError("plots need matplotlib: pip install matplotlib, or leave --plot out") from error
    drawn = figure.Figure(figsize=(8, 5), layout="constrained")
    return drawn, drawn.subplots()


class Load(Protocol):
    """One offered load and what came of it; rates in images a second, NaN for a latency that there is not."""

    @property
    def offered(self) -> float:
        """Sent."""

    @property
    def good(self) -> float:
        """Answered within the deadline."""

    @property
    def p50_s(self) -> float:
        """Median latency."""

    @property
    def p99_s(self) -> float:
        """Latency that 99 of 100 stay below."""


def offered_load(loads: Sequence[Load], capacity: float, path: pathlib.Path, title: str) -> None:
    """Draw goodput (left axis) and latency (right) against offered load, as multiples of the capacity.

    Raises:
        SettingsError: matplotlib is not installed, or the file cannot be written.
    """
    figure, axes = _figure()
    offered = [load.offered / capacity for load in loads]
    axes.plot(offered, [load.good / capacity for load in loads], "o-", color="C0", label="goodput")
    axes.plot(offered, [min(1.0, share) for share in offered], ":", color="C0", label="as much as can be")
    axes.set(xlabel="offered load / capacity", ylabel="goodput / capacity", xscale="log", ylim=(0, None), title=title)
    latency = axes.twinx()
    latency.plot(offered, [load.p50_s * 1e3 for load in loads], "s-", color="C1", label="p50")
    latency.plot(offered, [load.p99_s * 1e3 for load in loads], "s--", color="C1", label="p99")
    latency.set(ylabel="latency of what was answered, ms", ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=4)
    axes.grid(alpha=0.3)
    _save(figure, path)


def _save(figure: Any, path: pathlib.Path) -> None:
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise errors.SettingsError(
            f"the plot cannot be written to {path}: {error}; name a .png or .svg file"
        ) from error
