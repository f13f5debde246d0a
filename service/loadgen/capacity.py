"""Where to look next for the highest rate that a server answers in time: decides, and does nothing.

Path: trials so far → **capacity** → the next one, or the end; `searching` runs them.

The search: 1. from 0.7 of what a closed loop got, up until a rate is too much, or down until one is not; 2. between
the two, halve (in the geometric mean) until they are within `precision`; 3. verify the lower one with a longer run, and
step down until one passes. A trial that fails is tried again, and the third decides, unless it was plain overload: a
neighbour's hiccup is not the server's limit. Time ends it, too; what is left for verifying is kept back.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

from service.loadgen import ledger, result

FIRST_SHARE = 0.7
_UP, _DOWN = 1.3, 0.6
_LEAST_SHARE = 0.01
"""Below this share of the closed loop's rate nothing is looked for: the bound is then not about load."""

_OVERLOADED = 0.9
"""A server that answers less than this share of what comes falls behind: nothing to try again."""

Kind = Literal["search", "verify"]


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What a rate has to meet, and how finely it is looked for."""

    p99_s: float
    errors_share: float = 0.0
    precision: float = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """One rate, tried; `reasons` say why it does not meet what is wanted. Latencies are None without answers."""

    kind: Kind
    rate_per_s: float
    answered_per_s: float
    p50_s: float | None
    p99_s: float | None
    failed_share: float
    lag_p99_s: float
    seconds: float
    reasons: tuple[str, ...]
    is_overload: bool

    @property
    def is_met(self) -> bool:
        """Whether the rate met all that was wanted."""
        return not self.reasons


@dataclasses.dataclass(frozen=True, slots=True)
class Next:
    """A rate to try."""

    kind: Kind
    rate_per_s: float


def judge(kind: Kind, rate_per_s: float, measured: result.Result, wanted: Wanted) -> Trial:
    """Return what a run at a rate says."""
    latency, sent = measured.latency, sum(measured.counts.values())
    failed_share = measured.failed / sent if sent else 1.0
    not_sent = measured.counts.get(ledger.NOT_SENT, 0)
    reasons = []
    if latency is None:
        reasons.append("no answers")
    elif latency.p99_s > wanted.p99_s:
        reasons.append(f"p99 {latency.p99_s * 1e3:.1f} ms")
    if failed_share > wanted.errors_share:
        reasons.append(f"{failed_share:.2%} failed")
    if not_sent:
        reasons.append(f"the generator could not send {not_sent}")
    answered = measured.requests_per_s
    return Trial(
        kind=kind,
        rate_per_s=rate_per_s,
        answered_per_s=answered,
        p50_s=latency.p50_s if latency else None,
        p99_s=latency.p99_s if latency else None,
        failed_share=failed_share,
        lag_p99_s=measured.generator.lag_p99_s,
        seconds=measured.measured_s,
        reasons=tuple(reasons),
        is_overload=bool(reasons) and answered < _OVERLOADED * rate_per_s,
    )


def following(trials: Sequence[Trial], ceiling_per_s: float, wanted: Wanted, *, has_time: bool) -> Next | None:
    """Return what to try next; None when there is nothing more to learn, or a rate is verified.

    `has_time` says whether there is time for another trial beside the verification.
    """
    if verified(trials) is not None:
        return None
    verifications = [trial for trial in trials if trial.kind == "verify"]
    if verifications:
        lower = min(trial.rate_per_s for trial in verifications) * (1 - 2 * wanted.precision)
        return Next("verify", lower) if lower >= _LEAST_SHARE * ceiling_per_s else None
    met, unmet, undecided = _sorted(trials)
    if has_time:
        if undecided is not None:
            return Next("search", undecided)
        rate = _between(met, unmet, ceiling_per_s, wanted.precision)
        if rate is not None:
            return Next("search", rate)
    return Next("verify", met) if met is not None else None


def verified(trials: Sequence[Trial]) -> Trial | None:
    """Return the verification that was passed, if there is one."""
    return next((trial for trial in trials if trial.kind == "verify" and trial.is_met), None)


def _between(met: float | None, unmet: float | None, ceiling_per_s: float, precision: float) -> float | None:
    if met is None and unmet is None:
        return FIRST_SHARE * ceiling_per_s
    if met is None:
        assert unmet is not None, "one of the two is there"
        return unmet * _DOWN if unmet * _DOWN >= _LEAST_SHARE * ceiling_per_s else None
    if unmet is None:
        return met * _UP
    return math.sqrt(met * unmet) if unmet > met * (1 + precision) else None


def _sorted(trials: Sequence[Trial]) -> tuple[float | None, float | None, float | None]:
    """The highest rate that was met below the lowest that was not, the latter, and one that needs another trial."""
    by_rate: dict[float, list[Trial]] = {}
    for trial in trials:
        by_rate.setdefault(trial.rate_per_s, []).append(trial)
    verdicts = {rate: _verdict(at_rate) for rate, at_rate in by_rate.items()}
    unmet = min((rate for rate, verdict in verdicts.items() if verdict is False), default=None)
    met = [rate for rate, verdict in verdicts.items() if verdict and (unmet is None or rate < unmet)]
    undecided = [rate for rate, verdict in verdicts.items() if verdict is None]
    return max(met, default=None), unmet, min(undecided, default=None)


def _verdict(at_rate: Sequence[Trial]) -> bool | None:
    """Whether a rate is met; None: not known yet.

    The first success decides, or two failures, or one overload; after a failure two successes do.
    """
    met = sum(trial.is_met for trial in at_rate)
    failures = len(at_rate) - met
    if any(trial.is_overload for trial in at_rate) or failures >= 2:
        return False
    return True if met > failures else None
