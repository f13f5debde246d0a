"""Decides which waiting requests run now. Pure: no clock, no futures, no threads.

Path: batcher's queue → **planner** → batcher's run.

Work-conserving: with a free device the oldest request leaves at once, taking along whatever fits,
unless the model's config asks for a delay. Order is kept: nobody is overtaken by a smaller request.
"""

import dataclasses
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What the planner knows of a waiting request. Times are seconds of the batcher's clock."""

    @property
    def samples(self) -> int:
        """Rows along the batch dimension, at least 1."""

    @property
    def arrived_s(self) -> float:
        """When it joined the queue."""

    @property
    def deadline_s(self) -> float:
        """Not worth starting later; infinity without a deadline."""

    @property
    def shape_key(self) -> Hashable:
        """Requests with different keys cannot share a batch."""


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """What a model's config says about batching."""

    batch_samples_max: int
    """Rows of one run at most. A request never has more: it is refused before it waits."""
    merges_requests: bool = True
    """Whether requests of several callers may share a run."""
    delay_s: float = 0.0
    """How long the oldest request may wait for company on a free device."""
    has_batch_axis: bool = True
    """Without one a request is a run, and its outputs are not split."""


W = TypeVar("W", bound=Waiting)


@dataclasses.dataclass(frozen=True, slots=True)
class Plan(Generic[W]):
    """What to do now: fail `expired`, run `batch`; if that is empty, look again at `look_again_s`."""

    batch: tuple[W, ...] = ()
    expired: tuple[W, ...] = ()
    look_again_s: float | None = None


def plan(queue: Iterable[W], now_s: float, policy: Policy, *, is_closing: bool = False) -> Plan[W]:
    """Choose the next batch for a free device.

    Args:
        queue: oldest first.
        now_s: the clock's time.
        policy: limits and delay.
        is_closing: nobody else will come, so a delay has no purpose.

    Returns:
        The batch in queue order, and everybody met on the way whose deadline has passed.
    """
    expired: list[W] = []
    batch: list[W] = []
    room = policy.batch_samples_max
    for waiting in queue:
        if waiting.deadline_s <= now_s:
            expired.append(waiting)
            continue
        if batch and not _joins(waiting, batch[0], room, policy):
            room = 0  # whoever comes later cannot overtake, so waiting longer gains nothing
            break
        batch.append(waiting)
        room -= waiting.samples
        if room <= 0:
            break
    if not batch:
        return Plan(expired=tuple(expired))
    leaves_s = _leaves_s(batch, policy)
    if room > 0 and not is_closing and now_s < leaves_s:
        return Plan(expired=tuple(expired), look_again_s=leaves_s)
    return Plan(batch=tuple(batch), expired=tuple(expired))


def _joins(waiting: Waiting, oldest: Waiting, room: int, policy: Policy) -> bool:
    return policy.merges_requests and waiting.samples <= room and waiting.shape_key == oldest.shape_key


def _leaves_s(batch: Sequence[Waiting], policy: Policy) -> float:
    """When a batch that is not full leaves: after the delay; at once if a deadline falls into it."""
    arrived_s = batch[0].arrived_s
    may_wait = policy.merges_requests and all(waiting.deadline_s > arrived_s + policy.delay_s for waiting in batch)
    return arrived_s + policy.delay_s if may_wait else arrived_s
