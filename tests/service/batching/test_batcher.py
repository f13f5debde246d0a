"""The batcher: a failure stays with its cause, and everybody is answered once."""

import asyncio
import math

import numpy as np
import pytest

from service import errors
from service.batching import batcher, costs, place, policy
from tests import fakes


class Bench:
    """A batcher with a manual clock and manual runs."""

    def __init__(self, rules: policy.Policy | None = None, samples_max: int = 100) -> None:
        self.clock, self.runs, self.observed = fakes.ManualClock(), fakes.ManualRuns(), fakes.Observed()
        self.batcher = batcher.Batcher(
            "m",
            self.runs,
            rules or policy.Policy(batch_samples_max=4),
            costs.Costs(costs.Measured({}, pads=False)),
            limits=batcher.Limits(samples_max),
            clock=self.clock,
            observer=self.observed,
        )

    def send(self, *values: int, deadline_s: float = math.inf) -> "asyncio.Task[list[int]]":
        return asyncio.create_task(self._send(values, deadline_s))

    async def _send(self, values: tuple[int, ...], deadline_s: float) -> list[int]:
        with self.batcher.admit(len(values), place.Caller(deadline_s=deadline_s)) as admitted:
            answer = await admitted.submit({"x": np.array(values)}, frozenset({"y"}))
        return [int(value) for value in answer.outputs["y"]]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_arrives_together_runs_together_and_what_arrives_meanwhile_runs_next() -> None:
    bench = Bench()
    first = [bench.send(1), bench.send(2, 3)]
    await settle()
    later = [bench.send(4), bench.send(5)]
    await settle()
    assert bench.runs.started == [[1, 2, 3]]
    bench.runs.end(0)
    await settle()
    assert bench.runs.started == [[1, 2, 3], [4, 5]]
    bench.runs.end(1)
    assert await asyncio.gather(*first, *later) == [[2], [4, 6], [8], [10]]
    assert bench.observed.samples == [3, 2]


async def test_cancelling_the_middle_one_of_three_that_wait_leaves_the_others() -> None:
    bench = Bench()
    busy = bench.send(0)
    await settle()
    three = [bench.send(1), bench.send(2), bench.send(3)]
    await settle()
    three[1].cancel()
    await settle()
    assert bench.batcher.samples_waiting == 2
    bench.runs.end(0)
    await settle()
    assert bench.runs.started[1] == [1, 3]
    bench.runs.end(1)
    assert await asyncio.gather(busy, three[0], three[2]) == [[0], [2], [6]]
    assert three[1].cancelled()


async def test_cancelling_the_middle_one_of_three_that_run_leaves_the_others() -> None:
    bench = Bench()
    three = [bench.send(1), bench.send(2), bench.send(3)]
    await settle()
    three[1].cancel()
    await settle()
    bench.runs.end(0)
    assert await asyncio.gather(three[0], three[2]) == [[2], [6]]
    assert three[1].cancelled()


async def test_who_times_out_is_told_at_once_and_takes_no_place() -> None:
    bench = Bench()
    busy = bench.send(0)
    await settle()
    hurried, patient = bench.send(1, deadline_s=bench.clock.now_s + 1), bench.send(2)
    await settle()
    bench.clock.advance(1.0)
    with pytest.raises(errors.DeadlineExceeded, match=r"after 1000.0 ms in the queue"):
        await hurried
    bench.runs.end(0)
    await settle()
    assert bench.runs.started[1] == [2]
    bench.runs.end(1)
    assert await asyncio.gather(busy, patient) == [[0], [4]]
    assert bench.batcher.samples_waiting == 0


async def test_a_run_that_raises_fails_its_own_requests_only() -> None:
    bench = Bench()
    failing = [bench.send(1), bench.send(2)]
    await settle()
    waiting = bench.send(3)
    await settle()
    bench.runs.end(0, RuntimeError("cudaErrorIllegalAddress"))
    await settle()
    bench.runs.end(1)
    assert await waiting == [6]
    for task in failing:
        with pytest.raises(errors.RunFailed) as caught:
            await task
        assert "cudaErrorIllegalAddress" not in str(caught.value)
        assert "cudaErrorIllegalAddress" in str(caught.value.__cause__)


async def test_a_run_with_the_wrong_number_of_rows_fails() -> None:
    async def short(requests: object, wanted: object, rows: int) -> batcher.BatchResult:
        return batcher.BatchResult({"y": np.zeros(1)}, 0.0, 0.0)

    bench = Bench()
    bench.batcher._run = short
    with pytest.raises(errors.RunFailed) as caught:
        await bench.send(1, 2)
    assert "1 rows for a batch of 2" in str(caught.value.__cause__)


async def test_closing_runs_a_half_full_batch_without_waiting_for_its_delay() -> None:
    bench = Bench(policy.Policy(batch_samples_max=4, delay_s=60.0))
    half = [bench.send(1), bench.send(2)]
    await settle()
    assert bench.runs.started == []
    closing = asyncio.create_task(bench.batcher.aclose())
    await settle()
    assert bench.runs.started == [[1, 2]]
    assert not closing.done()
    bench.runs.end(0)
    assert await asyncio.gather(*half) == [[2], [4]]
    await closing


async def test_the_delay_passes_and_the_batch_leaves() -> None:
    bench = Bench(policy.Policy(batch_samples_max=4, delay_s=0.5))
    one = bench.send(1)
    await settle()
    assert bench.runs.started == []
    bench.clock.advance(0.5)
    await settle()
    bench.runs.end(0)
    assert await one == [2]


async def test_a_full_queue_refuses_and_room_comes_back() -> None:
    bench = Bench(samples_max=3)
    busy = bench.send(0)
    await settle()
    waiting = bench.send(1, 2)
    await settle()
    with pytest.raises(errors.QueueFull, match="2 of 3 samples wait"):
        await bench.send(3, 4)
    bench.runs.end(0)
    await settle()
    bench.runs.end(1)
    assert await asyncio.gather(busy, waiting) == [[0], [2, 4]]
    assert bench.batcher.samples_waiting == 0


async def test_room_is_given_back_when_work_before_the_queue_fails() -> None:
    bench = Bench(samples_max=3)
    with pytest.raises(ValueError, match="damaged"), bench.batcher.admit(3, place.Caller()):
        raise ValueError("damaged image")
    assert bench.batcher.samples_waiting == 0


async def test_random_cancels_and_failures_lose_nobody() -> None:
    random = np.random.default_rng(0)
    bench = Bench(samples_max=10_000)
    tasks = []
    for number in range(300):
        tasks.append(bench.send(*range(number, number + int(random.integers(1, 4)))))
        if random.random() < 0.3:
            tasks[int(random.integers(len(tasks)))].cancel()
        await asyncio.sleep(0)
        running = len(bench.runs.started) - 1
        if running >= 0 and not bench.runs._ends[running].done() and random.random() < 0.7:
            bench.runs.end(running, RuntimeError("x") if random.random() < 0.2 else None)
    while not all(task.done() for task in tasks):
        await settle()
        if not bench.runs._ends[-1].done():
            bench.runs.end(len(bench.runs._ends) - 1)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for number, answer in enumerate(answers):
        if isinstance(answer, list):
            assert answer == [2 * value for value in range(number, number + len(answer))]
        else:
            assert isinstance(answer, asyncio.CancelledError | errors.RunFailed)
    assert bench.batcher.samples_waiting == 0
