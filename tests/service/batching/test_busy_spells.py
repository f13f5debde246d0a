"""Callers who ask again as soon as they are answered keep a device busy, although nobody waits when a run ends."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from service.batching import batcher, costs, place, policy, slots
from tests import fakes
from tests.bench.simulation import replay

OVERHEAD_S, SAMPLE_S = 10e-6, 16e-6
CALLERS, REQUESTS = 8, 100


def seconds(samples: int) -> float:
    return OVERHEAD_S + SAMPLE_S * samples


async def sizes(pause_s: float) -> list[int]:
    """The batches that so many callers' requests run in, each of whom pauses between answer and next request."""
    found: list[int] = []

    async def run(requests: Sequence[slots.Tensors], wanted: frozenset[str], rows: int) -> batcher.BatchResult:
        samples = sum(len(request["x"]) for request in requests)
        found.append(samples)
        await asyncio.sleep(seconds(samples))
        return batcher.BatchResult({"y": np.zeros(samples)}, 0.0, seconds(samples))

    served = batcher.Batcher(
        "m",
        run,
        policy.Policy(64),
        costs.Costs(costs.Measured({rows: seconds(rows) for rows in (1, 2, 4, 8, 16, 32, 64)}, pads=False)),
        limits=batcher.Limits(1000),
        clock=asyncio.get_running_loop(),
        observer=fakes.Observed(),
    )

    async def call() -> None:
        for _ in range(REQUESTS):
            with served.admit(1, place.Caller()) as admitted:
                await admitted.submit({"x": np.zeros(1)}, frozenset({"y"}))
            await asyncio.sleep(pause_s)

    await asyncio.gather(*(call() for _ in range(CALLERS)))
    return found


@pytest.mark.parametrize(("pause_s", "least", "most"), [(0.0, 7.5, 8.0), (0.05, 1.0, 6.0)])
def test_batches_are_full_in_a_busy_spell_and_short_where_the_device_is_idle_between(
    pause_s: float, least: float, most: float
) -> None:
    with asyncio.Runner(loop_factory=replay.VirtualLoop) as runner:
        found = runner.run(sizes(pause_s))
    assert sum(found) == CALLERS * REQUESTS
    assert least <= sum(found) / len(found) <= most
