"""The golden inputs and outputs of an export, replayed as batches will run.

Path: version folder's evidence → **goldens** → lifecycle.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from protos import manifest_pb2
from service import errors
from service.runtime import instances

Arrays = Mapping[str, NDArray[np.generic]]


@dataclasses.dataclass(frozen=True, slots=True)
class Replay:
    """How many rows were replayed in how many runs, and how far the worst output was off.

    `worst` and `tolerance` are relative to max(1, max|golden|).
    """

    rows: int
    runs: int
    worst: float
    tolerance: float


@dataclasses.dataclass(frozen=True, slots=True)
class _Run:
    """Which golden rows make a batch, and how many rows it runs as, padding included; 0: as many."""

    picked: NDArray[np.int64]
    rows: int = 0


def replay(
    model: str,
    evidence: pathlib.Path,
    manifest: manifest_pb2.Manifest | None,
    loaded: instances.Instances,
    provider: str,
    *,
    is_batched: bool = True,
) -> Replay | None:
    """Run the goldens in all ways that requests will run; None if the model brings none.

    With a batch: each row alone, all together, and at every bucket that pads (else at the largest
    batch size that was warmed) the rows repeated to fill it, and as few as just need it beside padding.

    Raises:
        ModelLoadError: an output is further off than the manifest allows for this provider, a class
            is another although its score stands out by more than that, or they do not run.
    """
    path = evidence / "golden.npz"
    if manifest is None or not path.exists():
        return None
    tolerances = {tolerance.provider: tolerance.relative for tolerance in manifest.tolerances}
    if provider not in tolerances:
        raise errors.ModelLoadError(model, f"its manifest gives no tolerance for {provider}; export it again")
    inputs, outputs = _read(path)
    rows = len(next(iter(inputs.values())))
    check = _Check(model, provider, tolerances[provider])
    runs = list(_runs(rows, loaded)) if is_batched else [_Run(np.arange(rows))]
    for one in runs:
        batch = {name: array[one.picked] for name, array in inputs.items()}
        try:
            answers = loaded.run(batch, outputs, one.rows)
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this
            raise errors.ModelLoadError(model, f"its golden inputs do not run: {error}") from error
        for name, golden in outputs.items():
            check.compare(name, answers[name], golden[one.picked])
    return Replay(rows, len(runs), check.worst, check.tolerance)


def _read(path: pathlib.Path) -> tuple[Arrays, Arrays]:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    inputs = {name.removeprefix("input."): rows for name, rows in arrays.items() if name.startswith("input.")}
    outputs = {name.removeprefix("output."): rows for name, rows in arrays.items() if name.startswith("output.")}
    return inputs, outputs


def _runs(rows: int, loaded: instances.Instances) -> Iterator[_Run]:
    for row in range(rows):
        yield _Run(np.array([row]))
    buckets = loaded.buckets
    if not loaded.pads:
        yield _Run(np.arange(rows))
        if buckets and buckets[-1] > rows:
            yield _Run(np.arange(buckets[-1]) % rows)
        return
    for smaller, bucket in zip((0, *buckets), buckets, strict=False):
        yield _Run(np.arange(bucket) % rows, bucket)
        if smaller + 1 < bucket:
            yield _Run(np.arange(smaller + 1) % rows, bucket)


class _Check:
    """Compares answers with goldens. Mutable state: `worst`."""

    def __init__(self, model: str, provider: str, tolerance: float) -> None:
        self.worst = 0.0
        self.tolerance = tolerance
        self._model = model
        self._provider = provider

    def compare(self, name: str, got: NDArray[np.generic], golden: NDArray[np.generic]) -> None:
        """Raise if they differ too much."""
        scale = max(1.0, float(np.max(np.abs(golden))))
        classes = _clear_classes(golden, 2 * self.tolerance * scale)
        if classes.any() and not np.array_equal(got.argmax(1)[classes], golden.argmax(1)[classes]):
            raise self._wrong(f"output {name!r} names other classes than it must")
        distance = float(np.max(np.abs(got.astype(np.float64) - golden.astype(np.float64)))) / scale
        if not distance <= self.tolerance:
            raise self._wrong(f"{name!r} is off by {distance:.3g}, allowed {self.tolerance:.3g}")
        self.worst = max(self.worst, distance)

    def _wrong(self, what: str) -> errors.ModelLoadError:
        return errors.ModelLoadError(
            self._model,
            f"its golden outputs are not reproduced on {self._provider}: {what} (relative to the largest golden "
            "value); the file, the driver or the provider is at fault",
        )


def _clear_classes(golden: NDArray[np.generic], margin: float) -> NDArray[np.bool_]:
    """Which rows of scores have a class that stands out by more than the margin."""
    if golden.ndim != 2 or golden.shape[1] < 2 or golden.dtype.kind != "f":
        return np.zeros(len(golden) if golden.ndim else 0, np.bool_)
    ordered = np.sort(golden.astype(np.float64), axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2] > margin)
