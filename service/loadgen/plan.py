"""What a load run does: how many requests, when, how sent, and how long they may take.

Path: command line → **plan** → run.
"""

import dataclasses
import re
from typing import Literal

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "": 1.0}
_NUMBER = r"\d+(?:\.\d+)?|\.\d+"


@dataclasses.dataclass(frozen=True, slots=True)
class Closed:
    """A closed loop: so many callers, each sends its next request when it has its answer."""

    concurrency: int


@dataclasses.dataclass(frozen=True, slots=True)
class Ramp:
    """A rate that goes evenly to `to_per_s` within `within_s` after the warm-up, and stays there."""

    to_per_s: float
    within_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Open:
    """An open loop: requests come at a rate, however the server does. Seeded, so it can be repeated."""

    rate_per_s: float
    arrivals: Literal["poisson", "constant"] = "poisson"
    seed: int = 0
    outstanding_max: int = 20_000
    """Unanswered requests at most, so that the generator's memory is bounded; more are counted NOT_SENT."""
    ramp: Ramp | None = None
    phase: float = 0.0
    """Share of a gap by which constant arrivals are shifted: so those of several processes interleave."""


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """One run. `streams` 0 means unary calls.

    `duration_s` is measured after `warmup_s`, and `requests_max` ends it earlier: so many are sent in it.
    `deadline_s` is told to the server in each request, and to gRPC where calls are unary. A request without an
    answer after `give_up_s` is cut off, so a run ends although a server hangs. `is_in_order` takes a stream's
    answers in the order of its requests instead of by id, for servers that do not read ids.
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


def share(whole: Plan, number: int, of: int) -> Plan:
    """Return what process `number` (from 0) of several does, so that together they do the whole.

    Poisson arrivals of independent processes add up to Poisson arrivals; constant ones are shifted against each other.
    """

    def part(count: int) -> int:
        return count // of + (number < count % of)

    if isinstance(whole.loop, Closed):
        loop: Closed | Open = Closed(part(whole.loop.concurrency))
    else:
        ramp = whole.loop.ramp and Ramp(whole.loop.ramp.to_per_s / of, whole.loop.ramp.within_s)
        loop = dataclasses.replace(
            whole.loop, rate_per_s=whole.loop.rate_per_s / of, seed=whole.loop.seed * of + number, ramp=ramp,
            outstanding_max=max(part(whole.loop.outstanding_max), 1), phase=number / of,
        )  # fmt: skip
    return dataclasses.replace(
        whole, loop=loop, streams=part(whole.streams), requests_max=whole.requests_max and part(whole.requests_max)
    )


def processes_max(whole: Plan) -> int:
    """Return the most processes that a run can be divided among: each needs a caller, a stream, a request."""
    bounds = [whole.loop.concurrency] if isinstance(whole.loop, Closed) else []
    bounds += [bound for bound in (whole.streams, whole.requests_max) if bound]
    return min(bounds, default=1024)


def seconds(text: str) -> float:
    """Return "250ms", "10s", "2m" or "1.5" (seconds) as seconds.

    Raises:
        ValueError: not such a duration, or not more than 0.
    """
    match = re.fullmatch(rf"\s*({_NUMBER})\s*(us|ms|s|m|)\s*", text)
    if match is None or float(match[1]) == 0:
        raise ValueError(f"{text!r} is not a duration above zero; write 10s, 250ms, 500us or 2m")
    return float(match[1]) * _SECONDS[match[2]]


@dataclasses.dataclass(frozen=True, slots=True)
class Rates:
    """What --rate asks for: one rate, one after the other, or a way from the first to the last."""

    per_s: tuple[float, ...]
    is_ramp: bool = False


def rates(text: str) -> Rates:
    """Return "200", "100,200,400" (one run each) or "100..2000" (a ramp) as requests a second.

    Raises:
        ValueError: not such rates, or one that is not more than 0.
    """
    is_ramp = ".." in text
    parts = text.split("..") if is_ramp else text.split(",")
    matches = [re.fullmatch(rf"\s*({_NUMBER})\s*", part) for part in parts]
    values = tuple(float(match[1]) for match in matches if match is not None)
    if len(values) != len(parts) or min(values) <= 0 or (is_ramp and len(values) != 2):
        raise ValueError(f"{text!r} are no requests a second; write 200, 100,200,400 (steps) or 100..2000 (a ramp)")
    return Rates(values, is_ramp)
