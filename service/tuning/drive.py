"""Drives a loaded model as its callers would: a closed loop of so many, one image each.

Path: search → **drive** → the model's batcher.
"""

import asyncio
import dataclasses
import time

import numpy as np
from numpy.typing import NDArray

from service import errors
from service.batching import place
from service.models import description, lifecycle
from service.runtime import rehearsal

_SEED = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """What so many callers got: images a second, and seconds of latency."""

    callers: int
    rate: float
    p50_s: float
    p99_s: float


def row(model: description.Description) -> dict[str, NDArray[np.generic]]:
    """Return one random row of every input: name → (1, ...).

    Raises:
        ModelLoadError: the model has no batch, or inputs of any size; there is nothing to tune by itself.
    """
    random = np.random.default_rng(_SEED)
    if not model.is_batched or not rehearsal.is_fixed(tuple(model.inputs.values())):
        raise errors.ModelLoadError(
            model.name, "tuning needs a model with a batch and inputs of a fixed size; this one takes any size, or one"
        )
    return {
        spec.name: (
            random.integers(0, 256, (1, *spec.shape[1:])) if spec.datatype.wire == "UINT8" else
            random.standard_normal((1, *spec.shape[1:]))
        ).astype(spec.datatype.numpy)
        for spec in model.inputs.values()
    }  # fmt: skip


async def drive(served: lifecycle.ServedModel, callers: int, seconds: float) -> Point:
    """Let so many callers ask one after the other for so long.

    Raises:
        RunFailed: the model does not run.
    """
    inputs = row(served.description)
    outputs = frozenset(served.description.outputs)
    latencies_s: list[float] = []
    started_s = time.perf_counter()
    until_s = started_s + seconds

    async def ask() -> None:
        while time.perf_counter() < until_s:
            sent_s = time.perf_counter()
            with served.batcher.admit(1, place.Caller()) as admitted:
                await admitted.submit(inputs, outputs)
            latencies_s.append(time.perf_counter() - sent_s)

    await asyncio.gather(*(ask() for _ in range(callers)))
    wall_s = time.perf_counter() - started_s
    p50_s, p99_s = np.quantile(latencies_s, [0.5, 0.99])
    return Point(callers, len(latencies_s) / wall_s, float(p50_s), float(p99_s))
