"""The search for the capacity: what it tries next, against servers whose limit is known."""

import random
from collections.abc import Callable

import pytest

from service.loadgen import capacity

WANTED = capacity.Wanted(0.05)
LIMIT = 730.0

Server = Callable[[float], bool]
"""Whether a rate meets the bound, this time."""


def trial(step: capacity.Next, is_met: bool, *, is_overload: bool = False) -> capacity.Trial:
    reasons = () if is_met else ("p99 80.0 ms",)
    return capacity.Trial(
        step.kind, step.rate_per_s, step.rate_per_s, 0.01, 0.02, 0.0, 0.0, 5.0, reasons, is_overload and not is_met
    )


def search(server: Server, ceiling: float = 1000.0, trials_max: int = 40) -> list[capacity.Trial]:
    trials: list[capacity.Trial] = []
    while len(trials) < trials_max:
        step = capacity.following(trials, ceiling, WANTED, has_time=len(trials) < trials_max // 2)
        if step is None:
            break
        trials.append(trial(step, server(step.rate_per_s)))
    return trials


@pytest.mark.parametrize("limit", [20.0, 100.0, 699.0, 701.0, 950.0, 3000.0])
def test_the_limit_is_found_to_five_percent_and_verified(limit: float) -> None:
    trials = search(lambda rate: rate <= limit)
    found = capacity.verified(trials)
    assert found is not None
    assert limit / 1.05 <= found.rate_per_s <= limit
    assert found is trials[-1]
    assert len(trials) <= 22


@pytest.mark.parametrize("seed", range(20))
def test_a_hiccup_in_ten_trials_costs_little(seed: int) -> None:
    chance = random.Random(seed)
    trials = search(lambda rate: rate <= LIMIT and chance.random() > 0.1)
    found = capacity.verified(trials)
    assert found is not None
    assert 0.7 * LIMIT <= found.rate_per_s <= LIMIT


def test_a_failed_trial_is_tried_again_unless_it_was_overload() -> None:
    first = capacity.following([], 1000.0, WANTED, has_time=True)
    assert first == capacity.Next("search", 700.0)
    assert capacity.following([trial(first, False)], 1000.0, WANTED, has_time=True) == first
    overloaded = [trial(first, False, is_overload=True)]
    assert capacity.following(overloaded, 1000.0, WANTED, has_time=True) == capacity.Next("search", 420.0)
    second_time = [trial(first, False), trial(first, True)]
    assert capacity.following(second_time, 1000.0, WANTED, has_time=True) == first  # the third decides
    assert capacity.following([*second_time, trial(first, True)], 1000.0, WANTED, has_time=True) == capacity.Next(
        "search", pytest.approx(910.0)
    )


def test_without_time_the_best_so_far_is_verified_and_a_failed_verification_steps_down() -> None:
    met = trial(capacity.Next("search", 500.0), True)
    step = capacity.following([met], 1000.0, WANTED, has_time=False)
    assert step == capacity.Next("verify", 500.0)
    lower = capacity.following([met, trial(step, False)], 1000.0, WANTED, has_time=False)
    assert lower == capacity.Next("verify", pytest.approx(450.0))
    assert capacity.following([met, trial(step, False), trial(lower, True)], 1000.0, WANTED, has_time=False) is None


def test_a_bound_that_no_rate_meets_ends_the_search_without_one() -> None:
    trials = search(lambda rate: False)
    assert capacity.verified(trials) is None
    assert min(one.rate_per_s for one in trials) >= 10.0
    assert len(trials) < 30
