"""What the command line asked for, done: one run, one for each of several rates, or a search for the capacity.

Path: load_cli → **job** → run, searching → Measured.
"""

import asyncio
import dataclasses
import pathlib
import signal
from collections.abc import Sequence
from typing import Any

from service.loadgen import capacity, payloads, plan, result, run, screen, searching


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What is to be done with the server, beside the plan of one run. `wanted` makes it a search."""

    rates: plan.Rates | None
    means: run.Means
    images: Sequence[pathlib.Path]
    wanted: capacity.Wanted | None
    budget_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """The runs that were made; of a search the last one, and all that was found. Nothing after an early Ctrl-C."""

    runs: tuple[result.Result, ...]
    found: searching.Found | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON takes it: one run as it is, of several a list, of a search all of it."""
        if self.found is not None:
            return self.found.as_json()
        if len(self.runs) > 1:
            return {"runs": [one.as_json() for one in self.runs]}
        return self.runs[0].as_json()


async def do(chosen: plan.Plan, job: Job, live: screen.Live) -> Measured:
    """Measure what is wanted. The first Ctrl-C ends the load, a second one the command.

    Raises:
        StartupError: see run.session and run.Session.measure.
    """
    source = run.images(payloads.read(job.images), chosen) if job.images else run.pixels(chosen)
    loop = asyncio.get_running_loop()
    async with run.session(chosen, source, job.means) as opened:

        def stop() -> None:
            loop.remove_signal_handler(signal.SIGINT)
            opened.stop()

        loop.add_signal_handler(signal.SIGINT, stop)
        if job.wanted is not None:
            search = searching.Search(opened, chosen, job.wanted, job.budget_s, live.step)
            found = await search.find(live.watch)
            return Measured((found.verification,) if found.verification else (), found)
        return Measured(await _runs(chosen, job.rates, opened, live))


async def _runs(
    chosen: plan.Plan, rates: plan.Rates | None, opened: run.Session, live: screen.Live
) -> tuple[result.Result, ...]:
    """One run, or one for each rate."""
    if rates is None or rates.is_ramp or len(rates.per_s) == 1 or not isinstance(chosen.loop, plan.Open):
        return (await opened.measure(chosen, live.watch),)
    runs: list[result.Result] = []
    for rate in rates.per_s:
        if opened.is_stopped:
            break
        live.step(f"{rate:g} requests/s")
        at_rate = dataclasses.replace(chosen, loop=dataclasses.replace(chosen.loop, rate_per_s=rate))
        runs.append(await opened.measure(at_rate, live.watch))
    return tuple(runs)
