"""How many run together."""

import functools
import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from service.batching import costs, sizes

AFFINE = {rows: 60.0 + 8.0 * rows for rows in (1, 2, 4, 8, 16, 32)}
BUCKETS = {rows: 2.0 + 0.35 * rows for rows in (1, 2, 4, 8, 16, 32)}


def chosen(seconds: dict[int, float], pads: bool, samples_max: int = 32) -> sizes.Sizes:
    return sizes.Sizes(costs.Costs(costs.Measured(seconds, pads)), samples_max)


def test_where_a_batch_saves_nothing_the_first_does_not_wait_for_the_others() -> None:
    flat = chosen({1: 20.0, 32: 640.0}, pads=False)
    assert {flat.together(samples, behind) for samples in range(1, 33) for behind in (0, 5, 10_000)} == {1}
    assert flat.full == 1


def test_where_a_batch_saves_much_all_run_together_when_many_wait_behind() -> None:
    affine = chosen(AFFINE, pads=False)
    assert [affine.together(samples, 1000) for samples in (1, 7, 20, 32)] == [1, 7, 20, 32]
    assert affine.full == 32


def test_padding_is_weighed_against_a_second_run() -> None:
    buckets = chosen(BUCKETS, pads=True)
    assert buckets.together(17, 16) == 16
    assert buckets.together(31, 10_000) == 31


def test_the_largest_run_may_be_smaller_than_what_was_measured() -> None:
    assert chosen(AFFINE, pads=False, samples_max=8).together(32, 1000) == 8


def test_without_measured_costs_all_that_fit_run_together() -> None:
    unknown = sizes.Sizes(costs.Costs(costs.Measured({}, pads=False)), 8)
    assert [unknown.together(samples, 0) for samples in (1, 5, 20)] == [1, 5, 8]


def test_the_choice_follows_the_costs() -> None:
    known = costs.Costs(costs.Measured({1: 1.0, 2: 2.0, 4: 4.0}, pads=False))
    choice = sizes.Sizes(known, 4)
    assert choice.together(4, 1000) == 1
    for _ in range(300):
        known.observe(1, 1.0)
        known.observe(4, 1.5)
    assert choice.together(4, 1000) == 4


def test_requests_are_put_together_whole() -> None:
    assert chosen(AFFINE, pads=False).among([1, 1, 1, 31], 0) == 3
    assert chosen(AFFINE, pads=False).among([8, 16, 4], 1000) == 28


def best_sum(samples: int, behind: float, seconds: dict[int, float]) -> float:
    """The recursion of the docstring, over every size."""

    @functools.cache
    def least(left: int) -> float:
        if not left:
            return 0.0
        return min((left + behind) * seconds[size] + least(left - size) for size in range(1, left + 1))

    return least(samples)


@given(
    st.lists(st.floats(0.1, 10.0), min_size=10, max_size=10),
    st.integers(1, 10),
    st.sampled_from([0, 1, 3, 7, 63]),
    st.booleans(),
)
def test_the_choice_is_the_first_step_of_the_least_sum(
    steps: list[float], samples: int, behind: int, pads: bool
) -> None:
    seconds = dict(enumerate(itertools.accumulate(steps), start=1))
    known = costs.Costs(costs.Measured(seconds, pads))
    size = sizes.Sizes(known, 10).together(samples, behind)
    after = best_sum(samples - size, behind, seconds)
    assert math.isclose((samples + behind) * seconds[size] + after, best_sum(samples, behind, seconds))
