"""What a run is expected to cost, and how the runs correct it."""

import pytest

from service.batching import costs

FLAT = {1: 1.0, 2: 2.0, 4: 4.0}


def test_costs_between_measured_counts_are_interpolated() -> None:
    known = costs.Costs(costs.Measured({1: 1.0, 4: 2.5}, pads=False))
    assert known.seconds(3) == pytest.approx(2.0)


def test_without_padding_any_count_of_rows_runs_as_it_is() -> None:
    known = costs.Costs(costs.Measured(FLAT, pads=False))
    assert [known.rows(samples) for samples in (1, 2, 3, 4)] == [1, 2, 3, 4]


def test_with_padding_a_run_costs_what_its_bucket_costs() -> None:
    known = costs.Costs(costs.Measured(FLAT, pads=True))
    assert [known.rows(samples) for samples in (1, 2, 3, 4)] == [1, 2, 4, 4]
    assert known.seconds(3) == known.seconds(4) == 4.0


def test_more_than_the_largest_run_costs_several_runs() -> None:
    known = costs.Costs(costs.Measured(FLAT, pads=True))
    assert known.seconds(9) == pytest.approx(4.0 + 4.0 + 1.0)


@pytest.mark.parametrize("pads", [False, True])
def test_as_many_run_within_a_time_as_their_cost_says(pads: bool) -> None:
    known = costs.Costs(costs.Measured(FLAT, pads))
    assert [known.within(seconds) for seconds in (0.5, 2.0, 3.9, 100.0)] == [1, 2, 2 if pads else 3, 4]


def test_one_run_that_lost_its_processor_changes_no_cost() -> None:
    known = costs.Costs(costs.Measured(FLAT, pads=False))
    for seconds in (2.0, 2.0, 200.0, 2.0, 2.0):
        known.observe(2, seconds)
    assert known.seconds(2) == pytest.approx(2.0)


def test_costs_follow_a_device_that_has_become_slower_also_where_nothing_has_run_since() -> None:
    known = costs.Costs(costs.Measured(FLAT, pads=False))
    for _ in range(200):
        known.observe(2, 4.0)
    assert known.seconds(2) == pytest.approx(4.0, rel=0.06)
    assert known.seconds(4) == pytest.approx(8.0, rel=0.06)


def test_each_count_of_rows_has_its_own_correction() -> None:
    known = costs.Costs(costs.Measured(FLAT, pads=False))
    for _ in range(200):
        known.observe(1, 1.0)
        known.observe(4, 8.0)
    assert known.seconds(1) == pytest.approx(1.0, rel=0.06)
    assert known.seconds(4) == pytest.approx(8.0, rel=0.06)


def test_the_version_changes_only_when_costs_do() -> None:
    known = costs.Costs(costs.Measured(FLAT, pads=False))
    before = known.version
    for _ in range(50):
        known.observe(2, 2.02)
    assert known.version == before
    for _ in range(50):
        known.observe(2, 4.0)
    assert known.version > before


def test_the_margin_learns_how_much_runs_differ() -> None:
    steady, shaky = (costs.Costs(costs.Measured(FLAT, pads=False)) for _ in range(2))
    for number in range(200):
        steady.observe(1, 1.0)
        shaky.observe(1, 0.8 if number % 2 else 1.2)
    assert steady.margin == pytest.approx(1.02, abs=0.01)
    assert shaky.margin == pytest.approx(1.4, abs=0.1)


def test_unmeasured_costs_are_learnt_for_each_shape_by_itself() -> None:
    known = costs.Costs(costs.Measured({}, pads=False))
    assert not known.is_known
    for _ in range(50):
        known.observe(2, 0.2, (8, 8))
        known.observe(1, 1.0, (64, 64))
    assert known.is_known
    assert known.seconds(3, (8, 8)) == pytest.approx(0.3)
    assert known.seconds(3, (64, 64)) == pytest.approx(3.0)
    assert known.least_s(3) == pytest.approx(0.3)
    assert 0.3 < known.seconds(3) < 3.0


def test_an_unmeasured_shape_that_never_ran_is_not_held_to_be_slow() -> None:
    known = costs.Costs(costs.Measured({}, pads=False))
    known.observe(1, 1.0, (64, 64))
    assert known.seconds(1, (8, 8)) == 0.0


def test_not_all_shapes_that_ever_came_are_remembered() -> None:
    known = costs.Costs(costs.Measured({}, pads=False))
    for size in range(300):
        known.observe(1, 1.0, (size, size))
    assert known.seconds(1, (0, 0)) == 0.0
    assert known.seconds(1, (299, 299)) == 1.0


def test_sizes_are_compared_by_what_their_thread_computed_whoever_else_had_its_core() -> None:
    known = costs.Costs(costs.Measured(FLAT, pads=False))
    for _ in range(200):
        known.observe(1, 2.0, cpu_s=1.0)
        known.observe(4, 12.0, cpu_s=4.0)
    assert known.seconds(4) == pytest.approx(4 * known.seconds(1), rel=0.06)
    assert known.seconds(1) > 1.9, "how long a run takes is what counts for deadlines"


def test_what_a_run_costs_besides_is_not_corrected_away() -> None:
    known = costs.Costs(costs.Measured(FLAT, pads=False), overhead_s=1.0)
    for _ in range(200):
        known.observe(1, 1.0)
        known.observe(2, 2.0, cpu_s=2.0)
    assert [known.seconds(samples) for samples in (1, 2, 4)] == pytest.approx([2.0, 3.0, 5.0])
