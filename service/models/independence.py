"""Whether a model's rows are strangers to one another, so that requests may share a batch: found out by running it.

Path: instances → **independence** → completion, for models without a config.pbtxt.

A free first dimension does not say so: x - mean(x) has one, and mixes its neighbours. So a model is batched if

1. all inputs and outputs have a free first dimension, and nothing else is free;
2. no operator lets values decide what becomes of other rows, or draws random numbers: for those, runs prove nothing;
3. rows have the same bits alone and in company, in every number up to ROWS_MAX, in every place, beside any neighbour;
4. the rows differ in every output: what is the same for all rows proves nothing.

Rows are random, of magnitudes so different that a maximum or a scale taken over the batch shows in all others.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from service import datatypes
from service.runtime import instances, rehearsal

Arrays = Mapping[str, NDArray[np.generic]]

ROWS_MAX = 8
"""The largest batch, because every number up to it is tried; a config.pbtxt may say more."""
_MAGNITUDES = (1.0, 0.01, 30.0, 1.0, 0.1, 3.0, 100.0, 1.0)
_INTEGERS_BELOW = (10, 2)
"""Integers are often indices: the smaller bound is tried if the larger one is out of range."""
_SEED = 0

BY_VALUE = frozenset(
    {
        "If", "Loop", "Scan", "NonZero", "Unique", "Compress", "NonMaxSuppression", "StringSplit",
        "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM",
        "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout",
    }
)  # fmt: skip
"""Operators that rule 2 is about."""


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """How many rows may run together, 0: the model is not batched, and the reason in words."""

    rows_max: int
    reason: str


def judge(loaded: instances.Instances) -> Verdict:
    """Return whether the model may be batched. Runs it some twenty times, if its tensors do not forbid it already."""
    reason = _forbidden_by_tensors(loaded) or _forbidden_by_operators(loaded.operators)
    if reason:
        return Verdict(0, reason)
    try:
        rows, alone = _rows_that_run(loaded)
        reason = _difference(loaded, rows, alone) or _lack_of_evidence(alone)
    except Exception as error:  # ONNX Runtime's exceptions have no common base but this
        reason = f"made-up inputs do not run: {_first_line(error)}"
    if reason:
        return Verdict(0, reason)
    return Verdict(ROWS_MAX, f"up to {ROWS_MAX} rows together gave the same bits as each alone")


def _forbidden_by_tensors(loaded: instances.Instances) -> str:
    """Rule 1."""
    if not loaded.inputs:
        return "it has no inputs"
    for spec in (*loaded.inputs, *loaded.outputs):
        if spec.shape[:1] != (-1,):
            return f"the first dimension of {spec.name!r} is not free: {list(spec.shape)}"
    axes = {spec.axis for spec in loaded.inputs}
    if len(axes) > 1:
        return f"the first dimensions of its inputs have different names: {', '.join(map(repr, sorted(axes)))}"
    if not rehearsal.is_fixed(loaded.inputs):
        return "sizes beside the first dimension are free, so that no inputs can be made up to try it"
    return ""


def _forbidden_by_operators(operators: frozenset[str]) -> str:
    """Rule 2."""
    found = sorted(operators & BY_VALUE)
    return f"what {', '.join(found)} does to a row may depend on others, or on chance" if found else ""


def _rows_that_run(loaded: instances.Instances) -> tuple[Arrays, list[Arrays]]:
    """Random rows, name → (ROWS_MAX, ...), and the outputs of each alone."""
    *tried, last = [_rows(loaded, below) for below in _INTEGERS_BELOW]
    for rows in tried:
        try:
            return rows, _alone(loaded, rows)
        except Exception:  # ONNX Runtime's exceptions have no common base; the last one is told
            continue
    return last, _alone(loaded, last)


def _alone(loaded: instances.Instances, rows: Arrays) -> list[Arrays]:
    return [_run(loaded, rows, np.array([row])) for row in range(ROWS_MAX)]


def _rows(loaded: instances.Instances, below: int) -> Arrays:
    random = np.random.default_rng(_SEED)
    return {spec.name: _values(spec, below, random) for spec in loaded.inputs}


def _values(spec: datatypes.TensorSpec, below: int, random: np.random.Generator) -> NDArray[np.generic]:
    """Values of one input, (ROWS_MAX, ...); uint8 are pixels, strings are numbers."""
    shape = (ROWS_MAX, *spec.shape[1:])
    dtype = spec.datatype.numpy
    if dtype.kind == "f" or spec.datatype is datatypes.BF16:
        scales = np.reshape(_MAGNITUDES, (ROWS_MAX, *[1] * (len(shape) - 1)))
        drawn = random.standard_normal(shape) * scales
        return datatypes.patterns(drawn) if spec.datatype is datatypes.BF16 else drawn.astype(dtype)
    whole = random.integers(0, 256 if dtype == np.uint8 else 2 if dtype == np.bool_ else below, shape)
    if spec.datatype is datatypes.STRING:
        return whole.astype(np.str_).astype(np.object_)
    return whole.astype(dtype)


def _difference(loaded: instances.Instances, rows: Arrays, alone: list[Arrays]) -> str:
    """Rule 3."""
    for picked in _companies():
        together = _run(loaded, rows, picked)
        for name, answers in together.items():
            if answers.ndim == 0 or len(answers) != len(picked):
                return f"output {name!r} has shape {list(answers.shape)} for {len(picked)} rows"
            for place, row in enumerate(picked.tolist()):
                if not _are_same(answers[place : place + 1], alone[row][name]):
                    return f"output {name!r} of a row is not the same alone and among {len(picked)} rows"
    return ""


def _companies() -> Iterator[NDArray[np.int64]]:
    """Which rows run together: all in every number, all backwards, and one beside a copy of itself."""
    random = np.random.default_rng(_SEED)
    for count in range(1, ROWS_MAX + 1):
        yield random.permutation(ROWS_MAX)[:count]
    yield np.arange(ROWS_MAX)
    yield np.arange(ROWS_MAX)[::-1]
    yield np.zeros(2, np.int64)


def _are_same(one: NDArray[np.generic], other: NDArray[np.generic]) -> bool:
    """Whether shapes, types and bits are equal; NaN equals itself."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool((one == other).all()) if one.dtype == np.object_ else one.tobytes() == other.tobytes()


def _lack_of_evidence(alone: list[Arrays]) -> str:
    """Rule 4."""
    for name, first in alone[0].items():
        if math.prod(first.shape) == 0:
            return f"output {name!r} is empty"
        if all(_are_same(first, answers[name]) for answers in alone[1:]):
            return f"output {name!r} is the same for all rows tried, which proves nothing"
    return ""


def _run(loaded: instances.Instances, rows: Arrays, picked: NDArray[np.int64]) -> Arrays:
    batch = {name: np.ascontiguousarray(values[picked]) for name, values in rows.items()}
    return loaded.run(batch, [spec.name for spec in loaded.outputs])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
