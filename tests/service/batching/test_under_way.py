"""The runs under way: when devices are free, and what comes meanwhile."""

import math

import pytest

from service.batching import under_way


def run(started_s: float, expected_s: float = 1.0) -> under_way.Run:
    return under_way.Run([], started_s, expected_s)


def test_a_run_begins_at_once_on_a_free_device_and_otherwise_when_one_ends() -> None:
    devices = under_way.UnderWay(1)
    first, second = run(0.0), run(0.5)
    devices.start(first)
    devices.start(second)
    assert (first.began_s, second.began_s) == (0.0, math.inf)
    devices.end(first, 1.2)
    assert second.began_s == 1.2


def test_devices_are_busy_until_their_runs_are_expected_to_end() -> None:
    devices = under_way.UnderWay(3)
    devices.start(run(0.0, 5.0))
    devices.start(run(1.0, 1.5))
    assert devices.free == 1
    assert devices.busy_s(2.0) == pytest.approx([0.0, 0.5, 3.0])
    assert devices.busy_s(4.0) == pytest.approx([0.0, 0.0, 1.0])


def test_a_run_made_ready_behind_another_keeps_that_device_busy() -> None:
    devices = under_way.UnderWay(2)
    for started_s, expected_s in ((0.0, 4.0), (0.0, 1.0), (0.5, 2.0)):
        devices.start(run(started_s, expected_s))
    assert devices.free == 0
    assert devices.busy_s(0.5) == pytest.approx([2.5, 3.5])


def one_period(devices: under_way.UnderWay, now_s: float, coming: int) -> None:
    devices.start(run(now_s))
    devices.arrived += coming
    devices.end(devices.runs[0], now_s + 1.0)


def test_what_comes_after_a_start_within_the_horizon_is_expected_again() -> None:
    devices = under_way.UnderWay(1)
    for number in range(100):
        one_period(devices, float(number), coming=5)
        devices.count_arrivals(number + 1.0, horizon_s=2.0, is_idle=False)
    assert devices.coming(100.0, 1000.0) == pytest.approx(10.0)


def test_what_comes_once_the_device_was_idle_is_not_counted() -> None:
    devices = under_way.UnderWay(1)
    for number in range(100):
        one_period(devices, number * 10.0, coming=1)
        devices.count_arrivals(number * 10.0 + 1.0, horizon_s=100.0, is_idle=True)
        devices.arrived += 50
    assert devices.coming(1000.0, 100.0) == pytest.approx(1.0)


def test_a_busy_spell_is_expected_to_last_as_long_again() -> None:
    devices = under_way.UnderWay(1)
    for number in range(100):
        one_period(devices, float(number), coming=5)
        devices.count_arrivals(number + 1.0, horizon_s=2.0, is_idle=False)
    assert 10 * 100 / 2 <= devices.coming(100.0, 2.0) <= 5 * 10 * 100 / 2
    devices.count_arrivals(101.0, horizon_s=2.0, is_idle=True)  # over
    devices.start(run(150.0))
    assert devices.coming(151.0, 2.0) < 20
