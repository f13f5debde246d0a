"""Requests on their way through the batcher: parts, priorities, timeouts, shares, several devices."""

import asyncio
import dataclasses
import math

import numpy as np
import pytest

from service import errors
from service.batching import batcher, costs, place, policy
from tests import fakes

FLAT = costs.Measured({rows: 1.0 * rows for rows in (1, 2, 4)}, pads=False)
AFFINE = costs.Measured({rows: 10.0 + rows for rows in (1, 2, 4)}, pads=False)
BUCKETS = costs.Measured({1: 1.0, 4: 2.0}, pads=True)
FOUR = policy.Policy(batch_samples_max=4)
LEVELS = (
    policy.Level(),
    policy.Level(timeout_s=5.0),
    policy.Level(timeout_s=5.0, timeout_demotes=True, requests_max=2),
)


@dataclasses.dataclass(eq=False)
class Bench:
    """A batcher with a manual clock and manual runs."""

    measured: costs.Measured = AFFINE
    rules: policy.Policy = FOUR
    limits: batcher.Limits = dataclasses.field(default_factory=lambda: batcher.Limits(100))

    def __post_init__(self) -> None:
        self.clock, self.runs, self.observed = fakes.ManualClock(), fakes.ManualRuns(), fakes.Observed()
        self.batcher = batcher.Batcher(
            "m",
            self.runs,
            self.rules,
            costs.Costs(self.measured),
            limits=self.limits,
            clock=self.clock,
            observer=self.observed,
        )

    def send(self, *values: int, shape: int = 0, **who: float | str) -> "asyncio.Task[list[int]]":
        return asyncio.create_task(self._send(values, shape, place.Caller(**who)))

    async def _send(self, values: tuple[int, ...], shape: int, who: place.Caller) -> list[int]:
        rows = np.array(values).reshape(-1, *[1] * shape)
        with self.batcher.admit(len(values), who) as admitted:
            answer = await admitted.submit({"x": rows}, frozenset({"y"}))
        return [int(value) for value in answer.outputs["y"].ravel()]

    async def busy(self) -> "asyncio.Task[list[int]]":
        """Occupy the device with run 0."""
        task = self.send(0)
        await settle()
        assert self.runs.started == [[0]]
        return task

    async def end_all(self) -> None:
        """End every run, and those that start then, each after the second that a run takes."""
        for number in range(1000):
            await settle()
            if number == len(self.runs.started):
                return
            if not self.runs.is_ended(number):
                self.clock.advance(1.0)
                self.runs.end(number)


async def settle() -> None:
    """Let everything happen that happens without the clock; a busy event loop counts as quiet after 1 ms."""
    for _ in range(300):
        await asyncio.sleep(0)


async def test_a_large_request_runs_in_parts_and_comes_back_whole_and_in_order() -> None:
    bench = Bench()
    large = bench.send(*range(10))
    await bench.end_all()
    assert [len(run) for run in bench.runs.started] == [4, 4, 2]
    assert await large == [2 * value for value in range(10)]
    assert bench.batcher.samples_waiting == 0


async def test_parts_that_end_in_another_order_are_put_together_right() -> None:
    bench = Bench(limits=batcher.Limits(100, in_flight=3))
    large = bench.send(*range(10))
    await settle()
    for number in reversed(range(len(bench.runs.started))):
        bench.runs.end(number)
    await bench.end_all()
    assert await large == [2 * value for value in range(10)]


@pytest.mark.parametrize("measured", [FLAT, AFFINE])
async def test_a_large_request_alone_uses_all_free_devices(measured: costs.Measured) -> None:
    bench = Bench(measured, limits=batcher.Limits(100, in_flight=2))
    large = bench.send(*range(32))
    await settle()
    assert len(bench.runs.started) == 2
    await bench.end_all()
    assert await large == [2 * value for value in range(32)]


async def test_when_a_part_fails_the_whole_request_fails_and_the_rest_does_not_run() -> None:
    bench = Bench()
    large, small = bench.send(*range(10)), bench.send(77)
    await settle()
    bench.runs.end(0, RuntimeError("broken"))
    await settle()
    with pytest.raises(errors.RunFailed):
        await large
    await bench.end_all()
    assert bench.runs.started[1:] == [[77]]
    assert await small == [154]
    assert bench.batcher.samples_waiting == 0


async def test_cancelling_a_large_request_frees_all_its_parts() -> None:
    bench = Bench()
    large = bench.send(*range(10))
    await settle()
    assert bench.batcher.samples_waiting == 6
    large.cancel()
    await settle()
    assert bench.batcher.samples_waiting == 0
    await bench.end_all()
    assert bench.runs.started == [[0, 1, 2, 3]]


async def test_padding_is_filled_with_a_part_of_the_next_request() -> None:
    bench = Bench(BUCKETS)
    first = await bench.busy()
    three, two = bench.send(1, 2, 3), bench.send(4, 5)
    await bench.end_all()
    assert bench.runs.started[1:] == [[1, 2, 3, 4], [5]]
    assert bench.runs.rows == [1, 4, 1]
    assert [await first, await three, await two] == [[0], [2, 4, 6], [8, 10]]


async def test_another_shape_waits_for_its_own_run_and_is_not_passed_over() -> None:
    bench = Bench()
    await bench.busy()
    sent = [bench.send(1), bench.send(2, shape=1), bench.send(3), bench.send(4, shape=1)]
    await bench.end_all()
    assert bench.runs.started[1:] == [[1, 3], [2, 4]]
    assert [await task for task in sent] == [[2], [4], [6], [8]]


async def test_two_inputs_share_a_batch_only_if_each_has_the_same_shape() -> None:
    bench = Bench()
    await bench.busy()

    async def send(value: int, **shapes: int) -> None:
        inputs = {name: np.zeros((1, size)) for name, size in shapes.items()}
        with bench.batcher.admit(1, place.Caller()) as admitted:
            await admitted.submit({"x": np.array([value]), **inputs}, frozenset({"y"}))

    sent = (send(1, a=2, b=3), send(2, b=2, a=3), send(3, b=3, a=2))
    tasks = [asyncio.create_task(one) for one in sent]
    await bench.end_all()
    await asyncio.gather(*tasks)
    assert bench.runs.started == [[0], [1, 3], [2]]


async def test_a_higher_priority_runs_first_and_no_priority_is_the_default() -> None:
    bench = Bench(FLAT, policy.Policy(4, levels=(policy.Level(), policy.Level()), default_priority=2))
    await bench.busy()
    for value, priority in ((1, 2), (2, 0), (3, 1)):
        bench.send(value, priority=priority)
    await bench.end_all()
    assert bench.runs.started[1:] == [[3], [1], [2]]


async def test_a_priority_that_there_is_not_is_explained() -> None:
    bench = Bench(rules=policy.Policy(4, levels=(policy.Level(), policy.Level())))
    with pytest.raises(errors.BadRequest, match=r"has the priorities 1 \(first\) to 2"):
        await bench.send(1, priority=3)


async def test_one_level_is_no_levels_and_any_priority_is_taken() -> None:
    bench = Bench()
    task = bench.send(1, priority=7)
    await bench.end_all()
    assert await task == [2]


async def test_a_flooding_caller_does_not_keep_another_from_the_next_batch() -> None:
    bench = Bench()
    await bench.busy()
    flood = [bench.send(value, caller="flood") for value in range(1, 40)]
    await settle()
    modest = bench.send(99, caller="modest")
    await settle()
    bench.runs.end(0)
    await settle()
    assert 99 in bench.runs.started[1]
    await bench.end_all()
    assert await modest == [198]
    assert [await task for task in flood] == [[2 * value] for value in range(1, 40)]


async def test_a_level_s_timeout_refuses_who_waits_longer() -> None:
    bench = Bench(FLAT, policy.Policy(4, levels=LEVELS))
    await bench.busy()
    task = bench.send(1, priority=2)
    await settle()
    bench.clock.advance(5.0)
    with pytest.raises(errors.DeadlineExceeded):
        await task
    assert bench.batcher.samples_waiting == 0


async def test_a_level_s_timeout_is_for_the_first_part_only() -> None:
    bench = Bench(FLAT, policy.Policy(4, levels=LEVELS))
    task = bench.send(1, 2, priority=2)
    await settle()
    assert bench.runs.started == [[1]]
    bench.clock.advance(50.0)
    await bench.end_all()
    assert await task == [2, 4]


async def test_a_timeout_that_demotes_lets_the_others_of_the_priority_go_first() -> None:
    bench = Bench(FLAT, policy.Policy(4, levels=LEVELS))
    await bench.busy()
    old = bench.send(1, priority=3, caller="a")
    await settle()
    bench.clock.advance(5.0)
    late = bench.send(2, priority=3, caller="b")
    await settle()
    bench.runs.end(0)
    await settle()
    assert bench.runs.started[1:] == [[2]]
    later = bench.send(3, priority=3, caller="b")
    await bench.end_all()
    assert bench.runs.started[1:] == [[2], [3], [1]]
    assert [await late, await later] == [[4], [6]]
    assert await old == [2]


async def test_a_demoted_request_still_has_its_deadline() -> None:
    bench = Bench(FLAT, policy.Policy(4, levels=LEVELS))
    await bench.busy()
    task = bench.send(1, priority=3, deadline_s=bench.clock.now_s + 8.0)
    await settle()
    bench.clock.advance(5.0)
    await settle()
    assert not task.done()
    bench.clock.advance(3.0)
    with pytest.raises(errors.DeadlineExceeded, match=r"after 8000.0 ms"):
        await task


async def test_a_level_s_bound_on_requests_counts_the_demoted_too() -> None:
    bench = Bench(FLAT, policy.Policy(4, levels=LEVELS))
    await bench.busy()
    waiting = [bench.send(value, priority=3) for value in (1, 2)]
    await settle()
    bench.clock.advance(5.0)
    with pytest.raises(errors.QueueFull, match="2 of 2 requests of this priority wait"):
        await bench.send(3, priority=3)
    await bench.end_all()
    assert [await task for task in waiting] == [[2], [4]]


async def test_what_cannot_be_in_time_is_refused_before_any_work() -> None:
    bench = Bench(FLAT)
    await bench.busy()
    for value in range(1, 6):
        bench.send(value)
    await settle()
    with pytest.raises(errors.TooLate):
        bench.batcher.admit(1, place.Caller(deadline_s=bench.clock.now_s + 4.0))
    assert bench.batcher.samples_waiting == 5
    await bench.end_all()


async def test_images_that_are_decoded_count_as_waiting_and_keep_their_place_for_the_prediction() -> None:
    bench = Bench(FLAT)
    with bench.batcher.admit(4, place.Caller(), decode_s=1.0):
        assert bench.batcher.samples_waiting == 4
        with pytest.raises(errors.TooLate):
            bench.batcher.admit(1, place.Caller(deadline_s=bench.clock.now_s + 3.0))
        with bench.batcher.admit(1, place.Caller(caller="other", deadline_s=bench.clock.now_s + 3.0)):
            assert bench.batcher.samples_waiting == 5
    assert bench.batcher.samples_waiting == 0


async def test_those_given_up_in_the_queue_make_admission_more_careful() -> None:
    bench = Bench(FLAT)
    before = bench.batcher._outlook.caution
    await bench.busy()
    hurried = [bench.send(value, deadline_s=bench.clock.now_s + 4.0) for value in (1, 2)]
    await settle()
    bench.clock.advance(4.0)
    for task in hurried:
        with pytest.raises(errors.DeadlineExceeded):
            await task
    assert bench.batcher._outlook.caution > before
    await bench.end_all()


async def test_a_request_that_waits_for_a_device_made_ready_behind_another_is_begun_when_that_ends() -> None:
    bench = Bench(AFFINE, limits=batcher.Limits(100, in_flight=2, devices=1))
    first = await bench.busy()
    second = [bench.send(value) for value in range(1, 5)]
    third = bench.send(9)
    await settle()
    assert bench.runs.started == [[0], [1, 2, 3, 4]], "a full batch is made ready, a smaller one waits for company"
    bench.clock.advance(11.0)
    bench.runs.end(0)
    await settle()
    assert bench.runs.started == [[0], [1, 2, 3, 4]]
    await bench.end_all()
    assert [await task for task in (first, *second, third)] == [[0], [2], [4], [6], [8], [18]]


async def test_no_deadline_sets_no_timer() -> None:
    bench = Bench()
    task = bench.send(1)
    await bench.end_all()
    assert await task == [2]
    assert bench.clock.timers == 0


async def test_closing_waits_for_images_that_are_still_decoded() -> None:
    bench = Bench()
    with bench.batcher.admit(1, place.Caller(), decode_s=1.0) as admitted:
        closing = asyncio.create_task(bench.batcher.aclose())
        await settle()
        assert not closing.done()
        answering = asyncio.ensure_future(admitted.submit({"x": np.array([4])}, frozenset({"y"})))
        await bench.end_all()
        assert (await answering).outputs["y"] == [8]
    await closing


async def test_each_gets_the_outputs_that_it_asked_for_only() -> None:
    async def run(requests: object, wanted: frozenset[str], rows: int) -> batcher.BatchResult:
        assert wanted == {"y", "z"}
        return batcher.BatchResult({name: np.arange(rows) for name in wanted}, 0.25, 0.5)

    bench = Bench()
    bench.batcher._run = run
    with bench.batcher.admit(1, place.Caller()) as one, bench.batcher.admit(1, place.Caller()) as two:
        answers = await asyncio.gather(
            one.submit({"x": np.zeros(1)}, frozenset({"y"})), two.submit({"x": np.zeros(1)}, frozenset({"z"}))
        )
    assert [set(answer.outputs) for answer in answers] == [{"y"}, {"z"}]
    assert [(answer.gather_s, answer.run_s) for answer in answers] == [(0.25, 0.5)] * 2


async def test_an_output_that_is_missing_fails_the_requests_and_leaves_nobody_waiting() -> None:
    async def run(requests: object, wanted: object, rows: int) -> batcher.BatchResult:
        return batcher.BatchResult({}, 0.0, 0.0)

    bench = Bench()
    bench.batcher._run = run
    with pytest.raises(errors.RunFailed):
        await bench.send(1)
    assert bench.batcher.samples_waiting == 0


async def test_deadlines_and_infinity_are_read_by_the_batcher_s_clock() -> None:
    level = policy.Level(timeout_s=7.0, allows_override=False)
    assert place.times(100.0, place.Caller(timeout_s=1.0), level) == (100.0, math.inf, 107.0, math.inf)
    level = policy.Level(timeout_s=7.0)
    assert place.times(100.0, place.Caller(timeout_s=1.0), level) == (100.0, 101.0, 101.0, math.inf)
    assert place.times(100.0, place.Caller(timeout_s=9.0), level) == (100.0, 109.0, 107.0, math.inf)
    level = policy.Level(timeout_s=7.0, timeout_demotes=True)
    assert place.times(100.0, place.Caller(timeout_s=1.0), level) == (100.0, math.inf, math.inf, 101.0)
    assert place.times(100.0, place.Caller(deadline_s=105.0), level) == (100.0, 105.0, 105.0, 107.0)
