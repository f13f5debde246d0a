"""Our batcher beside greedy and timer batching, on traces of arrivals, in virtual time.

    python -m tests.bench.simulated [--markdown] [--runs 1000] [--device PART-OF-NAME]

Ends with exit status 1 if ours is worse than the best of the others by more than 2 % on any trace:
in mean latency where nothing has a deadline, else in goodput, the samples answered in time; or if it
is not better in goodput where more is asked than the device can do.
"""

import argparse
import collections
import dataclasses
import itertools
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence

import rich.console
import rich.table

from tests.bench.simulation import devices, outcome, replay, simpler, traces

TOLERANCE = 0.02
RUNS = 1000


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One trace, replayed with ours and with each of the simpler policies."""

    trace: traces.Trace
    ours: outcome.Outcome
    others: dict[str, outcome.Outcome]

    @property
    def best(self) -> str:
        """The simpler policy that is best on this very trace."""
        return max(self.others, key=lambda name: self._merit(self.others[name]))

    @property
    def ratio(self) -> float:
        """Ours to the best of the others; above 1 ours is better."""
        return self._merit(self.ours) / max(1e-12, self._merit(self.others[self.best]))

    @property
    def is_missed(self) -> bool:
        return self.ratio < 1 - TOLERANCE

    @property
    def is_overload(self) -> bool:
        return self.trace.has_deadlines and self.trace.load >= 2

    def _merit(self, one: outcome.Outcome) -> float:
        return one.goodput if self.trace.has_deadlines else 1 / one.mean_s


def compared(runs: int, among: Iterable[devices.Device]) -> Iterator[Comparison]:
    """Replay every trace with every policy."""
    for device in among:
        for kind in traces.KINDS:
            for load, deadlines in itertools.product(kind.loads, traces.DEADLINES):
                trace = traces.make(device, kind, load, deadlines, runs)
                others = {policy.name: policy(device, trace) for policy in simpler.POLICIES}
                yield Comparison(trace, replay.ours(device, trace), others)


def table(device: devices.Device, comparisons: Sequence[Comparison]) -> rich.table.Table:
    """All traces of a device: latencies in ms, goodput as a share of what it can do, wasted rows."""
    shown = rich.table.Table(title=device.name)
    for heading in (
        "trace",
        "load",
        "deadlines",
        "best other",
        "p50 ms",
        "p99 ms",
        "goodput %",
        "wasted %",
        "ours/best",
    ):
        shown.add_column(heading, justify="left" if heading in {"trace", "deadlines", "best other"} else "right")
    for one in comparisons:
        ours, best = one.ours, one.others[one.best]
        scale = 100 / device.capacity
        shown.add_row(
            one.trace.kind,
            f"{one.trace.load:g}",
            one.trace.deadlines,
            one.best,
            f"{ours.percentile_s(50) * 1e3:.3g} / {best.percentile_s(50) * 1e3:.3g}",
            f"{ours.percentile_s(99) * 1e3:.3g} / {best.percentile_s(99) * 1e3:.3g}",
            f"{ours.goodput * scale:.1f} / {best.goodput * scale:.1f}",
            f"{ours.wasted * 100:.1f} / {best.wasted * 100:.1f}",
            f"{one.ratio:.3f}",
            style="red" if one.is_missed else None,
        )
    return shown


def markdown(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """One row for each device, range of loads and kind of deadline: the medians over its traces."""
    yield "| device | load | deadlines | traces | Fovea | greedy | best timer | Fovea / best other: worst, median |"
    yield "|---|---|---|---|---|---|---|---|"
    groups: dict[tuple[str, str, str], list[Comparison]] = collections.defaultdict(list)
    for one in comparisons:
        groups[one.trace.device, _range(one.trace.load), "yes" if one.trace.has_deadlines else "no"].append(one)
    for (device, load, has_deadlines), group in groups.items():
        capacity = {one.name: one.capacity for one in devices.DEVICES}[device]
        timers = [[one.others[name] for name in one.others if name != "greedy"] for one in group]
        columns = [
            _figure([[one.ours] for one in group], capacity),
            _figure([[one.others["greedy"]] for one in group], capacity),
            _figure(timers, capacity),
        ]
        ratios = sorted(one.ratio for one in group)
        told = f"{ratios[0]:.3f}, {_short(statistics.median(ratios))}"
        yield f"| {device} | {load} | {has_deadlines} | {len(group)} | {' | '.join(columns)} | {told} |"


def _range(load: float) -> str:
    return "0.3-0.7" if load < 0.9 else "0.95-1.2" if load < 2 else "2-10"


def _figure(group: Sequence[Sequence[outcome.Outcome]], capacity: float) -> str:
    """Of each trace's outcomes the best, and of those the median: mean latency, or goodput as a share of capacity."""
    if group[0][0].trace.has_deadlines:
        return f"{statistics.median(max(one.goodput for one in each) for each in group) / capacity:.0%}"
    return f"{statistics.median(min(one.mean_s for one in each) for each in group) * 1e3:.3g} ms"


def _short(ratio: float) -> str:
    return f"{ratio:.3f}" if ratio < 10 else f"{ratio:.0f}"


def verdicts(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, bool]]:
    """What was wanted, in words with the figures, and whether it is so."""
    worst = min(comparisons, key=lambda one: one.ratio)
    where = f"{worst.trace.device}, {worst.trace.kind} at {worst.trace.load:g}, {worst.trace.deadlines} deadlines"
    yield f"worst of {len(comparisons)} traces: {worst.ratio:.3f} of the best other ({where})", not worst.is_missed
    overload = [one for one in comparisons if one.is_overload]
    if overload:
        median = statistics.median(one.ratio for one in overload)
        lowest = min(one.ratio for one in overload)
        yield (
            f"goodput in overload: {_short(median)} of the best other in the median, {lowest:.3f} at least",
            lowest > 1,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true", help="print the short table for BENCHMARKS.md")
    parser.add_argument("--runs", type=int, default=RUNS, help="full runs that a trace is long")
    parser.add_argument("--device", default="", help="only devices with this in their name")
    asked = parser.parse_args()
    among = [device for device in devices.DEVICES if asked.device in device.name]
    comparisons = list(compared(asked.runs, among))
    console = rich.console.Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    if asked.markdown:
        sys.stdout.write("\n".join(markdown(comparisons)) + "\n\n")
    else:
        for device in among:
            console.print(table(device, [one for one in comparisons if one.trace.device == device.name]))
    told = list(verdicts(comparisons))
    for sentence, is_met in told:
        sys.stdout.write(f"{'met' if is_met else 'MISSED'}: {sentence}\n")
    return 0 if all(is_met for _, is_met in told) else 1


if __name__ == "__main__":
    sys.exit(main())
