"""How long a batch takes, beside other ways to run it: in turn, so that noise meets all alike.

Path: verify → **latency** → evidence.
"""

import os
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping

from export import evidence

ROUNDS_MAX = 20
ROUNDS_MIN = 3


def measure(ways: Mapping[str, Callable[[], object]], batch: int, budget_s: float) -> list[evidence.Latency]:
    """Run every way once per round until the budget is spent, after one round that does not count.

    Args:
        ways: what → a call that runs one batch.
        batch: rows of that batch, for the record.
        budget_s: seconds for all rounds; at least ROUNDS_MIN rounds are made.
    """
    times: dict[str, list[float]] = {what: [] for what in ways}
    for run in ways.values():
        run()
    ends_s = time.perf_counter() + budget_s
    for number in range(ROUNDS_MAX):
        if number >= ROUNDS_MIN and time.perf_counter() > ends_s:
            break
        for what, run in ways.items():
            started_s = time.perf_counter()
            run()
            times[what].append(time.perf_counter() - started_s)
    return [
        evidence.Latency(what, batch, len(taken), statistics.median(taken), min(taken)) for what, taken in times.items()
    ]


def machine() -> str:
    """Return the processor, how many of its cores this process may use, and how busy they were in the last minute."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if pathlib.Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, load {os.getloadavg()[0]:.1f}"
