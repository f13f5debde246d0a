"""Finds the highest rate that a server answers within a latency, in a given time.

Path: command line → **searching** → capacity decides, run measures.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from service.loadgen import capacity, generator, plan, result, run

_CEILING_CALLERS = 32
"""Callers of the closed loop that gives a first idea: enough to keep batches full on a CPU."""

_TRIALS = 20
"""A trial takes this part of the budget, within the bounds below."""

_TRIAL_LEAST_S, _TRIAL_MOST_S = 2.0, 15.0

_VERIFY_TRIALS = 3
"""A verification takes as long as so many trials; time for two of them is kept back."""

_ENOUGH = 0.8
"""Of a step's time has to be left for it to begin: so a search ends at most this little after its budget."""

_REQUESTS_LEAST = 300
"""In a trial: three answers beyond p99. Slow models get longer trials, up to a sixth of the budget."""

_WARMUP_S = 0.5
_PATIENCE_S = 2.0
_HOPELESS = 5.0
"""A trial is cut off when for a second half of the answers took longer than so many times the bound."""


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What a search came to: the rate that was verified, or none, and why it ended."""

    wanted: capacity.Wanted
    ceiling_per_s: float
    trials: tuple[capacity.Trial, ...]
    rate_per_s: float | None
    images_per_s: float | None
    verification: result.Result | None
    """Of the verified rate; otherwise of the last trial."""
    ended: str
    took_s: float

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return dataclasses.asdict(self)


Tell = Callable[[str], None]


class Search:
    """One search: `find` once.

    Mutable state: the trials so far and the last run; touched only on the event loop.
    """

    def __init__(
        self, opened: run.Session, base: plan.Plan, wanted: capacity.Wanted, budget_s: float, tell: Tell
    ) -> None:
        self._session, self._base, self._wanted = opened, base, wanted
        self._budget_s = budget_s
        self._tell = tell
        self._began_s = time.monotonic()
        self._trials: list[capacity.Trial] = []
        self._last: result.Result | None = None

    async def find(self, watch: generator.Watch = run.ignore) -> Found:
        """Search until a rate is verified, nothing is left to learn, or the time is up.

        Raises:
            StartupError: see run.Session.measure.
        """
        self._tell("closed loop: how much can it do at all?")
        closed = dataclasses.replace(
            self._base, loop=plan.Closed(max(_CEILING_CALLERS, self._base.streams)), duration_s=self._trial_s(),
            warmup_s=_WARMUP_S,
        )  # fmt: skip
        self._last = await self._session.measure(closed, watch)
        ceiling_per_s = self._last.requests_per_s
        while (step := self._next(ceiling_per_s)) is not None and self._left_s() > _ENOUGH * self._cost_s(step):
            await self._try(step, watch)
        return self._found(ceiling_per_s)

    def _next(self, ceiling_per_s: float) -> capacity.Next | None:
        if self._session.is_stopped or not ceiling_per_s:
            return None
        has_time = self._left_s() > (2 * _VERIFY_TRIALS + 1) * (self._trial_s() + _WARMUP_S)
        return capacity.following(self._trials, ceiling_per_s, self._wanted, has_time=has_time)

    async def _try(self, step: capacity.Next, watch: generator.Watch) -> None:
        self._tell(f"{step.kind} {step.rate_per_s:.1f}/s")
        chosen = dataclasses.replace(
            self._base, loop=plan.Open(step.rate_per_s, seed=len(self._trials)), duration_s=self._seconds(step),
            warmup_s=_WARMUP_S, give_up_s=max(_PATIENCE_S, _HOPELESS * self._wanted.p99_s), requests_max=None,
        )  # fmt: skip
        hopeless = _Hopeless(self._session, self._wanted.p99_s, watch)
        measured = await self._session.measure(chosen, hopeless.watch)
        if self._session.is_stopped and step.kind == "verify":
            return  # half a verification is none
        self._last = measured
        self._trials.append(capacity.judge(step.kind, step.rate_per_s, measured, self._wanted))

    def _trial_s(self) -> float:
        return min(max(self._budget_s / _TRIALS, _TRIAL_LEAST_S), _TRIAL_MOST_S)

    def _seconds(self, step: capacity.Next) -> float:
        enough_s = min(_REQUESTS_LEAST / step.rate_per_s, self._budget_s / 6)
        seconds = max(self._trial_s(), enough_s)
        if step.kind == "search":
            return seconds
        return max(min(_VERIFY_TRIALS * seconds, self._left_s() - _WARMUP_S), seconds)

    def _cost_s(self, step: capacity.Next) -> float:
        return self._seconds(step) + _WARMUP_S

    def _left_s(self) -> float:
        return self._budget_s - (time.monotonic() - self._began_s)

    def _found(self, ceiling_per_s: float) -> Found:
        best = capacity.verified(self._trials)
        rate_per_s = best.rate_per_s if best else None
        return Found(
            wanted=self._wanted,
            ceiling_per_s=ceiling_per_s,
            trials=tuple(self._trials),
            rate_per_s=rate_per_s,
            images_per_s=rate_per_s and rate_per_s * self._base.images_per_request,
            verification=self._last,
            ended=self._why(best, ceiling_per_s),
            took_s=time.monotonic() - self._began_s,
        )

    def _why(self, best: capacity.Trial | None, ceiling_per_s: float) -> str:
        bound = f"p99 ≤ {self._wanted.p99_s * 1e3:g} ms"
        if best is not None:
            return f"verified over {best.seconds:.0f} s"
        if self._session.is_stopped:
            return "interrupted before a rate was verified"
        if not ceiling_per_s:
            return "the server answered nothing in the closed loop"
        if any(trial.is_met for trial in self._trials):
            return f"the budget of {self._budget_s:.0f} s was up before a rate was verified"
        if not self._trials:
            return f"the budget of {self._budget_s:.0f} s is too short for one trial; give it 30 s at least"
        return f"no rate that was tried met {bound}, the lowest {min(t.rate_per_s for t in self._trials):.1f}/s"


class _Hopeless:
    """Cuts a trial off that cannot be met any more, so that the server does not have to work off what it is behind.

    Mutable state: for how long it has looked hopeless; touched only on the event loop.
    """

    def __init__(self, opened: run.Session, p99_s: float, watch: generator.Watch) -> None:
        self._session, self._p99_s, self._watch = opened, p99_s, watch
        self._looks = 0

    def watch(self, progress: generator.Progress) -> None:
        """Look, and pass on."""
        self._watch(progress)
        recent = progress.recent
        is_bad = recent.ok + recent.failed > 0 and not recent.latency.quantiles_s((0.5,))[0] <= _HOPELESS * self._p99_s
        self._looks = self._looks + 1 if is_bad else 0
        if self._looks * generator.WATCH_EVERY_S >= 1.0:
            self._session.cut()
