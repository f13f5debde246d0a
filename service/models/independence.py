"""Whether a model's rows are strangers to one another, so that requests may share a batch: found out by running it.

Path: instances → **independence** → completion, for models without a config.pbtxt.

A free first dimension does not say so: x - mean(x) has one, and mixes its neighbours. So a model is batched if

1. all inputs and outputs have a free first dimension, and nothing else is free;
2. no operator lets values decide what becomes of other rows, or draws random numbers: for those, runs prove nothing;
3. rows have the same bits alone and in company, in every number up to ROWS_MAX, in every place, beside any neighbour;
4. the rows differ in every output: what is the same for all rows proves nothing.

Rows are random, of magnitudes so different that a maximum or a scale taken over the batch shows in all others.
Beside them stand extreme ones. Arithmetic hands NaN on, however small its share is, so a row that keeps its
bits beside a row of NaN was not computed from it. What picks one value of many may pass NaN over, but then picks
an infinity. What is left, comparisons, is ruled out by 2.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service import datatypes
from service.runtime import instances, rehearsal

Arrays = Mapping[str, NDArray[np.generic]]

ROWS_MAX = 8
"""The largest batch, because every number up to it is tried; a config.pbtxt may say more."""
_MAGNITUDES = (1.0, 0.01, 30.0, 1.0, 0.1, 3.0, 100.0, 1.0)
_INTEGERS_BELOW = (10, 2)
"""Integers of more than 16 bits are often indices: the smaller bound is tried if the larger one is out of range."""
_EXTREME_FLOATS = (math.nan, math.inf, -math.inf, 0.0, 6e4)
"""The values of the extreme rows; the last is about the largest of float16."""
_EXTREMES = len(_EXTREME_FLOATS)
_SEED = 0

BY_VALUE = frozenset(
    {
        "If", "Loop", "Scan", "NonZero", "Unique", "Compress", "NonMaxSuppression", "StringSplit",
        "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM",
        "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Where", "IsNaN", "IsInf",
        "ThresholdedRelu", "Shrink",
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
    """Return whether the model may be batched. Runs it some thirty times, if its tensors do not forbid it already."""
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
    """Random rows, behind them the extreme ones, name → (ROWS_MAX + _EXTREMES, ...), and the outputs of each alone."""
    *tried, last = [_rows(loaded, below) for below in _INTEGERS_BELOW]
    for rows in tried:
        try:
            return rows, _alone(loaded, rows)
        except Exception:  # ONNX Runtime's exceptions have no common base; the last one is told
            continue
    return last, _alone(loaded, last)


def _alone(loaded: instances.Instances, rows: Arrays) -> list[Arrays]:
    return [_run(loaded, rows, np.array([row])) for row in range(ROWS_MAX + _EXTREMES)]


def _rows(loaded: instances.Instances, below: int) -> Arrays:
    random = np.random.default_rng(_SEED)
    return {spec.name: _values(spec, below, random) for spec in loaded.inputs}


def _values(spec: datatypes.TensorSpec, below: int, random: np.random.Generator) -> NDArray[np.generic]:
    """Values of one input, (ROWS_MAX + _EXTREMES, ...); small integers of all values, strings are numbers."""
    shape = (ROWS_MAX, *spec.shape[1:])
    dtype = spec.datatype.numpy
    if dtype.kind == "f" or spec.datatype is datatypes.BF16:
        scales = np.reshape(_MAGNITUDES, (ROWS_MAX, *[1] * (len(shape) - 1)))
        drawn = _with_extremes(random.standard_normal(shape) * scales, _EXTREME_FLOATS)
        return datatypes.patterns(drawn) if spec.datatype is datatypes.BF16 else drawn.astype(dtype)
    low, high = _bounds(spec.datatype, below)
    whole = _with_extremes(random.integers(low, high, shape), (low, high - 1, low, high - 1, low))
    if spec.datatype is datatypes.STRING:
        return whole.astype(np.str_).astype(np.object_)
    return whole.astype(dtype)


def _bounds(datatype: datatypes.Datatype, below: int) -> tuple[int, int]:
    """From where and below what integers are drawn: of few bits all that there are."""
    dtype = datatype.numpy
    if dtype.kind == "b":
        return 0, 2
    if dtype.kind in "iu" and dtype.itemsize <= 2:
        limits = np.iinfo(dtype.name)
        return limits.min, limits.max + 1
    return 0, below


def _with_extremes(rows: NDArray[Any], values: Sequence[float]) -> NDArray[Any]:
    """The rows, and behind them one for each value, full of it."""
    return np.concatenate([rows, *(np.full((1, *rows.shape[1:]), value, rows.dtype) for value in values)])


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
    """Which rows run together.

    1. All random ones in every number; all, also backwards.
    2. An extreme one between two others; all extreme ones and some others.
    3. Copies of one row: two, and as many as there may be, of a random row and of zeros.
    """
    random = np.random.default_rng(_SEED)
    extremes = np.arange(ROWS_MAX, ROWS_MAX + _EXTREMES)
    for count in range(1, ROWS_MAX + 1):
        yield random.permutation(ROWS_MAX)[:count]
    yield np.arange(ROWS_MAX)
    yield np.arange(ROWS_MAX)[::-1]
    for extreme in extremes:
        yield np.array([0, extreme, 1])
    yield np.concatenate([extremes, np.arange(ROWS_MAX - _EXTREMES)])
    yield np.zeros(2, np.int64)
    yield np.zeros(ROWS_MAX, np.int64)
    yield np.full(ROWS_MAX, extremes[_EXTREME_FLOATS.index(0.0)])


def _are_same(one: NDArray[np.generic], other: NDArray[np.generic]) -> bool:
    """Whether shapes, types and bits are equal; any NaN equals any other."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype == np.object_:
        return bool((one == other).all())
    if one.tobytes() == other.tobytes():
        return True
    if one.dtype.kind != "f":
        return False
    is_nan = np.isnan(one)
    return np.array_equal(is_nan, np.isnan(other)) and one[~is_nan].tobytes() == other[~is_nan].tobytes()


def _lack_of_evidence(alone: list[Arrays]) -> str:
    """Rule 4."""
    for name, first in alone[0].items():
        if math.prod(first.shape) == 0:
            return f"output {name!r} is empty"
        if all(_are_same(first, answers[name]) for answers in alone[1:ROWS_MAX]):
            return f"output {name!r} is the same for all rows tried, which proves nothing"
    return ""


def _run(loaded: instances.Instances, rows: Arrays, picked: NDArray[np.int64]) -> Arrays:
    batch = {name: np.ascontiguousarray(values[picked]) for name, values in rows.items()}
    return loaded.run(batch, [spec.name for spec in loaded.outputs])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
