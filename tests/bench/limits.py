"""What no server can beat here: ONNX Runtime alone and the decoder alone.

Path: engine → **limits** → alone (a process on the server's core) → served, tables.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from tests.bench import processes, subjects

ROWS = {"lenet5": (1, 2, 4, 8, 16, 32, 64), "resnet18": (1, 2, 4, 8, 32)}
ROWS_OTHERS = (1, 8)


@dataclasses.dataclass(frozen=True)
class Alone:
    """Images a second, and CPU seconds of the process per image."""

    images_per_s: float
    cpu_s: float

    def mean(self, other: "Alone") -> "Alone":
        """Return the mean of this and another, in time as in rate."""
        return Alone((self.images_per_s + other.images_per_s) / 2, (self.cpu_s + other.cpu_s) / 2)


@dataclasses.dataclass(frozen=True)
class Round:
    """One round of a model: runs by batch size, and decoding its photos."""

    runs: dict[int, Alone]
    decoded: Alone

    def mean(self, other: "Round") -> "Round":
        """Return the mean of this and another."""
        runs = {rows: one.mean(other.runs[rows]) for rows, one in self.runs.items()}
        return Round(runs, self.decoded.mean(other.decoded))


def best_rows(rounds: Sequence[Round]) -> int:
    """Return the batch size with most images a second, in the median of rounds.

    One size for all of them: the best of each would be the luckiest, which no server can beat by its own luck.
    """
    return max(rounds[0].runs, key=lambda rows: statistics.median(one.runs[rows].images_per_s for one in rounds))


class Limit:
    """The limits on one core with one thread. Mutable state: the process that measures them."""

    def __init__(self) -> None:
        self._worker = processes.Worker("tests.bench.alone", processes.SERVER_CORES)

    def round(self, model: str, seconds: float) -> Round:
        """Measure each batch size and the decoder for about so long."""
        path, folder = str(subjects.graph(model)), str(subjects.photos())
        runs = {
            rows: Alone(**self._worker.ask(what="run", path=path, rows=rows, seconds=seconds))
            for rows in ROWS.get(model, ROWS_OTHERS)
        }
        return Round(runs, Alone(**self._worker.ask(what="decoded", path=path, folder=folder, seconds=seconds)))

    def close(self) -> None:
        """End the process."""
        self._worker.close()


def search(models: Iterable[str], seconds: float, cores: int) -> list[dict[str, Any]]:
    """Return images/s of instances x threads x batch on all cores, for each model."""
    worker = processes.Worker("tests.bench.alone", processes.ALL_CORES)
    try:
        return [
            {"model": model, "instances": instances, "threads": cores // instances, "rows": rows}
            | worker.ask(
                what="together", path=str(subjects.graph(model)), rows=rows, seconds=seconds,
                instances=instances, threads=cores // instances,
            )
            for model in models
            for instances in sorted({1, cores})
            for rows in ROWS_OTHERS
        ]  # fmt: skip
    finally:
        worker.close()
