"""The planner by itself: who runs now."""

import dataclasses
import math
from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching import costs, planner, policy

FREE = planner.Devices(begins_s=0.0)
FLAT = costs.Measured({rows: 1.0 * rows for rows in (1, 2, 4, 8)}, pads=False)
AFFINE = costs.Measured({rows: 10.0 + rows for rows in (1, 2, 4, 8)}, pads=False)
BUCKETS = costs.Measured({rows: 10.0 + rows for rows in (1, 2, 4, 8)}, pads=True)
EIGHT = policy.Policy(batch_samples_max=8)
DELAYED = policy.Policy(batch_samples_max=8, delay_s=5.0)


@dataclasses.dataclass(eq=False)
class Waiting:
    samples: int = 1
    deadline_s: float = math.inf
    caller: str = ""
    shape: Hashable = 0
    level: int = 0
    arrived_s: float = 0.0
    is_ready: bool = True


def plan(
    queue: list[Waiting],
    rules: policy.Policy = EIGHT,
    measured: costs.Measured = AFFINE,
    devices: planner.Devices = FREE,
    *,
    now_s: float = 0.0,
    is_closing: bool = False,
) -> planner.Plan[Waiting]:
    waiting = sum(request.samples for request in queue)
    return planner.Planner(rules, costs.Costs(measured)).plan(queue, waiting, now_s, devices, is_closing=is_closing)


def taken(planned: planner.Plan[Waiting]) -> list[int]:
    return [samples for _, samples in planned.batch]


def who(planned: planner.Plan[Waiting]) -> list[Waiting]:
    return [request for request, _ in planned.batch]


def test_a_free_device_is_not_kept_waiting() -> None:
    one = Waiting()
    assert who(plan([one])) == [one]


def test_those_whose_images_are_still_decoded_take_no_place() -> None:
    decoding, ready = Waiting(is_ready=False), Waiting()
    assert who(plan([decoding, ready])) == [ready]
    assert not plan([decoding]).batch


def test_a_batch_is_filled_up_to_its_limit_in_order() -> None:
    queue = [Waiting() for _ in range(12)]
    assert who(plan(queue)) == queue[:8]


def test_where_a_batch_saves_nothing_one_leaves_at_a_time() -> None:
    queue = [Waiting() for _ in range(12)]
    assert who(plan(queue, measured=FLAT)) == queue[:1]


def test_nobody_of_its_shape_is_overtaken_by_a_smaller_request() -> None:
    queue = [Waiting(5), Waiting(4), Waiting(1)]
    assert who(plan(queue)) == queue[:1]


def test_different_shapes_do_not_share_a_batch_and_the_head_s_goes_first() -> None:
    queue = [Waiting(shape=1), Waiting(shape=2), Waiting(shape=1)]
    assert who(plan(queue)) == [queue[0], queue[2]]


def test_a_request_larger_than_a_run_leaves_in_parts() -> None:
    assert taken(plan([Waiting(20)])) == [8]


def test_a_model_whose_largest_bucket_is_smaller_than_its_batch_is_not_overfilled() -> None:
    small = costs.Measured({1: 1.0, 4: 2.0}, pads=True)
    assert taken(plan([Waiting(20)], measured=small)) == [4]
    assert taken(plan([Waiting(20)], policy.Policy(8, merges_requests=False), small)) == [4]


def test_a_part_of_the_next_request_takes_the_place_of_padding() -> None:
    assert taken(plan([Waiting(3), Waiting(4), Waiting(6)], measured=BUCKETS)) == [3, 4, 1]


def test_without_padding_no_request_is_divided_that_fits_a_run() -> None:
    assert taken(plan([Waiting(3), Waiting(4), Waiting(6)])) == [3, 4]


def test_requests_of_unknown_cost_are_not_divided_either() -> None:
    assert taken(plan([Waiting(5), Waiting(4)], measured=costs.Measured({}, pads=False))) == [5]


def test_what_waits_is_spread_over_free_devices_where_that_is_shorter() -> None:
    assert sum(taken(plan([Waiting(8)], measured=FLAT, devices=planner.Devices(0.0, free=2, in_all=2)))) <= 4


def test_requests_are_not_merged_without_dynamic_batching() -> None:
    rules = policy.Policy(batch_samples_max=4, merges_requests=False, delay_s=1.0)
    assert taken(plan([Waiting(), Waiting()], rules)) == [1]
    assert taken(plan([Waiting(9)], rules)) == [4]


def test_a_model_without_a_batch_axis_runs_a_request_as_it_is() -> None:
    rules = policy.Policy(batch_samples_max=1, merges_requests=False, has_batch_axis=False)
    assert taken(plan([Waiting(), Waiting()], rules, costs.Measured({1: 1.0}, pads=False))) == [1]


def test_a_delay_holds_a_batch_until_its_oldest_has_waited_so_long() -> None:
    queue = [Waiting(arrived_s=10.0), Waiting(arrived_s=12.0)]
    assert plan(queue, DELAYED, devices=planner.Devices(12.0), now_s=12.0).look_again_s == 15.0
    assert who(plan(queue, DELAYED, devices=planner.Devices(15.0), now_s=15.0)) == queue


@pytest.mark.parametrize("queue", [[Waiting(8)], [Waiting(7), Waiting(2)]])
def test_a_batch_that_cannot_grow_does_not_wait_for_the_delay(queue: list[Waiting]) -> None:
    assert taken(plan(queue, DELAYED))


def test_the_delay_is_for_company_and_not_at_the_expense_of_another_shape() -> None:
    assert taken(plan([Waiting(shape=1), Waiting(shape=2)], DELAYED))


def test_the_delay_ends_when_a_deadline_s_slack_runs_out() -> None:
    deadline_s = 14.0
    planned = plan([Waiting(deadline_s=deadline_s)], DELAYED)
    assert not planned.batch
    assert deadline_s - 11.0 * 1.5 < planned.look_again_s < deadline_s - 11.0
    assert taken(plan([Waiting(deadline_s=11.5)], DELAYED))


def test_the_delay_ends_when_closing() -> None:
    assert taken(plan([Waiting()], DELAYED, is_closing=True))


def test_a_preferred_size_leaves_at_once_and_the_largest_that_can_be_formed() -> None:
    rules = policy.Policy(batch_samples_max=8, delay_s=5.0, preferred_samples=(2, 4))
    assert not plan([Waiting()], rules).batch
    assert taken(plan([Waiting() for _ in range(3)], rules)) == [1, 1]
    assert taken(plan([Waiting() for _ in range(7)], rules)) == [1] * 4


def test_without_a_delay_less_than_a_preferred_size_leaves_too() -> None:
    rules = policy.Policy(batch_samples_max=8, preferred_samples=(4,))
    assert taken(plan([Waiting(), Waiting()], rules)) == [1, 1]


def test_a_busy_device_s_next_batch_grows_until_it_has_to_be_made_ready() -> None:
    busy = planner.Devices(begins_s=9.0, hold_until_s=8.0)
    assert plan([Waiting()], devices=busy).look_again_s == 8.0
    assert taken(plan([Waiting()], devices=busy, now_s=8.0))
    assert taken(plan([Waiting(8)], devices=busy))


def test_who_cannot_be_answered_in_time_is_given_up_and_costs_nothing() -> None:
    late, expired, other = Waiting(deadline_s=10.9), Waiting(deadline_s=0.0), Waiting()
    planned = plan([late, expired, other])
    assert list(planned.late) == [late, expired]
    assert who(planned) == [other]


def test_a_batch_is_not_so_large_that_its_head_is_late() -> None:
    head = Waiting(deadline_s=14.0)
    planned = plan([head, *(Waiting() for _ in range(7))])
    assert who(planned)[0] is head
    assert 1 <= len(planned.batch) < 4
    assert not planned.late


def test_a_head_is_given_up_where_that_saves_more_of_its_own_caller_s() -> None:
    head = Waiting(deadline_s=12.5)
    others = [Waiting(deadline_s=20.5) for _ in range(7)]
    planned = plan([head, *others])
    assert list(planned.late) == [head]
    assert who(planned) == others


@pytest.mark.parametrize(("coming", "is_given_up"), [(0.0, False), (16.0, True)])
def test_a_head_is_not_saved_by_a_run_of_its_own_while_the_device_could_serve_many_who_come(
    coming: float, is_given_up: bool
) -> None:
    head = Waiting(deadline_s=12.5)
    planned = plan([head, *(Waiting(deadline_s=100.0) for _ in range(7))], devices=planner.Devices(0.0, coming=coming))
    assert (head in planned.late) == is_given_up
    assert (head in who(planned)) != is_given_up


@pytest.mark.parametrize("other", [{"caller": "other"}, {"level": 2}])
def test_a_head_is_never_given_up_for_another_caller_or_priority(other: dict[str, str | int]) -> None:
    head = Waiting(deadline_s=12.5)
    others = [dataclasses.replace(Waiting(deadline_s=20.5), **other) for _ in range(7)]
    planned = plan([head, *others])
    assert who(planned)[0] is head
    assert head not in planned.late


def test_a_head_that_hardly_makes_it_runs_if_nobody_has_more_time() -> None:
    head = Waiting(deadline_s=11.5)
    planned = plan([head, Waiting(deadline_s=11.6)])
    assert who(planned) == [head]


def test_a_large_request_is_late_only_if_all_devices_together_are_too_slow() -> None:
    one, two = planner.Devices(0.0, 1, in_all=1), planner.Devices(0.0, 1, in_all=2)
    request = Waiting(8, deadline_s=5.0)
    assert list(plan([request], measured=FLAT, devices=one).late) == [request]
    assert not plan([request], measured=FLAT, devices=two).late


@st.composite
def queues(draw: st.DrawFn) -> list[Waiting]:
    requests = st.builds(
        Waiting,
        samples=st.integers(1, 12),
        deadline_s=st.sampled_from([5.0, 14.0, 20.0, 40.0, 100.0, math.inf]),
        caller=st.sampled_from("ab"),
        shape=st.integers(0, 1),
        is_ready=st.sampled_from([True, True, True, False]),
    )
    return draw(st.lists(requests, max_size=20))


POLICIES = (EIGHT, DELAYED, policy.Policy(batch_samples_max=8, preferred_samples=(2, 4)), policy.Policy(4, False))


@given(queues(), st.sampled_from(POLICIES), st.sampled_from([FLAT, AFFINE, BUCKETS]), st.integers(1, 3))
def test_every_plan_keeps_the_rules(
    queue: list[Waiting], rules: policy.Policy, measured: costs.Measured, free: int
) -> None:
    planned = plan(queue, rules, measured, planner.Devices(0.0, free, free), is_closing=True)
    running, late = who(planned), list(planned.late)
    ready = [request for request in queue if request.is_ready]
    assert len({id(request) for request in (*running, *late)}) == len(running) + len(late)
    assert all(request in ready for request in (*running, *late))
    assert bool(running) == any(request not in late for request in ready), "a free device is not kept waiting"
    assert sum(taken(planned)) <= rules.batch_samples_max
    assert all(1 <= count <= request.samples for request, count in planned.batch)
    assert all(count == request.samples for request, count in planned.batch[:-1]), "only the last is divided"
    assert len({request.shape for request in running}) <= 1
    if running:
        known = costs.Costs(measured)
        alone_s = {id(request): known.seconds(-(-request.samples // free)) for request in ready}
        head = next(request for request in ready if request.deadline_s >= alone_s[id(request)])
        assert running[0] is head or head in late, "the head goes first, or is given up"
        assert running[0].shape == head.shape, "and then for those of its shape"
        left = [request for request in ready if request not in late]
        same = [request for request in left if request.shape == running[0].shape]
        assert running == same[: len(running)], "nobody of the shape is passed over, unless he is given up"
    assert all(request.deadline_s != math.inf for request in late)
