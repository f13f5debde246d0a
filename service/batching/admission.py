"""Decides whether a request may wait at all, before any work is put into it. Pure.

Path: wire → engine → **admission** → queue.

A request that cannot be answered in time is best told so at once: it costs neither decoding nor a
place, and its caller can go elsewhere. The prediction is what is ahead of it, in full batches at
the measured costs, and the batch that it will run in.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from service import errors
from service.batching import costs as measured_costs
from service.batching import policy, sizes

_PAUSE_S = 0.001
"""The shortest pause worth asking a caller for."""
_LATE_SHARE = 0.01
"""Of those that are let in, so many may be late."""
_STEP = 0.05
_CAUTION_FIRST, _CAUTION_MAX = 0.5, 3.0
_PLENTY = 6.0
"""More than the most cautious prediction adds to the sum of all runs."""


class Ahead(NamedTuple):
    """What stands between a request and its answer."""

    samples: int
    """That are served before it, those that are being decoded included."""
    busy_s: Sequence[float]
    """Until each device is free, ascending; 0 for a free one."""
    decode_s: float
    """Until the request's images are decoded, beside the wait."""


def level(model: str, priority: int, rules: policy.Policy) -> int:
    """Return the queue's level of a priority: two for each, the second for those whose timeout has demoted them.

    Raises:
        BadRequest: no such priority.
    """
    levels = len(rules.levels)
    if priority == 0 or levels == 1:  # one level is no levels: the parameter has no meaning, as in Triton
        return 2 * (rules.default_priority - 1)
    if not 1 <= priority <= levels:
        raise errors.BadRequest(
            f"parameter 'priority' is {priority}; model {model!r} has the priorities 1 (first) to {levels}, "
            f"and 0 means its default, {rules.default_priority}",
            errors.path("parameters", "priority"),
        )
    return 2 * (priority - 1)


def too_many_samples(
    model: str, samples: int, waiting: int, waiting_max: int, known: measured_costs.Costs
) -> errors.QueueFull:
    """Return the refusal of what would make the queue longer than its bound: come back when the excess has run."""
    over = waiting + samples - waiting_max
    pause_s = None if samples > waiting_max else max(known.seconds(over), _PAUSE_S)
    return errors.QueueFull(model, f"{waiting} of {waiting_max} samples wait", pause_s)


def too_many_requests(model: str, waiting: int, waiting_max: int, known: measured_costs.Costs) -> errors.QueueFull:
    """Return the refusal of one request more than the priority's queue policy allows: come back when one has run."""
    told = f"{waiting} of {waiting_max} requests of this priority wait"
    return errors.QueueFull(model, told, max(known.seconds(1), _PAUSE_S))


class Outlook:
    """Predicts when requests are answered, and learns how far that can be trusted.

    Mutable state: `caution`; touched only on the event loop.
    """

    def __init__(self, model: str, known: measured_costs.Costs, batches: sizes.Sizes) -> None:
        self.caution = _CAUTION_FIRST
        """How much of what may delay a request is added to the prediction."""
        self._model = model
        self._costs = known
        self._sizes = batches

    def is_plenty(self, slack_s: float, waiting: int, decode_s: float) -> bool:
        """Whether there is time for everybody who waits, several times over: then nothing need be predicted."""
        return decode_s + _PLENTY * (self._costs.seconds(waiting) + self._costs.seconds(self._sizes.full)) < slack_s

    def check(self, samples: int, ahead: Ahead, slack_s: float) -> None:
        """Refuse what will hardly be answered within `slack_s`.

        Raises:
            TooLate: says how long it would take; its pause is when it might be worth trying again.
        """
        if not self._costs.is_known:
            return
        answer_s = self.answer_s(samples, ahead)
        if answer_s <= slack_s:
            return
        is_hopeless = self._run_s(samples, len(ahead.busy_s)) > slack_s
        pause_s = None if is_hopeless else max(answer_s - slack_s, _PAUSE_S)
        raise errors.TooLate(self._model, answer_s, slack_s, pause_s)

    def learn(self, *, in_time: int, late: int) -> None:
        """Hear how many of those let in were answered in time, and how many were not: at equilibrium, 1 in 100."""
        step = _STEP * (late * (1 - _LATE_SHARE) - in_time * _LATE_SHARE)
        self.caution = min(_CAUTION_MAX, max(0.0, self.caution + step))

    def answer_s(self, samples: int, ahead: Ahead) -> float:
        """Return how long from now to the answer of a request.

        Full batches go first, each on the device that is free first, then one of the rest and the
        request. Two things may delay it: runs are longer than expected, whose errors add up like
        chances; and others join its own batch until it is full.
        """
        full = self._sizes.full
        devices = len(ahead.busy_s)
        batches, rest = divmod(ahead.samples, full)
        rounds, place = divmod(batches, devices)
        full_s = self._costs.seconds(full)
        start_s = max(ahead.busy_s[place] + rounds * full_s, ahead.decode_s)
        run_s = max(self._run_s(samples, devices), self._costs.least_s(min(full, rest + samples)))
        answer_s = start_s + run_s
        errors_s = (self._costs.margin - 1) * math.sqrt(answer_s * min(answer_s, full_s))
        company_s = max(0.0, full_s - run_s) if batches else 0.0
        return answer_s + self.caution * (errors_s + company_s)

    def _run_s(self, samples: int, devices: int) -> float:
        """What a request takes by itself: its parts run beside one another where there are several devices."""
        return self._costs.least_s(-(-samples // devices))
