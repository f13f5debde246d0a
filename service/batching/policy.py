"""What a model's configuration says about queueing and batching, in plain numbers.

Path: models.policy → **policy** → planner and batcher.
"""

import dataclasses
import math


@dataclasses.dataclass(frozen=True, slots=True)
class Level:
    """How requests of one priority wait."""

    timeout_s: float = math.inf
    """How long a request may wait for its run to start."""
    timeout_demotes: bool = False
    """When that is over: True, it waits on behind all others of its priority; False, it is refused."""
    allows_override: bool = True
    """Whether a request may name a shorter timeout."""
    requests_max: int = 0
    """Requests that may wait; 0 without a bound of its own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """How one model's requests become batches."""

    batch_samples_max: int
    """Rows of one run at most. A larger request runs in parts."""
    merges_requests: bool = True
    """Whether requests of several callers may share a run."""
    delay_s: float = 0.0
    """How long the oldest request may wait for company on a free device."""
    has_batch_axis: bool = True
    """Without one a request is a run, and its outputs are not split."""
    preferred_samples: tuple[int, ...] = ()
    """Batch sizes to form where that is possible, ascending."""
    levels: tuple[Level, ...] = (Level(),)
    """One for each priority, the highest, 1, first."""
    default_priority: int = 1
    """The priority of a request that names none."""

    def level(self, priority: int) -> Level:
        """Return how requests of that priority wait."""
        return self.levels[priority - 1]
