"""What is run before anybody asks: which batch sizes, with which inputs, and how long each takes.

Path: instances → **rehearsal** → batching's costs.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service import datatypes

_RUNS = 3
_SIZE_S = 0.25
"""A size is timed three times, or as often as fits into this; at least once."""
_AGAIN_S = 1.0
_AGAIN_ROUNDS = 5
"""For so long, and so often, sizes are timed again: what a row costs at different sizes may differ by just 2 %."""
_RUN_MAX_S = 2.0
"""On the CPU sizes that would take longer than this are not run at load: nothing there needs warming by size."""

Specs = Sequence[datatypes.TensorSpec]
Run = Callable[[], float]
"""Runs once, and returns the seconds that it took."""


def is_fixed(inputs: Specs) -> bool:
    """Return whether only the batch is free. Other free sizes cannot be made up: some graphs refuse wrong ones."""
    return not any(-1 in spec.shape[1:] for spec in inputs)


def has_device_memory(inputs: Specs, outputs: Specs) -> bool:
    """Return whether there are inputs, and all tensors can stand at fixed addresses: no strings, BF16, scalars."""
    special = {datatypes.STRING, datatypes.BF16}
    are_plain = not any(spec.datatype in special for spec in (*inputs, *outputs))
    return are_plain and bool(inputs) and all(spec.shape and 0 not in spec.shape for spec in inputs)


def zeros(inputs: Specs, rows: int, *, has_batch_axis: bool) -> dict[str, NDArray[np.generic]]:
    """Return inputs of so many rows; without a batch axis the model's own shapes, a free first size being 1."""
    return {
        spec.name: datatypes.zeros(_shape(spec, rows, has_batch_axis=has_batch_axis), spec.datatype) for spec in inputs
    }


def powers_of_two(rows_max: int) -> tuple[int, ...]:
    """Return 1, 2, 4, ... and `rows_max` itself."""
    return tuple(dict.fromkeys((*(2**power for power in range((rows_max - 1).bit_length())), rows_max)))


def buckets(rows_max: int, preferred: Sequence[int]) -> tuple[int, ...]:
    """Return the batch sizes for a device that must know them: the preferred ones with 1 and `rows_max`."""
    if not preferred:
        return powers_of_two(rows_max)
    return tuple(sorted({1, rows_max, *(rows for rows in preferred if 1 <= rows <= rows_max)}))


def seconds(run: Run, runs_before: int) -> float:
    """Return the median seconds of a run, after so many that are not counted; of the last one if it takes long."""
    for _ in range(runs_before):
        took_s = run()
    times = [took_s] if runs_before and took_s > _SIZE_S else [run()]
    while len(times) < _RUNS and sum(times) + times[0] < _SIZE_S:
        times.append(run())
    return statistics.median(times)


def again(runs: Mapping[int, Run], measured: Mapping[int, float]) -> dict[int, float]:
    """Time the sizes again in turn, and return the least seconds of each: what else the machine does only adds to them.

    Args:
        runs: a run of each size, ascending.
        measured: the seconds known so far.
    """
    least = dict(measured)
    left_s = _AGAIN_S
    for _ in range(_AGAIN_ROUNDS):
        for rows, run in runs.items():
            if measured[rows] > left_s:
                break
            took_s = run()
            left_s -= took_s
            least[rows] = min(least[rows], took_s)
    return least


def is_too_long(rows: int, measured: dict[int, float]) -> bool:
    """Return whether so many rows would run too long to be tried, judged by the sizes before."""
    if not measured:
        return False
    largest = max(measured)
    return measured[largest] / largest * rows > _RUN_MAX_S


def _shape(spec: datatypes.TensorSpec, rows: int, *, has_batch_axis: bool) -> tuple[int, ...]:
    if not spec.shape:
        return ()
    return (rows if has_batch_axis else abs(spec.shape[0]), *spec.shape[1:])
