"""The planner, through the batcher that it decides for: who runs now, and what no decision may break."""

import asyncio
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import errors
from service.batching import batcher, costs, place, planner, policy
from tests import fakes

FLAT = {1: 0.02, 8: 0.16}
"""Seconds by rows of a network that gains nothing by batches."""
STEEP = {1: 0.0100, 2: 0.0101, 4: 0.0103, 8: 0.0107}
"""And of one whose runs cost nearly the same whatever their rows."""
PADDED = {1: 0.002, 4: 0.003, 16: 0.007}


class Bench:
    """A batcher with a manual clock and manual runs."""

    def __init__(
        self,
        seconds: dict[int, float],
        rules: policy.Policy | None = None,
        *,
        pads: bool = False,
        limits: batcher.Limits | None = None,
    ) -> None:
        self.clock, self.runs = fakes.ManualClock(), fakes.ManualRuns()
        self.batcher = batcher.Batcher(
            "m",
            self.runs,
            rules or policy.Policy(batch_samples_max=8),
            costs.Costs(costs.Measured(seconds, pads)),
            limits=limits or batcher.Limits(1000),
            clock=self.clock,
            observer=fakes.Observed(),
        )

    def send(
        self, *values: int, caller: str = "", priority: int = 0, slack_s: float = math.inf
    ) -> "asyncio.Task[list[int]]":
        who = place.Caller(caller, priority, self.clock.now_s + slack_s)
        return asyncio.create_task(self._send(values, who))

    async def _send(self, values: Sequence[int], who: place.Caller) -> list[int]:
        with self.batcher.admit(len(values), who) as admitted:
            answer = await admitted.submit({"x": np.array(values)}, frozenset({"y"}))
        return [int(value) for value in answer.outputs["y"]]

    async def busy(self) -> "asyncio.Task[list[int]]":
        """Occupy the device."""
        task = self.send(0)
        await settle()
        assert self.runs.started == [[0]]
        return task

    async def finish(self) -> None:
        """End every run, until nothing is left."""
        while len(self.runs._ends) and not all(end.done() for end in self.runs._ends):
            for number, end in enumerate(self.runs._ends):
                if not end.done():
                    self.clock.advance(0.001)
                    self.runs.end(number)
            await settle()


async def settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


async def test_where_a_batch_saves_nothing_the_first_does_not_wait_for_the_others() -> None:
    bench = Bench(FLAT)
    tasks = [await bench.busy(), *(bench.send(value) for value in range(1, 4))]
    await settle()
    bench.runs.end(0)
    await settle()
    assert bench.runs.started[1] == [1]
    await bench.finish()
    assert await asyncio.gather(*tasks) == [[0], [2], [4], [6]]


async def test_where_a_batch_costs_no_more_all_leave_together() -> None:
    bench = Bench(STEEP)
    tasks = [await bench.busy(), *(bench.send(value) for value in range(1, 6))]
    await settle()
    bench.runs.end(0)
    await settle()
    assert bench.runs.started[1] == [1, 2, 3, 4, 5]
    await bench.finish()
    await asyncio.gather(*tasks)


async def test_a_device_that_pads_runs_a_bucket() -> None:
    bench = Bench(PADDED, policy.Policy(batch_samples_max=16), pads=True)
    tasks = [await bench.busy(), *(bench.send(value) for value in range(1, 4))]
    await settle()
    bench.runs.end(0)
    await settle()
    assert (bench.runs.started[1], bench.runs.rows[1]) == ([1, 2, 3], 4)
    await bench.finish()
    await asyncio.gather(*tasks)


async def test_a_request_larger_than_any_batch_comes_back_whole_and_in_order() -> None:
    bench = Bench(STEEP)
    large = bench.send(*range(21))
    await settle()
    await bench.finish()
    assert await large == [2 * value for value in range(21)]
    assert max(len(values) for values in bench.runs.started) <= 8


async def test_a_lone_small_request_is_not_divided_over_free_instances_where_that_saves_nothing() -> None:
    bench = Bench(STEEP, limits=batcher.Limits(1000, in_flight=2))
    one = bench.send(1, 2)
    await settle()
    assert bench.runs.started == [[1, 2]]
    await bench.finish()
    assert await one == [2, 4]


async def test_a_large_request_alone_uses_all_free_instances_where_that_helps() -> None:
    bench = Bench(FLAT, limits=batcher.Limits(1000, in_flight=2))
    large = bench.send(*range(8))
    await settle()
    assert len(bench.runs.started) == 2
    await bench.finish()
    assert await large == [2 * value for value in range(8)]


async def test_what_cannot_be_answered_in_time_is_refused_before_any_work() -> None:
    bench = Bench(FLAT)
    with pytest.raises(errors.TooLate) as caught:
        await bench.send(1, slack_s=0.01)
    assert caught.value.pause_s is None
    assert bench.runs.started == []
    assert bench.batcher.samples_waiting == 0


async def test_what_is_behind_too_much_is_told_when_to_come_again() -> None:
    bench = Bench(FLAT)
    tasks = [await bench.busy(), *(bench.send(value) for value in range(1, 11))]
    await settle()
    with pytest.raises(errors.TooLate) as caught:
        await bench.send(99, slack_s=0.1)
    assert caught.value.pause_s is not None
    assert 0.05 < caught.value.pause_s < 0.5
    await bench.finish()
    await asyncio.gather(*tasks)


async def test_the_first_priority_leaves_first() -> None:
    bench = Bench(FLAT, policy.Policy(batch_samples_max=8, levels=(policy.Level(), policy.Level()), default_priority=2))
    tasks = [await bench.busy(), bench.send(1), bench.send(2), bench.send(3, priority=1)]
    await settle()
    await bench.finish()
    await asyncio.gather(*tasks)
    assert bench.runs.started == [[0], [3], [1], [2]]


async def test_a_caller_who_floods_does_not_keep_another_from_his_share() -> None:
    bench = Bench(FLAT)
    flood = [await bench.busy(), *(bench.send(value, caller="flood") for value in range(1, 40))]
    await settle()
    other = [bench.send(100 + number, caller="other") for number in range(5)]
    await settle()
    await bench.finish()
    order = [values[0] for values in bench.runs.started]
    places = [order.index(100 + number) for number in range(5)]
    assert max(places) <= 12
    await asyncio.gather(*flood, *other)


async def test_a_timeout_that_demotes_lets_the_others_pass() -> None:
    bench = Bench(FLAT, policy.Policy(batch_samples_max=8, levels=(policy.Level(timeout_s=0.5, timeout_demotes=True),)))
    tasks = [await bench.busy(), bench.send(1)]
    await settle()
    bench.clock.advance(0.6)
    tasks.append(bench.send(2))
    await settle()
    await bench.finish()
    await asyncio.gather(*tasks)
    assert bench.runs.started == [[0], [2], [1]]


async def test_a_preferred_size_is_waited_for_as_long_as_the_delay() -> None:
    bench = Bench(STEEP, policy.Policy(batch_samples_max=8, delay_s=1.0, preferred_samples=(2,)))
    tasks = [bench.send(1)]
    await settle()
    assert bench.runs.started == []
    tasks.append(bench.send(2))
    await settle()
    assert bench.runs.started == [[1, 2]]
    await bench.finish()
    await asyncio.gather(*tasks)


REQUESTS = st.lists(
    st.tuples(
        st.integers(1, 12),  # samples
        st.sampled_from(["a", "b"]),
        st.sampled_from([math.inf, math.inf, 0.05, 0.5]),  # slack
        st.booleans(),  # whether a run ends after it was sent
        st.booleans(),  # whether it is cancelled at once
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(requests=REQUESTS, seconds=st.sampled_from([FLAT, STEEP, {}]), in_flight=st.integers(1, 3), pads=st.booleans())
def test_nobody_is_lost_or_answered_twice_no_batch_is_overfilled_and_all_room_comes_back(
    requests: list[tuple[int, str, float, bool, bool]], seconds: dict[int, float], in_flight: int, pads: bool
) -> None:
    async def play() -> None:
        bench = Bench(seconds, pads=pads, limits=batcher.Limits(1000, in_flight))
        tasks, first = [], 0
        for samples, caller, slack_s, ends, is_cancelled in requests:
            tasks.append((first, samples, bench.send(*range(first, first + samples), caller=caller, slack_s=slack_s)))
            first += samples
            await settle()
            if is_cancelled:
                tasks[-1][2].cancel()
            under_way = [number for number, end in enumerate(bench.runs._ends) if not end.done()]
            assert len(under_way) <= in_flight
            assert under_way or not bench.batcher.samples_waiting, "a free device is kept waiting"
            if ends and under_way:
                bench.clock.advance(0.01)
                bench.runs.end(under_way[0])
                await settle()
        await bench.finish()
        answers = await asyncio.gather(*(task for _, _, task in tasks), return_exceptions=True)
        ran = [value for values in bench.runs.started for value in values]
        assert len(ran) == len(set(ran)), "somebody ran twice"
        assert all(len(values) <= 8 for values in bench.runs.started)
        for (start, samples, _), answer in zip(tasks, answers, strict=True):
            if isinstance(answer, list):
                assert answer == [2 * value for value in range(start, start + samples)]
            else:
                assert isinstance(answer, asyncio.CancelledError | errors.Refused | errors.DeadlineExceeded)
        if pads and seconds:
            assert all(
                rows in seconds and rows >= len(values)
                for rows, values in zip(bench.runs.rows, bench.runs.started, strict=True)
            )
        assert bench.batcher.samples_waiting == 0

    asyncio.run(play())


async def test_a_batch_that_waits_for_others_leaves_early_enough_for_its_answers() -> None:
    bench = Bench(STEEP, policy.Policy(batch_samples_max=8, delay_s=1.0))
    task = bench.send(1, slack_s=0.1)
    await settle()
    bench.clock.advance(0.08)
    await settle()
    assert bench.runs.started == []
    bench.clock.advance(0.005)
    await settle()
    assert bench.runs.started == [[1]], "at 0.085 s of 0.1: a run takes 0.01, 0.011 with care, and its answer has 4 ms"
    bench.runs.end(0)
    await task


class Nobody:
    """The owner of places that never run."""

    def join(self, place: place.Place) -> None:
        raise AssertionError

    def leave(self, place: place.Place) -> None:
        raise AssertionError


@pytest.mark.parametrize(("side", "together"), [(1000, 4), (5000, 2), (9000, 1)])
def test_samples_of_any_size_run_together_while_they_are_small(side: int, together: int) -> None:
    known = costs.Costs(costs.Measured({}, pads=False))
    rules = planner.Planner(policy.Policy(batch_samples_max=32), known)
    waiting = [place.Place(Nobody(), 1, 0, "", place.Times(0.0, math.inf, math.inf, math.inf)) for _ in range(4)]
    for one in waiting:
        one.is_ready, one.shape = True, (side, side, 1)
    plan = rules.plan(waiting, 4, 0.0, planner.Devices(0.0))
    assert len(plan.batch) == together
    waits = planner.Planner(policy.Policy(batch_samples_max=32, delay_s=1.0), known)
    assert bool(waits.plan(waiting, 4, 0.0, planner.Devices(0.0)).batch) == (together < 4), "a batch that cannot grow"
