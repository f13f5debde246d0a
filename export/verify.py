"""Proof that a graph is what it must be, before anybody sees it.

Path: passes → **verify** → bundle.

The gate for fp32 on the CPU is max|difference| <= 1e-5 * max(1, max|reference|), against PyTorch in
float32 and in float64, for every output. At full optimisation the CPU provider computes a row alone and
among others to the same bits; this is checked too, since dynamic batching relies on it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export import errors, evidence, passes, reference, runtime, signature

GATE = 1e-5
BATCHES = (1, 2, 7)

FORBIDDEN = frozenset(
    # Training; what a badly traced layout leaves behind; what makes shapes depend on values.
    {"BatchNormalization", "Dropout", "Gather", "GatherND", "GatherElements", "Range", "Expand", "Shape"}
    | {"If", "Loop", "Scan", "NonZero"}
)

GOLDEN_BYTES_MAX = 900_000
"""Of inputs and outputs together: evidence stays below 1 MB."""
GOLDEN_ROWS_MAX = 4

_INVARIANCE_ROWS = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """Inputs of one image size to compare on: name → (N, ...). Larger batches repeat the rows."""

    name: str
    inputs: runtime.Arrays

    @property
    def rows(self) -> int:
        """How many different images."""
        return len(next(iter(self.inputs.values())))

    def batch(self, rows: int) -> runtime.Arrays:
        """Return that many rows of every input."""
        return {name: repeated(array, rows) for name, array in self.inputs.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """The figures of a verification."""

    parity: tuple[evidence.Parity, ...]
    is_batch_invariant: bool | None
    """None if it was tried at one batch only."""


def verify(
    model: onnx.ModelProto,
    wanted: reference.Reference,
    trials: Sequence[Trial],
    batches: Sequence[int] = BATCHES,
    *,
    must_batch: bool = True,
) -> Result:
    """Check the graph against its reference.

    Args:
        model: the graph, in fp32.
        wanted: what it must compute.
        trials: the first is the usual size; the others may be of other sizes.
        batches: how many rows to run at a time.
        must_batch: whether a graph whose rows change in company is refused; otherwise it is only said.

    Raises:
        VerificationError: with every violation and its figures.
    """
    onnx.checker.check_model(model, full_check=True)
    session = runtime.Session(model)
    parity = [row for trial in trials for row in _compare(session, wanted, trial, batches)]
    violations = [_violation(row) for row in parity if _is_off(row)]
    for trial in trials:
        violations += [*_wrong_best(session, trial), *_undetermined(session, trial)]
    invariant = is_batch_invariant(session, trials[-1]) if len(batches) > 1 else None
    if must_batch and invariant is False:
        violations.append("a row computed alone differs from the same row in a batch")
    if violations:
        raise errors.VerificationError(violations)
    return Result(tuple(parity), invariant)


def structure(model: onnx.ModelProto, outputs: Sequence[str]) -> list[str]:
    """Return what is wrong with the operators or the signature of a graph that we traced; empty if nothing."""
    violations = []
    found = sorted(FORBIDDEN & passes.operators(model).keys())
    if found:
        violations.append(f"operators that a served graph must not have: {', '.join(found)}")
    names = ([value.name for value in model.graph.input], [value.name for value in model.graph.output])
    if names != ([signature.INPUT], list(outputs)):
        violations.append(f"inputs and outputs {names}; expected {signature.INPUT!r} and {list(outputs)}")
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if not dims or dims[0].dim_param != signature.BATCH:
            violations.append(f"the first dimension of {value.name!r} is not the dynamic {signature.BATCH!r}")
    return violations


def goldens(
    model: onnx.ModelProto, inputs: runtime.Arrays, *, is_batched: bool = True
) -> tuple[runtime.Arrays, runtime.Arrays, tuple[str, ...]]:
    """Return inputs and the graph's own outputs for a few rows of them, and the names of outputs left out.

    As many rows as fit into GOLDEN_BYTES_MAX, at most four. Where one row alone is too large, the largest
    outputs are left out until it fits. Without a batch dimension there are no rows: the inputs are kept whole.
    """
    session = runtime.Session(model)
    if not is_batched:
        return inputs, session.run(inputs), ()
    rows = min(GOLDEN_ROWS_MAX, len(next(iter(inputs.values()))))
    outputs = session.run({name: array[:rows] for name, array in inputs.items()})
    sizes = {name: array[:1].nbytes for name, array in outputs.items()}
    input_bytes = sum(array[:1].nbytes for array in inputs.values())
    left_out = []
    while len(sizes) > 1 and input_bytes + sum(sizes.values()) > GOLDEN_BYTES_MAX:
        left_out.append(max(sizes, key=sizes.__getitem__))
        del sizes[left_out[-1]]
    rows = max(1, min(rows, GOLDEN_BYTES_MAX // (input_bytes + sum(sizes.values()))))
    return (
        {name: array[:rows] for name, array in inputs.items()},
        {name: outputs[name][:rows] for name in sizes},
        tuple(left_out),
    )


def repeated(array: NDArray[Any], rows: int) -> NDArray[Any]:
    """Return that many rows: the array's own, again and again."""
    return array[np.arange(rows) % len(array)]


def distance(got: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Return max|difference| / max(1, max|wanted|); infinity where the shapes differ or got is not finite."""
    if got.shape != wanted.shape or not np.isfinite(got).all():
        return float("inf")
    if not got.size:
        return 0.0
    scale = max(1.0, float(np.abs(wanted.astype(np.float64)).max()))
    return float(np.abs(got.astype(np.float64) - wanted.astype(np.float64)).max()) / scale


def same_top1(got: NDArray[Any], wanted: NDArray[Any], tolerance: float) -> bool:
    """Return whether the best class is the same in every row whose margin is over twice the tolerance.

    Args:
        got: (N, K) scores.
        wanted: (N, K) scores.
        tolerance: relative to max(1, max|wanted|), as `distance` is.
    """
    if wanted.shape[1] < 2:
        return True
    ordered = np.sort(wanted.astype(np.float64), axis=1)
    is_clear = ordered[:, -1] - ordered[:, -2] > 2 * tolerance * max(1.0, float(np.abs(wanted).max()))
    return bool((got.argmax(1) == wanted.argmax(1))[is_clear].all())


def _compare(
    session: runtime.Session, wanted: reference.Reference, trial: Trial, batches: Sequence[int]
) -> list[evidence.Parity]:
    """Compare at each batch; the reference is computed once for each row, where rows do not depend on others."""
    dtypes = (np.float32, np.float64) if wanted.has_float64 else (np.float32,)
    by_row = [wanted.run(trial.inputs, dtype) for dtype in dtypes] if wanted.is_by_row else None
    parity = []
    for batch in sorted(set(batches)):
        inputs = trial.batch(batch)
        references = by_row or [wanted.run(inputs, dtype) for dtype in dtypes]
        for name, got in session.run(inputs).items():
            if name in references[0]:  # best classes are not: see _wrong_best
                parity.append(_parity(name, trial, got, [outputs[name] for outputs in references]))
    return parity


def _parity(name: str, trial: Trial, got: NDArray[Any], references: Sequence[NDArray[Any]]) -> evidence.Parity:
    batch, is_scores = len(got), name == signature.LOGITS
    float32, *float64 = (repeated(wanted, batch) for wanted in references)
    return evidence.Parity(
        output=name,
        inputs=trial.name,
        batch=batch,
        shape=tuple(next(iter(trial.inputs.values())).shape[1:]),
        float32=distance(got, float32),
        float64=distance(got, float64[0]) if float64 else None,
        same_top1=same_top1(got, float32, GATE) if is_scores else None,
    )


def _is_off(parity: evidence.Parity) -> bool:
    is_near = parity.float32 <= GATE and (parity.float64 is None or parity.float64 <= GATE)
    return not is_near or parity.same_top1 is False


def _violation(parity: evidence.Parity) -> str:
    float64 = "" if parity.float64 is None else f", {parity.float64:.2e} from float64"
    top1 = {True: "; top-1 equal", False: "; top-1 differs", None: ""}[parity.same_top1]
    return (
        f"{parity.output}, batch {parity.batch} of {parity.inputs} {'x'.join(map(str, parity.shape))}: "
        f"off by {parity.float32:.2e} from its reference{float64} (allowed {GATE:.0e}){top1}"
    )


def _wrong_best(session: runtime.Session, trial: Trial) -> list[str]:
    """The best classes must be those of the graph's own probabilities."""
    counted = [name for name in session.outputs if name.endswith("_classes") and name.startswith("top")]
    if not counted:
        return []
    outputs = session.run(trial.inputs)
    logits = outputs[signature.LOGITS].astype(np.float64)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    violations = []
    for name in counted:
        values = outputs[name.replace("_classes", "_scores")]
        best = -np.sort(-shares, axis=1)[:, : values.shape[1]]
        picked = np.take_along_axis(shares, outputs[name], axis=1)
        if max(distance(values, best), distance(values, picked)) > GATE:
            violations.append(f"{name} are not the classes with the highest probabilities")
    return violations


def _undetermined(session: runtime.Session, trial: Trial) -> list[str]:
    one, other = session.run(trial.inputs), session.run(trial.inputs)
    return [
        f"{name} of {trial.name} differs from run to run: a graph that draws random numbers cannot be verified"
        for name in one
        if not np.array_equal(one[name], other[name], equal_nan=True)
    ]


def is_batch_invariant(session: runtime.Session, trial: Trial) -> bool:
    """Return whether rows computed alone are, to the bit, what they are in a batch."""
    count = min(_INVARIANCE_ROWS, trial.rows)
    together = session.run(trial.batch(count))
    for row in range(count):
        alone = session.run({name: array[row : row + 1] for name, array in trial.inputs.items()})
        if not all(np.array_equal(together[name][row], alone[name][0]) for name in together):
            return False
    return True
