"""How the load generator counts: arrivals of changing rates, histograms, tallies that add up, what can be trusted."""

import dataclasses
import itertools

import numpy as np
import pytest

from service import scrape
from service.loadgen import (
    arrivals,
    conditions,
    confidence,
    histogram,
    ledger,
    machine,
    plan,
    result,
    stage_times,
    tally,
    target,
)

RAMP = plan.Open(100.0, "constant", ramp=plan.Ramp(900.0, 4.0))


def made(loop: plan.Closed | plan.Open, **fields: float) -> plan.Plan:
    return plan.Plan("nowhere:1", "net", loop, **{"warmup_s": 0.0, "duration_s": 10.0, **fields})


def taken(loop: plan.Open, until_s: float, warmup_s: float = 0.0) -> list[float]:
    return list(itertools.takewhile(lambda time_s: time_s < until_s, arrivals.times_s(loop, 0.0, warmup_s)))


def test_a_ramp_sends_as_many_as_its_rate_has_under_it() -> None:
    # 2 s of warm-up at 100/s, 4 s from 100 to 900 (mean 500), then 2 s at 900.
    times_s = taken(RAMP, 8.0, warmup_s=2.0)
    counts, _ = np.histogram(times_s, [0, 2, 6, 8])
    assert counts.tolist() == [pytest.approx(200, abs=1), pytest.approx(2000, abs=1), pytest.approx(1800, abs=1)]
    gaps_s = np.diff([time_s for time_s in times_s if 2.0 < time_s < 6.0])
    assert (np.diff(gaps_s) < 1e-9).all()  # ever closer together
    middle = [time_s for time_s in times_s if 3.9 < time_s < 4.1]
    assert (
        len(middle) / 0.2
        == pytest.approx(arrivals.rate_per_s(RAMP, 4.0, 2.0), rel=0.02)
        == pytest.approx(500, rel=0.02)
    )


def test_a_ramp_may_go_down_and_be_poisson() -> None:
    down = plan.Open(900.0, "poisson", seed=3, ramp=plan.Ramp(100.0, 4.0))
    times_s = taken(down, 4.0)
    assert len(times_s) == pytest.approx(2000, rel=0.1)
    assert sum(time_s < 2.0 for time_s in times_s) == pytest.approx(1400, rel=0.1)


@pytest.mark.parametrize("kind", ["poisson", "constant"])
def test_processes_together_send_what_one_would(kind: str) -> None:
    whole = made(dataclasses.replace(RAMP, arrivals=kind), streams=5, requests_max=7)
    shares = [plan.share(whole, number, 3) for number in range(3)]
    assert [one.streams for one in shares] == [2, 2, 1]
    assert [one.requests_max for one in shares] == [3, 2, 2]
    together = sorted(time_s for one in shares for time_s in taken(one.loop, 4.0) if isinstance(one.loop, plan.Open))
    assert len(together) == pytest.approx(2000, rel=0.002 if kind == "constant" else 0.1)
    if kind == "constant":  # shifted, not all at once
        assert np.diff(together).min() > 0.5 / 900
    assert len({tuple(taken(one.loop, 1.0)) for one in shares if isinstance(one.loop, plan.Open)}) == 3


def test_a_closed_loop_is_divided_among_no_more_processes_than_callers() -> None:
    whole = made(plan.Closed(7))
    parts = [plan.share(whole, number, 3).loop for number in range(3)]
    assert parts == [plan.Closed(3), plan.Closed(2), plan.Closed(2)]
    assert plan.processes_max(whole) == 7
    assert plan.processes_max(made(plan.Open(1.0), streams=2)) == 2


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("200", ((200.0,), False)), ("1, 2.5,.5", ((1.0, 2.5, 0.5), False)), ("100..2000", ((100.0, 2000.0), True))],
)
def test_rates_are_read(text: str, wanted: tuple[tuple[float, ...], bool]) -> None:
    assert dataclasses.astuple(plan.rates(text)) == wanted


@pytest.mark.parametrize("text", ["", "fast", "100,,200", "1..2..3", "0", "5..0", "1e3", "-1"])
def test_what_are_no_rates_is_explained(text: str) -> None:
    with pytest.raises(ValueError, match=r"write 200, 100,200,400 \(steps\) or 100..2000 \(a ramp\)"):
        plan.rates(text)


# --- histograms -----------------------------------------------------------------------------------------


def test_quantiles_are_numpy_s_within_a_bucket() -> None:
    values_s = np.random.default_rng(0).lognormal(-4.0, 1.5, 50_000)
    counted = histogram.Histogram()
    counted.add(values_s)
    shares = (0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0)
    assert counted.quantiles_s(shares) == pytest.approx(np.quantile(values_s, shares), rel=0.003)
    assert (counted.min_s, counted.max_s) == (values_s.min(), values_s.max())
    assert counted.mean_s == pytest.approx(values_s.mean())


def test_values_beyond_both_ends_are_counted_and_the_ends_stay_exact() -> None:
    counted = histogram.Histogram()
    counted.add(np.array([0.0, 1e-9, 1.0, 1e5]))
    assert len(counted) == 4
    assert counted.quantiles_s((0.0, 1.0)) == [0.0, 1e5]


def test_bars_are_coarser_and_hold_the_same_values() -> None:
    counted = histogram.Histogram()
    counted.add(np.array([0.01, 0.0101, 0.05]))
    bars = counted.bars(8)
    assert sum(count for _, _, count in bars) == 3
    assert bars[0][0] <= 0.01 < bars[0][1]
    assert bars[-1][0] <= 0.05 < bars[-1][1]
    assert histogram.Histogram().bars(8) == []


# --- tallies --------------------------------------------------------------------------------------------


def random_entries(count: int) -> list[tuple[float, float, float, str]]:
    random = np.random.default_rng(7)
    sent_s = np.sort(random.uniform(0.0, 10.0, count))
    ended_s = np.sort(sent_s + random.exponential(0.02, count))
    return [
        (float(one) - 0.001, float(one), float(end), "OK" if number % 50 else "UNAVAILABLE")
        for number, (one, end) in enumerate(zip(sent_s, ended_s, strict=True))
    ]


@pytest.mark.parametrize("loop", [plan.Closed(8), plan.Open(2000.0)])
def test_the_tallies_of_several_processes_add_up_to_one_exactly(loop: plan.Closed | plan.Open) -> None:
    chosen = made(loop, warmup_s=1.0, duration_s=9.0, deadline_s=0.03)
    frame = tally.frame(chosen, 0.0)
    alone, parts = ledger.Ledger(frame), [ledger.Ledger(frame) for _ in range(3)]
    for number, entry in enumerate(random_entries(20_000)):
        for one in (alone, parts[number % 3]):
            one.ends_at(10.0)
            one.ended(*entry, sentence="gone" if entry[3] != "OK" else "")
    together = tally.Tally()
    for part in parts:
        together.merge(part.tally())
    period = result.Period(0.0, 1.0, 10.0)
    counts = target.Counts({}, {})
    beside = result.Beside(counts, counts, (1.0,), 1, 1, machine.describe("nowhere:1"))
    of_one, of_three = (result.of(chosen, one, period, beside).as_json() for one in (alone.tally(), together))
    # Sums of floats in another order differ in the last bits; the rates may begin and end at other answers.
    for figures in (of_one, of_three):
        assert figures.pop("images_per_s") == figures["requests_per_s"] == pytest.approx(2000, rel=0.05)
        assert figures.pop("good_images_per_s") == pytest.approx(2000 * figures["in_time"] / 18_000, rel=0.05)
        figures.pop("requests_per_s")
        for latency in (figures["latency"], figures["from_sent"], figures["whole"]["latency"]):
            latency["mean_s"] = round(latency["mean_s"], 9)
    assert of_one == of_three
    assert sum(of_one["counts"].values()) == pytest.approx(18_000, rel=0.05)


def test_a_long_run_takes_no_more_memory_than_a_short_one() -> None:
    def kept(seconds: int) -> int:
        ends = ledger.Ledger(tally.frame(made(plan.Open(500.0), duration_s=float(seconds)), 0.0))
        for number in range(seconds * 500):
            ends.ended(number / 500, number / 500, number / 500 + 0.01, ledger.OK)
        counted = ends.tally()
        times = len(counted.answered.head_s) + len(counted.answered.tail_s)
        return times + sum(len(window.latency.counts) for window in counted.windows.values())

    assert kept(400) <= 1.1 * kept(60)


def test_windows_hold_ten_requests_where_the_run_is_long_enough() -> None:
    assert tally.window_s(made(plan.Closed(1), duration_s=60.0)) == 1.0
    assert tally.window_s(made(plan.Closed(1), duration_s=3600.0)) == 100.0
    assert tally.window_s(made(plan.Closed(1), duration_s=1.0)) == pytest.approx(0.05)
    assert tally.window_s(made(plan.Open(3.0), duration_s=60.0)) == 5.0


# --- what can be trusted --------------------------------------------------------------------------------


def windows(rates: list[int]) -> list[tally.Window]:
    several = []
    for rate in rates:
        window = tally.Window(intended=rate, ok=rate)
        window.latency.add(np.full(rate, 0.01))
        several.append(window)
    return several


def test_a_steady_run_is_told_from_one_that_slows_down() -> None:
    measured = histogram.Histogram()
    measured.add(np.full(5000, 0.01))
    steady = confidence.of(windows([100, 101, 99, 100] * 5), 1.0, measured)
    slower = confidence.of(windows([130] * 10 + [70] * 10), 1.0, measured)
    assert steady is not None
    assert slower is not None
    assert steady.is_steady
    assert (steady.parts, steady.part_s, steady.beyond_p99) == (10, 2.0, 50)
    assert steady.plus_minus_per_s < 1.0
    assert slower.drift == pytest.approx(70 / 130 - 1)
    assert not slower.is_steady
    assert confidence.of(windows([100]), 1.0, measured) is None


@pytest.mark.parametrize(
    ("text", "holds"),
    [("p99>50ms", True), ("p99 > 200ms", False), ("errors>0", True), ("errors>10%", False), ("throughput<1000", True)],
)
def test_conditions_are_read_and_judged(text: str, holds: bool) -> None:
    chosen = made(plan.Open(10.0))
    ends = ledger.Ledger(tally.frame(chosen, 0.0))
    for number in range(100):
        ends.ended(number / 10, number / 10, number / 10 + 0.1, ledger.OK if number else "UNAVAILABLE")
    counts = target.Counts({}, {})
    beside = result.Beside(counts, counts, (1.0,), 1, 1, machine.describe("nowhere:1"))
    measured = result.of(chosen, ends.tally(), result.Period(0.0, 0.0, 10.0), beside)
    condition = conditions.parse(text)
    assert condition.holds(measured) is holds
    assert condition.explain(measured).startswith(text)


@pytest.mark.parametrize("text", ["", "p99", "p99>50", "p98>1ms", "errors>1ms", "throughput>5%", "p99=1ms"])
def test_what_is_no_condition_is_explained(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no condition; write p50, .*throughput<1000"):
        conditions.parse(text)


# --- the server's metrics -------------------------------------------------------------------------------


def exposed(counts: tuple[int, int, int], total_s: float) -> str:
    low, high, every = counts
    labels = 'model="net",version="1"'
    return (
        "# TYPE fovea_queue_duration_seconds histogram\n"
        f'fovea_queue_duration_seconds_bucket{{{labels},le="0.01"}} {low}\n'
        f'fovea_queue_duration_seconds_bucket{{{labels},le="0.1"}} {high}\n'
        f'fovea_queue_duration_seconds_bucket{{{labels},le="+Inf"}} {every}\n'
        f"fovea_queue_duration_seconds_count{{{labels}}} {every}\n"
        f"fovea_queue_duration_seconds_sum{{{labels}}} {total_s}\n"
    )


def counted(*scraped: tuple[tuple[int, int, int], float], model: str = "net") -> list[dict[str, stage_times.Counted]]:
    return [stage_times.of(scrape.parse(exposed(*one), "url"), model) for one in scraped]


def test_stages_are_what_was_added_between_two_scrapes() -> None:
    before, after = counted(((5, 9, 10), 1.0), ((85, 108, 110), 3.0))
    (stage,) = stage_times.between(before, after)
    assert (stage.name, stage.count, stage.mean_s) == ("queue", 100, pytest.approx(0.02))
    assert (stage.p50_at_most_s, stage.p99_at_most_s) == (0.01, 0.1)


def test_versions_of_a_model_are_counted_together() -> None:
    both = exposed((1, 2, 3), 0.5) + exposed((10, 20, 30), 5.0).replace('version="1"', 'version="2"')
    (stage,) = stage_times.between({}, stage_times.of(scrape.parse(both, "url"), "net"))
    assert (stage.count, stage.mean_s) == (33, pytest.approx(5.5 / 33))


def test_a_model_that_the_server_does_not_know_has_no_stages() -> None:
    assert counted(((1, 1, 1), 1.0), model="other") == [{}]
