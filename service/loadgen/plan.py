"""What a load run does: how many requests, when, how sent, and how long they may take.

Path: command line → **plan** → run.
"""

import dataclasses
import re
from typing import Literal

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "": 1.0}


@dataclasses.dataclass(frozen=True, slots=True)
class Closed:
    """A closed loop: so many callers, each sends its next request when it has its answer."""

    concurrency: int


@dataclasses.dataclass(frozen=True, slots=True)
class Open:
    """An open loop: requests come at a rate, however the server does. Seeded, so it can be repeated."""

    rate_per_s: float
    arrivals: Literal["poisson", "constant"] = "poisson"
    seed: int = 0
    outstanding_max: int = 20_000
    """Unanswered requests at most, so that the generator's memory is bounded; more are counted NOT_SENT."""


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """One run. `streams` 0 means unary calls.

    `duration_s` is measured after `warmup_s`, and `requests_max` ends it earlier. `deadline_s` is told to the
    server in each request, and to gRPC where calls are unary. A request without an answer after `give_up_s`
    is cut off, so a run ends although a server hangs. `is_in_order` takes a stream's answers in the order of
    its requests instead of by id, for servers that do not read ids.
    """

    address: str
    model: str
    loop: Closed | Open
    images_per_request: int = 1
    streams: int = 0
    duration_s: float = 10.0
    warmup_s: float = 1.0
    requests_max: int | None = None
    deadline_s: float | None = None
    priority: int = 0
    give_up_s: float = 30.0
    is_in_order: bool = False


def seconds(text: str) -> float:
    """Return "250ms", "10s", "2m" or "1.5" (seconds) as seconds.

    Raises:
        ValueError: not such a duration, or not more than 0.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(us|ms|s|m|)\s*", text)
    if match is None or float(match[1]) == 0:
        raise ValueError(f"{text!r} is not a duration above zero; write 10s, 250ms, 500us or 2m")
    return float(match[1]) * _SECONDS[match[2]]
