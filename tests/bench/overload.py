"""More than a server can do: goodput, refusals and latency against offered load, in an open loop with deadlines.

Path: engine → **overload** → fovea serve on core 0, fovea load on core 1 → bars, plot.
"""

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from service import plots
from tests.bench import bars, processes, served, subjects

SHARES = (0.1, 0.5, 0.8, 1.0, 1.5, 2.0, 5.0, 10.0)
SHARES_QUICK = (0.5, 2.0, 10.0)
_WATCH_EVERY_S = 1.0
QUEUE_SAMPLES_MAX = 1024
GOODPUT_MIN = {2.0: 0.85, 10.0: 0.75}
IN_TIME_MIN, MEMORY_MAX = 0.99, 1.1


@dataclasses.dataclass(frozen=True)
class Trial:
    """What is overloaded: a model, images as files or pixels, how long a caller waits, how long it lasts."""

    model: str
    way: subjects.Way
    deadline_s: float
    seconds: float
    shares: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Load:
    """One offered load: all rates in images a second; `in_time` of the accepted ones, none refused."""

    share: float
    offered: float
    good: float
    in_time: float
    refused: float
    p50_s: float
    p99_s: float
    waiting_max: float
    resident_bytes: int
    counts: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Curve:
    """A server's capacity, its memory before the loads, and what it did under each."""

    model: str
    capacity: float
    resident_bytes: int
    loads: tuple[Load, ...]


def measure(trial: Trial, report: Callable[[str], None]) -> Curve:
    """Measure the capacity in a closed loop, then each share of it, offered in an open one."""
    repository = subjects.repository(trial.model)
    flags = (*served.SERVE, "--queue-samples-max", str(QUEUE_SAMPLES_MAX))
    log_path = processes.BUILD / f"logs/overload-{trial.model}.log"
    with processes.serving(processes.fovea(repository, *flags), processes.SERVER_CORES, log_path) as server:
        report(f"{trial.model}: capacity")
        capacity = served.sample(server, trial.model, trial.way, trial.seconds).images_per_s
        resident_bytes = server.resident_bytes()
        loads = []
        for share in trial.shares:
            report(f"{trial.model}: {share:.0%} of {capacity:.0f} images/s")
            loads.append(_offer(server, trial, share, capacity))
    return Curve(trial.model, capacity, resident_bytes, tuple(loads))


def _offer(server: processes.Server, trial: Trial, share: float, capacity: float) -> Load:
    arguments = ["--rate", f"{share * capacity / trial.way.images:.3f}", "--batch", str(trial.way.images)]
    arguments += ["--streams", str(trial.way.streams), "--deadline", f"{trial.deadline_s * 1e3:.0f}ms"]
    arguments += ["--duration", f"{trial.seconds}s", "--warmup", f"{min(trial.deadline_s, trial.seconds / 2)}s"]
    arguments += ["--images", str(subjects.photos())] if trial.way.is_jpeg else []
    with _watched(server) as waiting:
        figures = processes.load(server.address, trial.model, *arguments)
    return _load(figures, share, share * capacity, max(waiting.seen), server.resident_bytes())


def _load(figures: dict[str, Any], share: float, offered: float, waiting_max: float, resident_bytes: int) -> Load:
    counts: dict[str, int] = figures["counts"]
    sent = sum(counts.values()) - counts.get("NOT_SENT", 0)
    refused = counts.get("RESOURCE_EXHAUSTED", 0)
    latency = figures["latency"] or {"p50_s": float("nan"), "p99_s": float("nan")}
    return Load(
        share=share, offered=offered, good=figures["good_images_per_s"],
        in_time=figures["in_time"] / max(sent - refused, 1), refused=refused / max(sent, 1),
        p50_s=latency["p50_s"], p99_s=latency["p99_s"],
        waiting_max=waiting_max, resident_bytes=resident_bytes, counts=counts,
    )  # fmt: skip


class _watched:  # noqa: N801 - used like a function
    """Looks at the server's queue while a load runs. Mutable state: what was seen; its thread alone adds."""

    def __init__(self, server: processes.Server) -> None:
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.seen = [0.0]

    def __enter__(self) -> "_watched":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_WATCH_EVERY_S):
            try:
                self.seen.append(self._server.waiting())
            except OSError:  # the server is too busy to say
                continue


def bars_of(curve: Curve) -> Iterator[bars.Bar]:
    """Yield the promises about overload."""
    for load in curve.loads:
        name = f"{curve.model} at {load.share:g}x"
        if load.share in GOODPUT_MIN:
            least = GOODPUT_MIN[load.share]
            yield bars.Bar(f"{name}: goodput over capacity", load.good / curve.capacity, least, is_least=True)
        if load.share >= 1:
            yield bars.Bar(f"{name}: in time, of the accepted", load.in_time, IN_TIME_MIN, is_least=True)
    waiting = max(load.waiting_max for load in curve.loads)
    yield bars.Bar(f"{curve.model}: samples waiting at most", waiting, QUEUE_SAMPLES_MAX, is_least=False)
    grown = curve.loads[-1].resident_bytes / curve.loads[0].resident_bytes
    yield bars.Bar(f"{curve.model}: memory after the last load over after the first", grown, MEMORY_MAX, is_least=False)


def draw(curves: Sequence[Curve]) -> list[str]:
    """Draw each curve and return the files."""
    paths = []
    for curve in curves:
        path = processes.BUILD / f"overload-{curve.model}.png"
        plots.offered_load(curve.loads, curve.capacity, path, f"{curve.model}: {curve.capacity:.0f} images/s at most")
        paths.append(str(path))
    return paths
