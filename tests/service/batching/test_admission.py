"""Whether a request may wait at all."""

import math

import pytest

from service import errors
from service.batching import admission, costs, sizes

AFFINE = {rows: 10.0 + rows for rows in (1, 2, 4, 8)}
FLAT = {rows: 1.0 * rows for rows in (1, 2, 4, 8)}


def outlook(seconds: dict[int, float], caution: float = 0.0) -> admission.Outlook:
    known = costs.Costs(costs.Measured(seconds, pads=False))
    made = admission.Outlook("m", known, sizes.Sizes(known, 8))
    made.caution = caution
    return made


def ahead(samples: int = 0, *busy_s: float, decode_s: float = 0.0) -> admission.Ahead:
    return admission.Ahead(samples, busy_s or (0.0,), decode_s)


def test_with_nothing_ahead_an_answer_takes_a_run() -> None:
    assert outlook(AFFINE).answer_s(1, ahead()) == 11.0


def test_decoding_and_waiting_go_on_beside_each_other() -> None:
    assert outlook(AFFINE).answer_s(1, ahead(0, 3.0, decode_s=5.0)) == 5.0 + 11.0
    assert outlook(AFFINE).answer_s(1, ahead(0, 7.0, decode_s=5.0)) == 7.0 + 11.0


def test_less_than_a_batch_ahead_runs_together_with_the_request() -> None:
    assert outlook(AFFINE).answer_s(1, ahead(3, 2.0)) == 2.0 + 14.0


def test_full_batches_ahead_go_first() -> None:
    assert outlook(AFFINE).answer_s(1, ahead(17, 2.0)) == 2.0 + 2 * 18.0 + 12.0


def test_what_is_ahead_is_spread_over_the_devices_each_free_at_its_time() -> None:
    flat = outlook(FLAT)
    assert flat.answer_s(1, ahead(0, 0.2, 0.9)) == pytest.approx(1.2)
    assert flat.answer_s(1, ahead(1, 0.2, 0.9)) == pytest.approx(1.9)
    assert flat.answer_s(1, ahead(2, 0.2, 0.9)) == pytest.approx(2.2)


def test_a_large_request_s_parts_run_beside_one_another() -> None:
    assert outlook(FLAT).answer_s(32, ahead(0, 0.0, 0.0)) == pytest.approx(16.0)


def test_caution_adds_company_and_errors_that_grow_slower_than_the_wait() -> None:
    bold, cautious = outlook(FLAT), outlook(FLAT, caution=1.0)
    added_s = [cautious.answer_s(1, ahead(n)) - bold.answer_s(1, ahead(n)) for n in (0, 99)]
    assert added_s[0] == pytest.approx(0.1)
    assert added_s[1] == pytest.approx(0.1 * 10)
    with_company_s = outlook(AFFINE, caution=1.0).answer_s(1, ahead(8)) - outlook(AFFINE).answer_s(1, ahead(8))
    assert with_company_s > 18.0 - 11.0


def test_caution_grows_with_those_who_are_late_and_settles_where_one_in_a_hundred_is() -> None:
    made = outlook(FLAT, caution=1.0)
    for _ in range(20):
        made.learn(in_time=99, late=1)
    assert made.caution == pytest.approx(1.0)
    made.learn(in_time=0, late=5)
    assert made.caution > 1.2
    for _ in range(100):
        made.learn(in_time=0, late=5)
    assert made.caution == 3.0
    for _ in range(1000):
        made.learn(in_time=32, late=0)
    assert made.caution == 0.0


def test_what_cannot_be_in_time_now_is_told_when_to_come_back() -> None:
    with pytest.raises(errors.TooLate) as caught:
        outlook(FLAT).check(1, ahead(9), slack_s=4.0)
    assert caught.value.pause_s == pytest.approx(6.0)
    assert "model 'm' would need 10000.0 ms to answer, and the deadline is in 4000.0 ms" in str(caught.value)


def test_what_could_never_be_in_time_is_told_so() -> None:
    with pytest.raises(errors.TooLate) as caught:
        outlook(FLAT).check(8, ahead(), slack_s=4.0)
    assert caught.value.pause_s is None


def test_a_decode_pool_that_is_busy_now_is_no_reason_never_to_come_back() -> None:
    with pytest.raises(errors.TooLate) as caught:
        outlook(FLAT).check(1, ahead(0, 0.0, decode_s=10.0), slack_s=4.0)
    assert caught.value.pause_s == pytest.approx(7.0)


def test_what_can_be_in_time_is_let_in() -> None:
    outlook(FLAT).check(1, ahead(9), slack_s=10.0)


def test_where_nothing_is_known_nobody_is_refused() -> None:
    outlook({}).check(1, ahead(1000), slack_s=1e-6)


@pytest.mark.parametrize("samples", [0, 5, 100])
def test_time_that_is_plenty_is_enough_for_the_most_cautious_prediction(samples: int) -> None:
    cautious = outlook(AFFINE, caution=3.0)
    slack_s = next(slack_s for slack_s in range(1, 100_000) if cautious.is_plenty(slack_s, samples + 1, 2.0))
    assert cautious.answer_s(1, ahead(samples, 18.0, decode_s=2.0)) <= slack_s


def test_a_small_request_among_images_of_unknown_cost_is_not_refused_for_the_large_ones() -> None:
    known = costs.Costs(costs.Measured({}, pads=False))
    known.observe(1, 10.0, (512, 512))
    known.observe(1, 0.1, (8, 8))
    admission.Outlook("m", known, sizes.Sizes(known, 8)).check(1, ahead(), slack_s=1.0)


def test_a_full_queue_says_when_there_will_be_room_and_what_never_fits() -> None:
    known = costs.Costs(costs.Measured(FLAT, pads=False))
    later = admission.too_many_samples("m", 4, 7, 8, known)
    assert later.pause_s == 3.0
    assert "7 of 8 samples wait" in str(later)
    assert admission.too_many_samples("m", 9, 0, 8, known).pause_s is None
    assert admission.too_many_requests("m", 3, 3, known).pause_s == 1.0
    assert math.isfinite(admission.too_many_requests("m", 3, 3, costs.Costs(costs.Measured({}, False))).pause_s or 0.0)
