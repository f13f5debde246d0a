"""Traces: who asks for what, and when."""

import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Iterator

from tests.bench.simulation import devices

_SIZES = (1, 1, 1, 1, 2, 2, 4, 8, 16, 32, 48)


@dataclasses.dataclass(frozen=True)
class Arrival:
    at_s: float
    samples: int = 1
    caller: str = ""
    shape: int = 0
    deadline_s: float = math.inf


@dataclasses.dataclass(frozen=True)
class Trace:
    device: str
    kind: str
    load: float
    deadlines: str
    duration_s: float
    arrivals: tuple[Arrival, ...]

    @property
    def has_deadlines(self) -> bool:
        return self.deadlines != "none"


Times = Callable[[random.Random, float], Iterator[float]]
"""Times of arrival, ascending from 0, so many a second."""


def poisson(chance: random.Random, rate: float) -> Iterator[float]:
    now_s = 0.0
    while True:
        now_s += chance.expovariate(rate)
        yield now_s


def constant(_: random.Random, rate: float) -> Iterator[float]:
    return (number / rate for number in itertools.count(1))


def bursts(chance: random.Random, rate: float) -> Iterator[float]:
    """A quarter of the time four times the rate, nothing between; a burst is of about 60 arrivals."""
    cycle_s = 60 / rate
    for at_s in poisson(chance, 4 * rate):
        cycles, within_s = divmod(at_s, cycle_s / 4)
        yield cycles * cycle_s + within_s


def _single(chance: random.Random, at_s: float) -> Arrival:
    return Arrival(at_s)


def _sized(chance: random.Random, at_s: float) -> Arrival:
    return Arrival(at_s, samples=chance.choice(_SIZES))


def _shaped(chance: random.Random, at_s: float) -> Arrival:
    return Arrival(at_s, shape=chance.choice((0, 0, 0, 1, 1, 2)))


def _one_of_two(chance: random.Random, at_s: float) -> Arrival:
    """One caller asks for a tenth of the device, the other for all the rest."""
    return Arrival(at_s, caller="modest" if chance.random() < 0.05 else "flood")


@dataclasses.dataclass(frozen=True)
class Kind:
    name: str
    times: Times
    make: Callable[[random.Random, float], Arrival]
    loads: tuple[float, ...]
    samples_mean: float = 1.0


KINDS = (
    Kind("Poisson", poisson, _single, (0.3, 0.7, 0.95, 1.2, 2.0, 10.0)),
    Kind("constant", constant, _single, (0.7, 2.0)),
    Kind("bursts", bursts, _single, (0.3, 0.7, 2.0)),
    Kind("1-48 samples", poisson, _sized, (0.3, 0.7, 2.0), sum(_SIZES) / len(_SIZES)),
    Kind("one floods", poisson, _one_of_two, (2.0,)),
    Kind("3 shapes", poisson, _shaped, (0.3, 0.7, 2.0)),
)
DEADLINES = ("none", "loose", "tight", "mixed")


def make(device: devices.Device, kind: Kind, load: float, deadlines: str, runs: int) -> Trace:
    """A trace as long as the device needs for about so many full runs.

    Near saturation latencies need the longest to show their mean; a request of several samples is
    one observation; far above saturation there is no need for as many refusals again.
    """
    chance = random.Random(f"{device.name} {kind.name} {load}")
    longer = kind.samples_mean * (3 if 0.9 < load < 1.5 else min(1.0, 2 / load))
    duration_s = runs * min(8, device.full) * longer / device.capacity
    rate = load * device.capacity / kind.samples_mean
    arrivals = []
    for at_s in itertools.takewhile(lambda at_s: at_s < duration_s, kind.times(chance, rate)):
        arrival = kind.make(chance, at_s)
        deadline_s = at_s + _slack_s(device, deadlines, arrival.samples, chance)
        arrivals.append(dataclasses.replace(arrival, deadline_s=deadline_s))
    return Trace(device.name, kind.name, load, deadlines, duration_s, tuple(arrivals))


def _slack_s(device: devices.Device, deadlines: str, samples: int, chance: random.Random) -> float:
    """How long after its arrival a request is worth an answer.

    Loose leaves room for ten full runs, tight for about two, mixed is anything between. Each
    further sample of a request brings the time that it takes by itself.
    """
    tight_s, loose_s = max(3 * device.run_s(1), 2.2 * device.full_s), 10 * device.full_s
    own_s = device.run_s(1) * samples if samples > 1 else 0.0
    mixed_s = chance.uniform(tight_s, loose_s)
    return {"none": math.inf, "loose": loose_s + own_s, "tight": tight_s + own_s, "mixed": mixed_s + own_s}[deadlines]
