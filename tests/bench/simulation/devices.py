"""Models of devices: what a run of so many samples really takes."""

import dataclasses
import functools
import random
from collections.abc import Callable

from service.batching import costs

_NOISE = 0.1
"""Standard deviation of a run's time, of its mean; nobody who plans knows it."""
_SEED = 1


@dataclasses.dataclass(frozen=True)
class Device:
    name: str
    seconds: Callable[[int], float]
    """Of a run of so many rows, in the mean."""
    samples_max: int = 32
    buckets: tuple[int, ...] = ()
    """The only counts of rows that can run; empty: any."""
    instances: int = 1

    def rows(self, samples: int) -> int:
        return min((rows for rows in self.buckets if rows >= samples), default=samples)

    def run_s(self, samples: int) -> float:
        return self.seconds(self.rows(samples))

    @property
    def measured(self) -> costs.Measured:
        """What the planner is told: the means."""
        counts = self.buckets or [count for count in (1, 2, 4, 8, 16, 32) if count <= self.samples_max]
        return costs.Measured({count: self.seconds(count) for count in counts}, bool(self.buckets))

    @functools.cached_property
    def full(self) -> int:
        """The fewest samples with the best cost per sample."""
        each_s = {count: self.run_s(count) / count for count in range(1, self.samples_max + 1)}
        return min(count for count in each_s if each_s[count] <= min(each_s.values()) * 1.01)

    @property
    def full_s(self) -> float:
        """A run of so many."""
        return self.run_s(self.full)

    @property
    def capacity(self) -> float:
        """Samples per second at most."""
        return self.instances * self.full / self.full_s


class Noise:
    """How much longer than its mean each run takes. The n-th run of every policy has the same luck."""

    def __init__(self) -> None:
        self._random = random.Random(_SEED)

    def __call__(self) -> float:
        return max(0.5, self._random.gauss(1.0, _NOISE))


FLAT = Device("CPU, flat: ResNet-18", lambda rows: 0.020 * rows)
PAIR = Device("the same, 2 instances", lambda rows: 0.020 * rows, instances=2)
AFFINE = Device("CPU, affine: LeNet-5", lambda rows: 60e-6 + 8e-6 * rows)
GPU = Device("GPU, buckets", lambda rows: 0.002 + 0.00035 * rows, buckets=(1, 2, 4, 8, 16, 32))
DEVICES = (FLAT, PAIR, AFFINE, GPU)
