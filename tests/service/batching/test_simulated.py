"""A short piece of the simulation: our batcher beside greedy and timer batching, in virtual time.

The whole is `python -m tests.bench.simulated`.
"""

import statistics

import pytest

from tests.bench import simulated
from tests.bench.simulation import devices, replay, simpler, traces

KINDS = {kind.name: kind for kind in traces.KINDS}
SHORT = 100


def goodput_ratio(device: devices.Device, kind: str, load: float, deadlines: str) -> float:
    trace = traces.make(device, KINDS[kind], load, deadlines, SHORT)
    return replay.ours(device, trace).goodput / max(policy(device, trace).goodput for policy in simpler.POLICIES)


@pytest.mark.parametrize("device", devices.DEVICES, ids=lambda device: device.name)
@pytest.mark.parametrize("kind", ["Poisson", "bursts", "one floods"])
def test_in_overload_more_is_answered_in_time_than_by_the_best_of_the_others(device: devices.Device, kind: str) -> None:
    assert goodput_ratio(device, kind, 2.0, "tight") > 1.5
    assert goodput_ratio(device, kind, 2.0, "mixed") > 1.05


@pytest.mark.parametrize("device", devices.DEVICES, ids=lambda device: device.name)
def test_without_overload_no_deadline_that_the_others_meet_is_missed(device: devices.Device) -> None:
    assert goodput_ratio(device, "Poisson", 0.7, "loose") >= 0.99


@pytest.mark.parametrize("device", devices.DEVICES, ids=lambda device: device.name)
def test_of_those_let_in_nearly_all_are_answered_in_time(device: devices.Device) -> None:
    trace = traces.make(device, KINDS["Poisson"], 2.0, "mixed", 3 * SHORT)
    assert replay.ours(device, trace).kept > 0.97


def test_padding_is_avoided_where_it_costs_latency() -> None:
    trace = traces.make(devices.GPU, KINDS["Poisson"], 0.7, "none", 2 * SHORT)
    ours, greedy = replay.ours(devices.GPU, trace), simpler.POLICIES[0](devices.GPU, trace)
    assert ours.mean_s < 0.8 * greedy.mean_s
    assert ours.wasted < greedy.wasted


@pytest.mark.parametrize("device", [devices.FLAT, devices.AFFINE], ids=lambda device: device.name)
def test_without_deadlines_nobody_waits_longer_than_with_greedy(device: devices.Device) -> None:
    ratios = []
    for load in (0.3, 0.7):
        trace = traces.make(device, KINDS["Poisson"], load, "none", 4 * SHORT)
        ratios.append(simpler.POLICIES[0](device, trace).mean_s / replay.ours(device, trace).mean_s)
    assert min(ratios) > 1 - simulated.TOLERANCE
    assert statistics.mean(ratios) >= 0.995


def test_the_same_trace_gives_the_same_outcome() -> None:
    trace = traces.make(devices.GPU, KINDS["1-48 samples"], 0.7, "tight", SHORT)
    assert replay.ours(devices.GPU, trace).ended_s == replay.ours(devices.GPU, trace).ended_s


def test_a_simpler_policy_is_what_its_name_says() -> None:
    """Greedy starts at once what is there; a timer holds it for the delay, unless the batch is full."""
    device = devices.Device("exact", lambda rows: 1.0, samples_max=2)
    arrivals = (traces.Arrival(0.0), traces.Arrival(0.1), traces.Arrival(0.2), traces.Arrival(0.3))
    trace = traces.Trace("exact", "by hand", 1.0, "none", 1.0, arrivals)
    first = devices.Noise()()
    greedy = simpler.Timer("greedy", 0.0)(device, trace)
    timer = simpler.Timer("timer", 0.5)(device, trace)
    assert greedy.ended_s[0] == pytest.approx(first)
    assert greedy.ended_s[1] == greedy.ended_s[2] < greedy.ended_s[3]
    assert timer.ended_s[0] == timer.ended_s[1] == pytest.approx(0.1 + first)


def test_the_report_says_what_was_missed() -> None:
    comparisons = [
        one for one in simulated.compared(20, [devices.FLAT]) if one.trace.kind == "Poisson" and one.trace.load == 2.0
    ]
    table = "\n".join(simulated.markdown(comparisons))
    assert table.count("\n") == 3
    assert "| CPU, flat: ResNet-18 | 2-10 | yes | 3 |" in table
    assert all(is_met for _, is_met in simulated.verdicts(comparisons))
    comparisons[0] = simulated.Comparison(
        comparisons[0].trace, comparisons[0].others["timer 1"], {"ours": comparisons[0].ours}
    )
    assert not all(is_met for _, is_met in simulated.verdicts(comparisons))
