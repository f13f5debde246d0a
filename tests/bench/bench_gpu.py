"""`make bench-gpu`: ONNX Runtime alone and served, on CUDA: fp32 and fp16, CUDA graphs on and off.

`python -m tests.bench.bench_gpu [--quick] [--models resnet18,resnet50]`. Random pixels; without a CUDA device
it measures nothing and exits with 1. Prints Markdown, writes build/bench/gpu.json.

Not used here: sklearn and export's pictures, so that a machine with torch, onnx and the server's packages is enough.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from service import errors
from service.runtime import providers
from tests.bench import processes

FOLDER = processes.BUILD / "gpu-models"
PRECISIONS = ("fp32", "fp16")
ROWS = (1, 8, 32)
SERVER_CORES = processes.ALL_CORES - processes.LOAD_CORES
GRAPHS = "optimization { cuda { graphs: true } }\n"
# Name, images in a request, streams, requests under way.
WAYS = (("unary", 1, 0, 64), ("stream", 1, 8, 128), ("8 images", 8, 0, 32), ("32 images", 32, 0, 8))
_QUERY = ("utilization.gpu", "memory.used")


@dataclasses.dataclass(frozen=True)
class Served:
    """One way, one configuration; `of_limit` is of the best that the device does with nothing copied."""

    model: str
    graphs: bool
    way: str
    images_per_s: float
    of_limit: float
    p50_ms: float
    p99_ms: float
    mean_batch: float
    gpu_percent: float
    gpu_mb: float
    cpu_ms_per_image: float
    generator_cores: float


def main() -> int:
    """Measure and print, or say why not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short runs: does it work at all?")
    parser.add_argument("--models", default="resnet18,resnet50", help="networks of `fovea export`")
    asked = parser.parse_args()
    try:
        providers.choose("cuda")
    except errors.ProviderUnavailable as error:
        print(f"no CUDA device: nothing measured ({error})", file=sys.stderr)  # noqa: T201 - the output
        return 1
    seconds = 1.0 if asked.quick else 5.0
    models = asked.models.split(",")
    _export(models)
    named = [f"{model}-fp16" if precision == "fp16" else model for model in models for precision in PRECISIONS]
    limits = _limits(named, seconds / 5)
    _print_limits(limits)
    found = [one for graphs in (False, True) for one in _served(named, graphs, limits, seconds)]
    _print_served(found)
    figures = {"limits": limits, "served": [dataclasses.asdict(one) for one in found]}
    (processes.BUILD / "gpu.json").write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def _repository(graphs: bool) -> pathlib.Path:
    return FOLDER / ("graphs" if graphs else "plain")


def _export(models: Sequence[str]) -> None:
    """Export once, and copy the repository with CUDA graphs asked for in each config.pbtxt."""
    plain, graphs = _repository(False), _repository(True)
    for model in models:
        if not (plain / model).exists():
            export = ["export", model, "--weights", "random", "--precision", ",".join(PRECISIONS), "--replace"]
            command = [sys.executable, "-m", "fovea", *export, "--repository", str(plain)]
            subprocess.run(command, check=True, cwd=processes.ROOT, stdout=subprocess.DEVNULL)
    shutil.rmtree(graphs, ignore_errors=True)
    shutil.copytree(plain, graphs)
    for config in graphs.glob("*/config.pbtxt"):
        config.write_text(f"{config.read_text()}\n{GRAPHS}")


def _limits(models: Sequence[str], seconds: float) -> list[dict[str, Any]]:
    """Images/s of bound runs, by model, graphs and batch."""
    worker = processes.Worker("tests.bench.alone", SERVER_CORES)
    try:
        return [
            {"model": model, "graphs": graphs, "rows": rows}
            | worker.ask(
                what="bound", path=str(_repository(False) / model / "1/model.onnx"), rows=rows, seconds=seconds,
                graphs=graphs,
            )
            for model in models
            for graphs in (False, True)
            for rows in ROWS
        ]  # fmt: skip
    finally:
        worker.close()


def _served(models: Sequence[str], graphs: bool, limits: list[dict[str, Any]], seconds: float) -> Iterator[Served]:
    command = processes.fovea(_repository(graphs), "--device", "cuda")
    log_path = processes.BUILD / f"logs/gpu-{'graphs' if graphs else 'plain'}.log"
    with processes.serving(command, SERVER_CORES, log_path) as server:
        for model in models:
            best = max(one["images_per_s"] for one in limits if (one["model"], one["graphs"]) == (model, graphs))
            for way in WAYS:
                yield _sample(server, model, graphs, way, best, seconds)


def _sample(
    server: processes.Server, model: str, graphs: bool, way: tuple[str, int, int, int], best: float, seconds: float
) -> Served:
    name, images, streams, concurrency = way
    arguments = ["--batch", str(images), "--streams", str(streams), "--concurrency", str(concurrency)]
    cpu_before_s = server.cpu_s()
    with _gpu() as seen:
        figures = processes.load(server.address, model, *arguments, "--duration", f"{seconds}s", "--warmup", "0")
    cpu_s = server.cpu_s() - cpu_before_s
    if set(figures["counts"]) - {"OK"}:
        raise RuntimeError(f"{model}, {name}: {figures['counts']} {figures['sentences']}")
    whole, latency = figures["whole"], figures["whole"]["latency"]
    rate = whole["images_ok"] / whole["wall_s"]
    busy, used_mb = (statistics.median(column) for column in zip(*(seen or [(0.0, 0.0)]), strict=True))
    return Served(
        model, graphs, name, rate, rate / best, latency["p50_s"] * 1e3, latency["p99_s"] * 1e3,
        figures["server"]["mean_batch"], busy, used_mb,
        cpu_s / (whole["images_ok"] + images) * 1e3, figures["generator"]["busy_cores"],
    )  # fmt: skip


@contextlib.contextmanager
def _gpu() -> Iterator[list[tuple[float, ...]]]:
    """Ask nvidia-smi five times a second; (percent busy, MB used) of device 0 stand in the list afterwards."""
    command = [
        "nvidia-smi",
        "-i",
        "0",
        f"--query-gpu={','.join(_QUERY)}",
        "--format=csv,noheader,nounits",
        "-lms",
        "200",
    ]
    seen: list[tuple[float, ...]] = []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield seen
    finally:
        process.terminate()
        lines = process.communicate()[0].splitlines()
        rows = [tuple(map(float, re.findall(r"[\d.]+", line))) for line in lines]
        # Median over the run: connecting and the last answers are at its ends.
        seen += [row for row in rows if len(row) == len(_QUERY)]


def _print_limits(limits: list[dict[str, Any]]) -> None:
    rows = [
        [one["model"], "on" if one["graphs"] else "off", str(one["rows"]), f"{one['images_per_s']:.0f}"]
        for one in limits
    ]
    _print(["alone, nothing copied", "CUDA graphs", "batch", "images/s"], rows)


def _print_served(found: Sequence[Served]) -> None:
    rows = [
        [
            f"{one.model}, {one.way}", "on" if one.graphs else "off", f"{one.images_per_s:.0f}", f"{one.of_limit:.2f}",
            f"{one.p50_ms:.1f}", f"{one.p99_ms:.1f}", f"{one.mean_batch:.1f}", f"{one.gpu_percent:.0f}",
            f"{one.gpu_mb:.0f}", f"{one.cpu_ms_per_image:.3f}", f"{one.generator_cores:.2f}",
        ]
        for one in found
    ]  # fmt: skip
    head = ["served, pixels", "CUDA graphs", "images/s", "/ limit", "p50 ms", "p99 ms", "mean batch", "GPU %", "GPU MB"]
    _print([*head, "CPU ms/image", "generator's cores"], rows)


def _print(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [head, ["---"] * len(head), *rows]
    print("\n".join(f"| {' | '.join(line)} |" for line in lines), end="\n\n", flush=True)  # noqa: T201 - the output


if __name__ == "__main__":
    sys.exit(main())
