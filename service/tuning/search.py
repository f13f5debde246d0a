"""Which configuration is best: one dimension after the other, the best so far kept, a duel at the end.

Path: tune_cli → **search** → trials.
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence

from service import errors
from service.models import repository
from service.runtime import cores, providers, session, trial
from service.tuning import candidates, drive, trials

_AS_FAST = 1.03
"""Throughputs this close are as good; the shorter latency of a lone caller decides."""
_FIRST_SHARE = 0.125
"""The part of the budget in which the configuration as it is is measured."""
_DUEL_SHARE = 0.25
"""The part of the budget that is kept for the last comparison."""
_ROUNDS = 3
_TRIAL_MIN_S, _TRIAL_MAX_S = 1.0, 10.0
"""A trial that is shorter says nothing; one that is longer says no more."""
_CURVE_S = 8.0
"""With less time left the duel measures the full load only, not the curve."""

AS_IT_IS = "as it is"
"""The name of the configuration that the search begins with."""

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Duel:
    """The default and its challenger, measured in turns; `ratio` is the challenger's throughput over the default's.

    Below 1 the challenger has lost, however well it did in its trial.
    """

    name: str
    """The challenger's."""
    default: Sequence[drive.Point]
    challenger: Sequence[drive.Point]
    ratio: float

    @property
    def is_won(self) -> bool:
        """Whether the challenger is to replace the default."""
        return self.ratio >= 1


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What the search has measured, what there was no time for, and what it chose."""

    tried: list[trials.Trial]
    refused: dict[str, str]
    skipped: list[str]
    winner: candidates.Candidate
    budget_s: float
    """A budget that leaves time to try something."""
    duel: Duel | None
    """None if nothing was better than the configuration as it is."""

    @property
    def curves(self) -> dict[str, Sequence[drive.Point]]:
        """What there is to draw, by configuration: both sides of the duel; without one, the default's trial."""
        if self.duel is not None:
            return {AS_IT_IS: self.duel.default, self.duel.name: self.duel.challenger}
        return {AS_IT_IS: (self.tried[0].alone, self.tried[0].full)}


class Search:
    """One search within a budget.

    Mutable state: what was tried, and the best so far.
    """

    def __init__(self, folder: repository.ModelFolder, options: session.Options, until_s: float, say: Say) -> None:
        self._folder = folder
        self._options = options
        self._until_s = until_s
        self._say = say
        self._tried: list[trials.Trial] = []
        self._refused: dict[str, str] = {}
        self._skipped: list[str] = []
        self._load_s = 0.0
        """What loading the last candidate took, without a trial of layouts: none of the later ones has any."""
        self._default_layout: trial.Candidate | None = None

    async def run(self, config: candidates.Config) -> Found:
        """Search from the configuration as it is.

        Raises:
            ModelLoadError: the model cannot be served as it is, or has nothing to tune.
        """
        began_s = time.perf_counter()
        budget_s = self._until_s - began_s
        start = candidates.Candidate(AS_IT_IS, config)
        default = best = await self._try(start, budget_s * _FIRST_SHARE)
        enough_s = budget_needed_s(time.perf_counter() - began_s, self._load_s)
        search_until_s = self._until_s - 2 * self._load_s - _DUEL_SHARE * budget_s
        for dimension in self._dimensions(default):
            edits = [candidates.edited(best.candidate, name, edit) for name, edit in dimension]
            for number, candidate in enumerate(edits):
                best = await self._better(best, candidate, search_until_s, len(edits) - number)
        if best is default:
            return Found(self._tried, self._refused, self._skipped, start, enough_s, None)
        again = candidates.pinned(start, self._default_layout) if self._default_layout else start
        duel = await self._fight(again, best.candidate, default.full.callers)
        winner = best.candidate if duel.is_won else start
        return Found(self._tried, self._refused, self._skipped, winner, enough_s, duel)

    def _dimensions(self, default: trials.Trial) -> list[list[tuple[str, candidates.Edit]]]:
        config = default.candidate.config
        configured_us = config.dynamic_batching.max_queue_delay_microseconds
        delays = candidates.delays(default.run_s, configured_us) if config.HasField("dynamic_batching") else []
        if self._options.provider.name == providers.CUDA:
            return [*candidates.cuda_options(), candidates.buckets(config.max_batch_size), delays]
        return [candidates.layouts(cores.available()), delays]

    async def _better(
        self, best: trials.Trial, candidate: candidates.Candidate, until_s: float, ahead: int
    ) -> trials.Trial:
        """Return the better of the best so far and a candidate, for which there is a share of the time left."""
        seconds = (until_s - time.perf_counter()) / ahead - self._load_s
        if seconds < _TRIAL_MIN_S:
            seconds = until_s - time.perf_counter() - self._load_s
        if seconds < _TRIAL_MIN_S:
            self._skipped.append(candidate.name)
            return best
        try:
            measured = await self._try(candidate, seconds)
        except errors.ModelLoadError as error:
            self._refused[candidate.name] = error.reason
            return best
        return measured if _is_better(measured, best) else best

    async def _try(self, candidate: candidates.Candidate, seconds: float) -> trials.Trial:
        begun_s = time.perf_counter()
        async with trials.loaded(self._folder, candidate, self._options) as served:
            loaded = served.instances
            self._load_s = time.perf_counter() - begun_s - loaded.trial_s
            if not self._tried and loaded.trial_s:
                self._default_layout = loaded.layout
            measured = await trials.measure(served, candidate, max(_TRIAL_MIN_S, min(seconds, _TRIAL_MAX_S)))
        self._tried.append(measured)
        self._say(f"{candidate.name}: {measured.full.rate:.1f} images/s, alone {measured.alone.p50_s * 1e3:.2f} ms")
        return measured

    async def _fight(self, start: candidates.Candidate, best: candidates.Candidate, full: int) -> Duel:
        """Both loaded, measured in turns, so that what else the machine does hits both."""
        async with (
            trials.loaded(self._folder, start, self._options) as default,
            trials.loaded(self._folder, best, self._options) as challenger,
        ):
            left_s = self._until_s - time.perf_counter()
            counts = sorted({1, 2, full // 2, full}) if left_s > _CURVE_S else [full]
            counts += [full] * (_ROUNDS - 1)
            seconds = max(0.2, left_s * 0.85 / (2 * len(counts)))
            points: tuple[list[drive.Point], list[drive.Point]] = ([], [])
            for callers in counts:
                for served, into in zip((default, challenger), points, strict=True):
                    into.append(await drive.drive(served, callers, seconds))
                self._say(f"{callers} callers: {points[0][-1].rate:.1f} as it is, {points[1][-1].rate:.1f} {best.name}")
        both = zip(*points, strict=True)
        ratio = statistics.median(won.rate / was.rate for was, won in both if was.callers == full)
        return Duel(best.name, *points, ratio)


def budget_needed_s(first_s: float, load_s: float) -> float:
    """Return a budget that leaves time to try something, in whole seconds.

    Args:
        first_s: what the configuration as it is took, to load and to measure.
        load_s: what each later load takes: one for a candidate, two for the duel.
    """
    fixed_s = first_s + 3 * load_s + _TRIAL_MIN_S
    # With more budget the first trial takes its share of it, up to its longest: either bound is enough.
    by_share_s = fixed_s / (1 - _DUEL_SHARE - _FIRST_SHARE)
    return math.ceil(min(by_share_s, (fixed_s + _TRIAL_MAX_S) / (1 - _DUEL_SHARE)))


def _is_better(trial: trials.Trial, best: trials.Trial) -> bool:
    if trial.full.rate > best.full.rate * _AS_FAST:
        return True
    return trial.full.rate * _AS_FAST >= best.full.rate and trial.alone.p50_s * _AS_FAST < best.alone.p50_s
