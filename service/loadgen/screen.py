"""What a person at the terminal sees: progress with sparklines while a run lasts, then a table.

Path: progress, results → **screen** → terminal.
"""

import collections
import math
from collections.abc import Sequence

import rich.console
import rich.live
import rich.table
import rich.text

from service.loadgen import findings, generator, result, searching

_BARS = "▁▂▃▄▅▆▇█"
_POINTS = 40
_LOOKS = 3
"""Of the generator's looks, five a second, in one point of a sparkline."""


class Live:
    """A few lines that change while a run lasts; nothing where the output is no terminal.

    Mutable state: the points of the sparklines, and the step's name; touched only on the event loop.
    """

    def __init__(self, console: rich.console.Console) -> None:
        self._live = rich.live.Live(console=console, transient=True, auto_refresh=False)
        self._is_shown = console.is_terminal
        self._step = ""
        self._rates: collections.deque[float] = collections.deque(maxlen=_POINTS)
        self._p99s_ms: collections.deque[float] = collections.deque(maxlen=_POINTS)
        self._gathered: list[generator.Progress] = []

    def __enter__(self) -> "Live":
        if self._is_shown:
            self._live.start()
            self._draw(rich.text.Text("connecting"))
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            self._live.stop()

    def step(self, name: str) -> None:
        """Name what is done now, for runs of several steps; they are also noted where there is no terminal."""
        self._step = name
        if not self._is_shown:
            self._live.console.print(name, highlight=False)

    def watch(self, now: generator.Progress) -> None:
        """Show how far a run is."""
        self._gathered.append(now)
        if len(self._gathered) == _LOOKS:
            seconds = _LOOKS * generator.WATCH_EVERY_S
            latency = self._gathered[0].recent.latency
            for one in self._gathered[1:]:
                latency.merge(one.recent.latency)
            self._rates.append(sum(one.recent.ok for one in self._gathered) / seconds)
            self._p99s_ms.append(latency.quantiles_s((0.99,))[0] * 1e3)
            self._gathered.clear()
        if self._is_shown:
            self._draw(self._lines(now))

    def _lines(self, now: generator.Progress) -> rich.text.Text:
        share = min(now.elapsed_s / max(now.all_s, 1e-9), 1.0)
        filled = round(share * _POINTS)
        text = rich.text.Text()
        text.append(f"{self._step}\n" if self._step else "")
        text.append("━" * filled, "green").append("━" * (_POINTS - filled), "bright_black")
        text.append(f" {min(now.elapsed_s, now.all_s):.0f} of {now.all_s:.0f} s · {now.ok} OK")
        text.append(f" · {now.failed} failed" if now.failed else "", "red")
        for name, points, unit, colour in (
            ("rate", self._rates, "/s", "blue"), ("p99", self._p99s_ms, "ms", "yellow"),
        ):  # fmt: skip
            if points:
                text.append(f"\n{sparkline(list(points)):<{_POINTS}}", colour)
                text.append(f" {name} {points[-1]:.1f} {unit}" if math.isfinite(points[-1]) else f" {name} -")
        return text

    def _draw(self, text: rich.text.Text) -> None:
        self._live.update(text, refresh=True)


def sparkline(values: Sequence[float]) -> str:
    """Return a bar for each value, from nothing to the largest; a blank for what is no number."""
    most = max((value for value in values if math.isfinite(value)), default=0.0)
    return "".join(
        " " if not math.isfinite(value) else _BARS[min(int(value / most * len(_BARS)), len(_BARS) - 1)] if most else "▁"
        for value in values
    )


def show(measured: result.Result, console: rich.console.Console) -> None:
    """Print one run."""
    for name, text in _rows(measured):
        console.print(f"{name:<11} {text}", soft_wrap=True, markup=False)
    for sentence, count in sorted(measured.sentences.items(), key=lambda entry: -entry[1])[:5]:
        console.print(f"{count} x {sentence}", markup=False, soft_wrap=True)
    for sentence in findings.cautions(measured):
        console.print(f"! {sentence}", style="yellow", markup=False, soft_wrap=True)


def show_steps(runs: Sequence[result.Result], console: rich.console.Console) -> None:
    """Print several rates below each other."""
    table = rich.table.Table("rate/s", "answered/s", "p50 ms", "p99 ms", "max ms", "failed", box=None)
    for one in runs:
        latency = one.latency
        cells = (
            [f"{value * 1e3:.1f}" for value in (latency.p50_s, latency.p99_s, latency.max_s)] if latency else ["-"] * 3
        )
        rate = f"{one.plan['loop']['rate_per_s']:g}"
        table.add_row(rate, f"{one.requests_per_s:.1f}", *cells, str(one.failed))
    console.print(table)
    for sentence in dict.fromkeys(sentence for one in runs for sentence in findings.cautions(one)):
        console.print(f"! {sentence}", style="yellow", markup=False, soft_wrap=True)


def show_found(found: searching.Found, console: rich.console.Console) -> None:
    """Print a search for the capacity."""
    table = rich.table.Table("trial", "rate/s", "answered/s", "p50 ms", "p99 ms", "seconds", "", box=None)
    for trial in found.trials:
        cells = [f"{value * 1e3:.1f}" if value is not None else "-" for value in (trial.p50_s, trial.p99_s)]
        says = "met" if trial.is_met else "; ".join(trial.reasons)
        table.add_row(
            trial.kind, f"{trial.rate_per_s:.1f}", f"{trial.answered_per_s:.1f}", *cells, f"{trial.seconds:.1f}", says
        )
    console.print(table)
    bound = f"p99 <= {found.wanted.p99_s * 1e3:g} ms"
    if found.rate_per_s is None:
        console.print(f"no capacity found for {bound}: {found.ended}", soft_wrap=True)
    else:
        rate = f"{found.images_per_s:.1f} images/s, {found.rate_per_s:.1f} requests/s"
        took = f"{len(found.trials)} trials in {found.took_s:.0f} s; closed loop {found.ceiling_per_s:.1f} requests/s"
        console.print(f"capacity    {rate} with {bound}, {found.ended}; {took}", soft_wrap=True)
    if found.verification is not None:
        for sentence in findings.cautions(found.verification):
            console.print(f"! {sentence}", style="yellow", markup=False, soft_wrap=True)


def _rows(measured: result.Result) -> list[tuple[str, str]]:
    rows = [
        (
            "answered",
            f"{measured.images_per_s:.1f} images/s, {measured.requests_per_s:.1f} requests/s{_interval(measured)}",
        ),
        ("in time", f"{measured.good_images_per_s:.1f} images/s"),
        ("requests", ", ".join(f"{count} {status}" for status, count in measured.counts.items()) or "none"),
    ]
    if measured.latency:
        now = measured.latency
        named = {"p50": now.p50_s, "p90": now.p90_s, "p99": now.p99_s, "p99.9": now.p999_s, "max": now.max_s}
        rows.append(("latency ms", "  ".join(f"{name} {value * 1e3:.1f}" for name, value in named.items())))
    if measured.server:
        stages = measured.server
        named = {"queue": stages.queue_s, "input": stages.compute_input_s, "run": stages.compute_infer_s}
        means = "  ".join(f"{name} {value * 1e3:.2f}" for name, value in named.items())
        rows.append(
            ("server ms", f"{means}  output {stages.compute_output_s * 1e3:.2f}  all {stages.total_s * 1e3:.2f}")
        )
        rows.append(("mean batch", f"{stages.mean_batch:.1f}"))
    made = measured.generator
    several = (
        f"{made.processes} processes, the busiest {made.busiest:.0%}" if made.processes > 1 else f"{made.busiest:.0%}"
    )
    cost = f"{made.cpu_s_per_request * 1e6:.0f} us CPU a request, {several} of a core"
    rows.append(("generator", f"{cost}, p99 {made.lag_p99_s * 1e3:.1f} ms behind"))
    return rows


def _interval(measured: result.Result) -> str:
    sure = measured.confidence
    return f" (± {sure.plus_minus_per_s / max(sure.requests_per_s, 1e-9):.1%})" if sure else ""
