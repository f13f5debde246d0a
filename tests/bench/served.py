"""Served beside its limits: every way to send, every model, in rounds that take turns.

Path: engine → **served** → fovea serve on core 0, fovea load on core 1, limits, noop → bars, tables.
"""

import collections
import contextlib
import dataclasses
import pathlib
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.bench import captured, limits, processes, subjects

LENET = "lenet5"
SERVE = ("--device", "cpu", "--threads", "1")
NOOP_WAYS = ("unary, pixels", "stream, pixels", "32 images, pixels")
_NOOP_IMAGES = (1, 32)
LEAST_WAY, LEAST_IMAGES, LEAST_ROWS, _LEAST = "32 images, pixels", 32, 64, 0
"""Beside the no-op server also one that runs: two messages of this way together."""
_NO_RUNS: dict[str, dict[str, int]] = {"batches": {}}


@dataclasses.dataclass(frozen=True)
class Sample:
    """One run of one way. CPU is the whole server process's, over the whole run and all that it answered."""

    images_per_s: float
    cpu_s_per_image: float
    cpu_s_per_message: float
    p50_s: float
    p99_s: float
    resident_bytes: int
    batches: Mapping[int, int]
    messages: int
    generator_cores: float


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long each run is and how often it is made, by model; and for how long each limit is looked at."""

    seconds: Mapping[str, float]
    rounds: Mapping[str, int]
    limit_s: Mapping[str, float]

    @property
    def models(self) -> list[str]:
        """The models that are measured."""
        return list(self.rounds)


@dataclasses.dataclass
class Measured:
    """All rounds: samples and limits by model and way, samples of the no-op server by way."""

    samples: dict[tuple[str, str], list[Sample]] = dataclasses.field(default_factory=dict)
    noop: dict[str, list[Sample]] = dataclasses.field(default_factory=dict)
    least: list[Sample] = dataclasses.field(default_factory=list)
    """Of the least server that batches, for LEAST_WAY."""
    alone: dict[tuple[str, str], list[limits.Round]] = dataclasses.field(default_factory=dict)
    """The mean of the limits right before and right after each sample."""

    @property
    def models(self) -> list[str]:
        """Those that were measured."""
        return list(dict.fromkeys(model for model, _ in self.alone))

    def limits_of(self, model: str) -> list[limits.Round]:
        """Return all limits of a model."""
        return [one for (found, _), rounds in self.alone.items() if found == model for one in rounds]

    def best(self, model: str, limit: limits.Round) -> limits.Alone:
        """Return, of a limit, the batch size that is the model's best over all."""
        return limit.runs[limits.best_rows(self.limits_of(model))]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {
            "served": [
                {"model": model, "way": way, "rounds": [dataclasses.asdict(sample) for sample in samples]}
                for (model, way), samples in self.samples.items()
            ],
            "least": [dataclasses.asdict(one) for one in self.least],
            "noop": {way: [dataclasses.asdict(sample) for sample in samples] for way, samples in self.noop.items()},
            "limits": [
                {"model": model, "way": way, "rounds": [dataclasses.asdict(one) for one in rounds]}
                for (model, way), rounds in self.alone.items()
            ],
        }


def median(samples: list[Sample], field: str) -> float:
    """Return the median of one figure over the rounds."""
    values: list[float] = [getattr(sample, field) for sample in samples]
    return statistics.median(values)


def measure(effort: Effort, report: Callable[[str], None]) -> Measured:
    """Run all rounds; servers stay up between them, idle while another is measured."""
    measured = Measured()
    with contextlib.ExitStack() as stack:
        servers = {model: stack.enter_context(_server(model)) for model in effort.models}
        noops = {images: stack.enter_context(_noop(servers[LENET], images)) for images in _noop_images(effort)}
        if noops:
            noops[_LEAST] = stack.enter_context(_least())
        limit = limits.Limit()
        stack.callback(limit.close)
        for number, model in _turns(effort):
            report(f"round {number + 1} of {effort.rounds[model]}: {model}")
            _round(model, servers[model], noops, effort, measured, limit)
    return measured


def _round(
    model: str,
    server: processes.Server,
    noops: Mapping[int, processes.Server],
    effort: Effort,
    measured: Measured,
    limit: limits.Limit,
) -> None:
    """Every way once, between two looks at the limits."""
    seconds = effort.seconds[model]
    before = limit.round(model, effort.limit_s[model])
    for way in subjects.ways(model):
        measured.samples.setdefault((model, way.name), []).append(sample(server, model, way, seconds))
        if model == LENET and way.name in NOOP_WAYS:
            ours = sample(noops[way.images], model, way, seconds, "--in-order")
            measured.noop.setdefault(way.name, []).append(ours)
        if model == LENET and way.name == LEAST_WAY:
            measured.least.append(sample(noops[_LEAST], model, way, seconds, "--in-order"))
        after = limit.round(model, effort.limit_s[model])
        measured.alone.setdefault((model, way.name), []).append(before.mean(after))
        before = after


def sample(server: processes.Server, model: str, way: subjects.Way, seconds: float, *arguments: str) -> Sample:
    """Load a server once from a quiet start until everything is answered, and return its figures.

    Raises:
        RuntimeError: a request was not answered with OK.
    """
    cpu_before_s = server.cpu_s()
    timing = ("--duration", f"{seconds}s", "--warmup", "0", "--give-up", "120s")
    figures = processes.load(server.address, model, *timing, *way.arguments(), *arguments)
    cpu_s = server.cpu_s() - cpu_before_s
    whole = figures["whole"]
    if set(figures["counts"]) - {"OK"} or whole["requests"] * way.images != whole["images_ok"]:
        raise RuntimeError(f"{model}, {way.name}: {figures['counts']} {figures['sentences']}")
    batches = collections.Counter(
        {int(size): runs for size, runs in (figures["server"] or _NO_RUNS)["batches"].items()}
    )
    batches[way.images] += 1  # the generator's first request, before it counts: the server paid for it
    messages = whole["requests"] + 1
    return Sample(
        images_per_s=whole["images_ok"] / whole["wall_s"],
        cpu_s_per_image=cpu_s / (messages * way.images),
        cpu_s_per_message=cpu_s / messages,
        p50_s=whole["latency"]["p50_s"],
        p99_s=whole["latency"]["p99_s"],
        resident_bytes=server.resident_bytes(),
        batches=dict(batches),
        messages=messages,
        generator_cores=figures["generator"]["busy_cores"],
    )


def _turns(effort: Effort) -> Iterator[tuple[int, str]]:
    """Rounds in turn: each model has had its first before any has its second."""
    for number in range(max(effort.rounds.values())):
        yield from ((number, model) for model in effort.models if number < effort.rounds[model])


def _server(model: str) -> contextlib.AbstractContextManager[processes.Server]:
    command = processes.fovea(subjects.repository(model), *SERVE)
    return processes.serving(command, processes.SERVER_CORES, processes.BUILD / f"logs/{model}.log")


def _noop(real: processes.Server, images: int) -> contextlib.AbstractContextManager[processes.Server]:
    folder = _captured(images)
    captured.capture(real.address, LENET, images, folder)
    log_path = processes.BUILD / f"logs/noop-{images}.log"
    return processes.serving(["tests.bench.noop", str(folder)], processes.SERVER_CORES, log_path)


def _least() -> contextlib.AbstractContextManager[processes.Server]:
    """To be started when the answers are captured."""
    runs = ("--runs", str(subjects.graph(LENET)), "--rows", str(LEAST_ROWS))
    command = ["tests.bench.noop", str(_captured(LEAST_IMAGES)), *runs]
    return processes.serving(command, processes.SERVER_CORES, processes.BUILD / "logs/least.log")


def _captured(images: int) -> pathlib.Path:
    return processes.BUILD / f"captured/{images}"


def _noop_images(effort: Effort) -> tuple[int, ...]:
    return _NOOP_IMAGES if LENET in effort.models else ()


def rounds_together(measured: Measured, model: str, way: str) -> list[tuple[Sample, limits.Round]]:
    """Return each round's sample with the limits around it."""
    return list(zip(measured.samples[model, way], measured.alone[model, way], strict=True))
