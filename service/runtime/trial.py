"""How many instances of how many threads: measured, because it makes up to two times and no rule predicts it.

Path: instances → **trial** → instances.

Candidates are k instances of t threads with k * t = the cores that the process may use. Instances of
one thread share a session; the others have their own. Throughput decides; within 5 % of the best, that
one which answers a request alone soonest: for long runs the one with most threads, for short ones not.

Others may use the machine meanwhile. That makes runs longer, never shorter: so the best of the rounds counts.
"""

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from service.batching import slots
from service.runtime import session

INSTANCES_MAX = 16
_NEARLY = 0.95
_ROUNDS = 3
_SLICE_S = 0.05
"""How long each candidate runs in each round, if a run is shorter."""
_BETWEEN_S = 0.5
"""Candidates between the extremes are tried while loading their sessions takes no longer than this."""
_ROWS_MAX = 8
_BATCH_S = 0.04
"""Batches of the trial are as large as the server's are under load, but their runs not longer than this."""


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """So many instances of so many threads."""

    instances: int
    threads: int

    def __str__(self) -> str:
        return f"{self.instances} x {self.threads}"


@dataclasses.dataclass(frozen=True, slots=True)
class Figures:
    """What a candidate did: throughput with all instances busy, and the time of one row alone."""

    rows_per_s: float
    alone_s: float

    def __str__(self) -> str:
        return f"{self.rows_per_s:.4g} rows/s, alone {self.alone_s * 1e3:.3g} ms"


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """The chosen candidate with its sessions, loaded and warm, and the table for the log."""

    chosen: Candidate
    sessions: list[session.Session]
    table: str


Load = Callable[[int], session.Session]
"""Loads a session of so many threads."""
Inputs = Callable[[int], slots.Tensors]
"""Makes inputs of so many rows."""


def candidates(cores: int) -> list[Candidate]:
    """Return what is worth trying: one instance, one thread each, and the powers of two between."""
    halves = [count for count in (2, 4, 8) if count < min(cores, INSTANCES_MAX)]
    instances = [1, min(cores, INSTANCES_MAX), *halves]
    return [Candidate(count, cores // count) for count in dict.fromkeys(instances)]


def choose(cores: int, load: Load, inputs: Inputs, rows_max: int) -> Outcome:
    """Measure the candidates, each beside the best so far, and return the best.

    Args:
        cores: how many the process may use.
        load: loads a session.
        inputs: makes inputs.
        rows_max: the model's largest batch.
    """
    tried = candidates(cores)
    best, sessions = tried[0], _sessions(tried[0], load)
    figures: dict[Candidate, Figures] = {}
    feed = inputs(_rows(sessions[0], inputs, rows_max)) if len(tried) > 1 else {}
    load_s = 0.0
    for challenger in tried[1:]:
        if challenger.threads > 1 and challenger.instances * load_s > _BETWEEN_S:
            continue
        started_s = time.perf_counter()
        others = _sessions(challenger, load)
        load_s = (time.perf_counter() - started_s) / len(others)
        figures |= _compare({best: sessions, challenger: others}, feed, inputs(1))
        if preferred(figures, (best, challenger)) == challenger:
            best, sessions = challenger, others
    table = "; ".join(f"{candidate} threads {measured}" for candidate, measured in figures.items())
    return Outcome(best, sessions, table)


def preferred(figures: Mapping[Candidate, Figures], among: Iterable[Candidate]) -> Candidate:
    """Return the fastest, or of several that are nearly so the one that answers a request alone soonest."""
    among = list(among)
    most = max(figures[candidate].rows_per_s for candidate in among)
    nearly = [candidate for candidate in among if figures[candidate].rows_per_s >= most * _NEARLY]
    return min(nearly, key=lambda candidate: (figures[candidate].alone_s, candidate.instances))


def _sessions(candidate: Candidate, load: Load) -> list[session.Session]:
    if candidate.threads == 1:
        return [load(1)]
    return [load(candidate.threads) for _ in range(candidate.instances)]


def _rows(loaded: session.Session, inputs: Inputs, rows_max: int) -> int:
    """Rows of the trial's batches."""
    feed = inputs(1)
    _seconds(loaded, feed)
    row_s = _seconds(loaded, feed)
    rows = 1
    while rows * 2 <= min(rows_max, _ROWS_MAX) and rows * 2 * row_s <= _BATCH_S:
        rows *= 2
    return rows


def _compare(
    beside: dict[Candidate, list[session.Session]], feed: slots.Tensors, one: slots.Tensors
) -> dict[Candidate, Figures]:
    """Measure in rounds that alternate: what else the machine does hits both."""
    runs = {}
    for candidate, sessions in beside.items():
        run_s = [_seconds(loaded, feed) for loaded in sessions for _ in range(2)][-1]
        runs[candidate] = max(2, round(_SLICE_S / run_s))
    best = dict.fromkeys(beside, Figures(0.0, math.inf))
    for _ in range(_ROUNDS):
        for candidate, sessions in beside.items():
            callers = sessions * candidate.instances if candidate.threads == 1 else sessions
            rate = _rate(callers, feed, runs[candidate])
            alone_s = min(_seconds(sessions[0], one) for _ in range(2))
            before = best[candidate]
            best[candidate] = Figures(max(before.rows_per_s, rate), min(before.alone_s, alone_s))
    return best


def _rate(callers: Sequence[session.Session], feed: slots.Tensors, runs: int) -> float:
    """Rows per second when each caller has a thread and runs so often."""
    names = [spec.name for spec in callers[0].outputs]

    def call(loaded: session.Session) -> None:
        for _ in range(runs):
            loaded.run(feed, names)

    threads = [threading.Thread(target=call, args=(loaded,)) for loaded in callers]
    started_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = next((len(array) for array in feed.values() if array.ndim), 1)
    return rows * runs * len(callers) / (time.perf_counter() - started_s)


def _seconds(loaded: session.Session, feed: slots.Tensors) -> float:
    started_s = time.perf_counter()
    loaded.run(feed, [spec.name for spec in loaded.outputs])
    return time.perf_counter() - started_s
