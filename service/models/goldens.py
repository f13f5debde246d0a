"""The golden inputs and outputs of an export, replayed through the session that will serve.

Path: version folder's evidence → **goldens** → lifecycle.
"""

import dataclasses
import pathlib

import numpy as np

from protos import manifest_pb2
from service import errors
from service.runtime import session


@dataclasses.dataclass(frozen=True, slots=True)
class Replay:
    """How many rows were replayed, and how far the worst output was off, relative to max(1, max|golden|)."""

    rows: int
    worst: float
    tolerance: float


def replay(
    model: str,
    evidence: pathlib.Path,
    manifest: manifest_pb2.Manifest | None,
    loaded: session.Session,
    provider: str,
    *,
    is_batched: bool = True,
) -> Replay | None:
    """Run the goldens together, and each row alone if the model has a batch; None if the model brings none.

    Raises:
        ModelLoadError: an output is further off than the manifest allows for this provider, or they do not run.
    """
    path = evidence / "golden.npz"
    if manifest is None or not path.exists():
        return None
    tolerances = {tolerance.provider: tolerance.relative for tolerance in manifest.tolerances}
    if provider not in tolerances:
        raise errors.ModelLoadError(model, f"its manifest gives no tolerance for {provider}; export it again")
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    inputs = {name.removeprefix("input."): rows for name, rows in arrays.items() if name.startswith("input.")}
    outputs = {name.removeprefix("output."): rows for name, rows in arrays.items() if name.startswith("output.")}
    rows = len(next(iter(inputs.values())))
    worst = 0.0
    alone = [slice(row, row + 1) for row in range(rows)] if is_batched else []
    for part in [slice(0, rows), *alone]:
        try:
            answers = loaded.run({name: array[part] for name, array in inputs.items()}, outputs)
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this
            raise errors.ModelLoadError(model, f"its golden inputs do not run: {error}") from error
        worst = max(worst, *(_distance(answers[name], golden[part]) for name, golden in outputs.items()))
    if not worst <= tolerances[provider]:
        raise errors.ModelLoadError(
            model,
            f"its golden outputs are not reproduced on {provider}: off by {worst:.3g}, "
            f"allowed {tolerances[provider]:.3g} (relative to the largest golden value); "
            "the file, the driver or the provider is at fault",
        )
    return Replay(rows, worst, tolerances[provider])


def _distance(got: np.ndarray, golden: np.ndarray) -> float:
    scale = max(1.0, float(np.max(np.abs(golden))))
    return float(np.max(np.abs(got.astype(np.float64) - golden.astype(np.float64)))) / scale
