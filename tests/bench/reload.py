"""What loading costs those who are served: LeNet-5 at a constant rate, while models come and go beside it.

Path: command line → **reload** → fovea serve, fovea load, calls of RepositoryModelLoad → table.

Three kinds of rounds, in turn: quiet; ResNet-18 loaded and unloaded again and again; LeNet-5 itself swapped
50 times between two sets of weights, while a second caller checks that every answer is from exactly one of
them. `python -m tests.bench.reload [--rounds 3] [--seconds 10] [--rate 200] [--cores all|one] [--threads 0]`.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import onnxruntime
import tritonclient.grpc as triton
from numpy.typing import NDArray

from tests.bench import processes, subjects

LENET, RESNET = "lenet5", "resnet18"
SWAPS = 50
SECOND_FOLDER = processes.BUILD / "models/lenet5-second"
QUIET, BESIDE, SWAPPED = "quiet", "ResNet-18 comes and goes", f"LeNet-5 swapped {SWAPS} times"
CHECK_EVERY_S = 0.1


@dataclasses.dataclass(frozen=True)
class Round:
    """One run of the load generator, and how many changes happened meanwhile; latencies in seconds."""

    p50_s: float
    p99_s: float
    p999_s: float
    max_s: float
    failed: int
    requests: int
    changes: int
    changes_s: float
    """Median seconds of one change, from call to answer."""
    resident_bytes: int


@dataclasses.dataclass(frozen=True)
class Effort:
    """What the command line asks for."""

    rounds: int
    seconds: float
    rate: float
    cores: frozenset[int]
    threads: int


class Changes:
    """Changes models in a thread until it is told to stop. Mutable state: how long each took; its thread's."""

    def __init__(self, change: Callable[[int], None], at_most: int | None, every_s: float = 0.0) -> None:
        self.took_s: list[float] = []
        self._change = change
        self._at_most = at_most
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Changes":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set() and (self._at_most is None or len(self.took_s) < self._at_most):
            started_s = time.perf_counter()
            self._change(len(self.took_s))
            self.took_s.append(time.perf_counter() - started_s)
            self._over.wait(max(0.0, self._every_s - self.took_s[-1]))


class Checker:
    """Asks again and again, and finds out whose answer it is. Mutable state: the counts; its thread's."""

    def __init__(self, address: str, graphs: list[pathlib.Path]) -> None:
        self.answered = [0, 0]
        self.wrong = 0
        self._client = triton.InferenceServerClient(address)
        self._images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1)).astype(np.uint8)
        self._logits = [_logits(graph, self._images) for graph in graphs]

    def ask(self, number: int) -> None:
        """Ask once."""
        tensor = triton.InferInput("image", list(self._images.shape), "UINT8")
        tensor.set_data_from_numpy(self._images)
        got = self._client.infer(LENET, [tensor]).as_numpy("logits")
        fits = [np.abs(got - logits).max() < 1e-3 * np.abs(logits).max() for logits in self._logits]
        self.wrong += sum(fits) != 1
        for which, fit in enumerate(fits):
            self.answered[which] += bool(fit)


def _logits(graph: pathlib.Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = onnxruntime.InferenceSession(graph).run(["logits"], {"image": images})[0]
    return logits


def second() -> pathlib.Path:
    """Return LeNet-5 in other weights, exported if it is not there."""
    folder = SECOND_FOLDER / LENET
    if not folder.exists():
        command = ["fovea", "export", LENET, "--weights", "random", "--seed", "7", "--repository", str(SECOND_FOLDER)]
        subprocess.run([sys.executable, "-m", *command], check=True, cwd=processes.ROOT, stdout=subprocess.DEVNULL)
    return folder


@contextlib.contextmanager
def repository() -> Iterator[pathlib.Path]:
    """Lay out LeNet-5 in two versions, and ResNet-18."""
    with tempfile.TemporaryDirectory(prefix="fovea-bench-") as place:
        path = pathlib.Path(place)
        shutil.copytree(subjects.repository(LENET) / LENET, path / LENET)
        shutil.copytree(second() / "1", path / LENET / "2")
        shutil.copytree(subjects.repository(RESNET) / RESNET, path / RESNET)
        yield path


def _version(number: int) -> str:
    policy = {"specific": {"versions": [number % 2 + 1]}}
    return json.dumps({"max_batch_size": 64, "dynamic_batching": {}, "version_policy": policy})


def measure(effort: Effort) -> dict[str, list[Round]]:
    """Run all rounds on one server.

    Raises:
        RuntimeError: an answer was from none of the two versions, or from a mixture.
    """
    flags = ["--model-control-mode", "explicit", "--load-model", LENET, "--device", "cpu"]
    log_path = processes.BUILD / "logs/reload.log"
    measured: dict[str, list[Round]] = {QUIET: [], BESIDE: [], SWAPPED: []}
    with repository() as path:
        command = processes.fovea(path, *flags, "--threads", str(effort.threads))
        with processes.serving(command, effort.cores, log_path) as server:
            client = triton.InferenceServerClient(server.address)
            checker = Checker(server.address, [path / LENET / version / "model.onnx" for version in ("1", "2")])

            def come_and_go(number: int) -> None:
                client.load_model(RESNET)
                client.unload_model(RESNET)

            def swap(number: int) -> None:
                client.load_model(LENET, config=_version(number))

            for number in range(effort.rounds):
                sys.stderr.write(f"round {number + 1} of {effort.rounds}\n")
                measured[QUIET].append(_round(server, effort, Changes(lambda number: None, 0)))
                measured[BESIDE].append(_round(server, effort, Changes(come_and_go, None)))
                with Changes(checker.ask, None, CHECK_EVERY_S):
                    swaps = Changes(swap, SWAPS, effort.seconds / SWAPS)
                    measured[SWAPPED].append(_round(server, effort, swaps))
    sys.stderr.write(f"checked answers: {checker.answered} of the two versions, {checker.wrong} of neither\n")
    if checker.wrong:
        raise RuntimeError(f"{checker.wrong} answers were from none of the versions, or from both")
    return measured


def _round(server: processes.Server, effort: Effort, changes: Changes) -> Round:
    arguments = ["--rate", str(effort.rate), "--arrivals", "constant", "--duration", f"{effort.seconds}s"]
    with changes:
        figures = processes.load(server.address, LENET, *arguments)
    latency, counts = figures["latency"], figures["counts"]
    return Round(
        p50_s=latency["p50_s"], p99_s=latency["p99_s"], p999_s=latency["p999_s"], max_s=latency["max_s"],
        failed=sum(counts.values()) - counts.get("OK", 0) - counts.get("NOT_SENT", 0), requests=counts.get("OK", 0),
        changes=len(changes.took_s), changes_s=statistics.median(changes.took_s or [0.0]),
        resident_bytes=server.resident_bytes(),
    )  # fmt: skip


def table(measured: dict[str, list[Round]]) -> str:
    """Return the medians of the rounds as Markdown; the largest of the largest latencies; failures in all."""
    lines = ["| | p50 ms | p99 ms | p99.9 ms | max ms | failed | requests | changes | s each | MB after |"]
    lines.append("|---" * 10 + "|")
    for name, rounds in measured.items():
        p50_s, p99_s, p999_s, took_s = (
            statistics.median(getattr(one, field) for one in rounds)
            for field in ("p50_s", "p99_s", "p999_s", "changes_s")
        )
        lines.append(
            f"| {name} | {p50_s * 1e3:.2f} | {p99_s * 1e3:.2f} | {p999_s * 1e3:.2f} | "
            f"{max(one.max_s for one in rounds) * 1e3:.1f} | {sum(one.failed for one in rounds)} | "
            f"{sum(one.requests for one in rounds)} | {sum(one.changes for one in rounds)} | {took_s:.2f} | "
            f"{rounds[-1].resident_bytes / 1e6:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--cores", choices=("all", "one"), default="all", help="the server's")
    parser.add_argument("--threads", type=int, default=0, help="the server's --threads")
    asked = parser.parse_args()
    cores = processes.ALL_CORES if asked.cores == "all" else processes.SERVER_CORES
    measured = measure(Effort(asked.rounds, asked.seconds, asked.rate, cores, asked.threads))
    print(table(measured))  # noqa: T201 - the command's output


if __name__ == "__main__":
    main()
