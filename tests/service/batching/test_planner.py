"""The planner: who runs now."""

import dataclasses
import math

from hypothesis import given
from hypothesis import strategies as st

from service.batching import planner


@dataclasses.dataclass(frozen=True)
class Waiting:
    samples: int = 1
    arrived_s: float = 0.0
    deadline_s: float = math.inf
    shape_key: int = 0


FOUR = planner.Policy(batch_samples_max=4)


def test_a_free_device_is_not_kept_waiting() -> None:
    one = Waiting()
    assert planner.plan([one], 0.0, FOUR).batch == (one,)


def test_a_batch_is_filled_up_to_its_limit_in_order() -> None:
    queue = [Waiting(arrived_s=number / 10) for number in range(6)]
    assert planner.plan(queue, 1.0, FOUR).batch == tuple(queue[:4])


def test_nobody_is_overtaken_by_a_smaller_request() -> None:
    queue = [Waiting(3), Waiting(2), Waiting(1)]
    assert planner.plan(queue, 0.0, FOUR).batch == (queue[0],)


def test_different_shapes_do_not_share_a_batch() -> None:
    queue = [Waiting(shape_key=1), Waiting(shape_key=2), Waiting(shape_key=1)]
    assert planner.plan(queue, 0.0, FOUR).batch == (queue[0],)


def test_expired_requests_take_no_place() -> None:
    queue = [Waiting(2, deadline_s=1.0), Waiting(4)]
    plan = planner.plan(queue, 1.0, FOUR)
    assert plan.expired == (queue[0],)
    assert plan.batch == (queue[1],)


def test_requests_are_not_merged_without_dynamic_batching() -> None:
    queue = [Waiting(), Waiting()]
    policy = planner.Policy(batch_samples_max=4, merges_requests=False, delay_s=1.0)
    assert planner.plan(queue, 0.0, policy).batch == (queue[0],)


def test_a_configured_delay_holds_a_batch_until_the_oldest_has_waited_it() -> None:
    policy = planner.Policy(batch_samples_max=4, delay_s=0.5)
    queue = [Waiting(arrived_s=10.0)]
    assert planner.plan(queue, 10.2, policy).look_again_s == 10.5
    assert planner.plan(queue, 10.5, policy).batch == tuple(queue)


def test_a_full_batch_does_not_wait_for_the_delay() -> None:
    policy = planner.Policy(batch_samples_max=4, delay_s=0.5)
    assert planner.plan([Waiting(4)], 0.0, policy).batch


def test_a_batch_that_the_next_request_does_not_fit_into_does_not_wait() -> None:
    policy = planner.Policy(batch_samples_max=4, delay_s=0.5)
    queue = [Waiting(3), Waiting(2)]
    assert planner.plan(queue, 0.0, policy).batch == (queue[0],)


def test_the_delay_gives_way_to_a_deadline_that_falls_into_it() -> None:
    policy = planner.Policy(batch_samples_max=4, delay_s=0.5)
    assert planner.plan([Waiting(deadline_s=0.4)], 0.0, policy).batch


def test_the_delay_ends_when_closing() -> None:
    policy = planner.Policy(batch_samples_max=4, delay_s=0.5)
    assert planner.plan([Waiting()], 0.0, policy, is_closing=True).batch


requests = st.builds(
    Waiting,
    samples=st.integers(1, 4),
    arrived_s=st.just(0.0),
    deadline_s=st.sampled_from([0.5, 2.0, math.inf]),
    shape_key=st.integers(0, 1),
)


@given(st.lists(requests, max_size=20))
def test_repeated_planning_runs_or_expires_everybody_once_and_overfills_nothing(queue: list[Waiting]) -> None:
    left = list(enumerate(queue))
    seen: list[int] = []
    while left:
        numbers = {id(waiting): number for number, waiting in left}
        copies = [waiting for _, waiting in left]
        plan = planner.plan(copies, 1.0, FOUR)
        assert plan.batch or plan.expired
        assert sum(waiting.samples for waiting in plan.batch) <= 4
        assert all(waiting.deadline_s > 1.0 for waiting in plan.batch)
        assert all(waiting.deadline_s <= 1.0 for waiting in plan.expired)
        gone = [numbers[id(waiting)] for waiting in (*plan.batch, *plan.expired)]
        running = [numbers[id(waiting)] for waiting in plan.batch]
        assert running == sorted(running)
        seen += gone
        left = [(number, waiting) for number, waiting in left if number not in gone]
    assert sorted(seen) == list(range(len(queue)))
