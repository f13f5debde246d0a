"""Loads a candidate exactly as the server would load its config.pbtxt, and measures it.

Path: search → **trials** → lifecycle, drive.
"""

import asyncio
import contextlib
import dataclasses
import pathlib
import shutil
import tempfile
from collections.abc import AsyncIterator

from google.protobuf import text_format

from service import metrics
from service.batching import clock
from service.models import lifecycle, repository
from service.runtime import session
from service.tuning import candidates, drive

_WORK_S = 0.25


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """How a candidate did: one caller alone, and as many as keep the device full."""

    candidate: candidates.Candidate
    alone: drive.Point
    full: drive.Point
    run_s: float
    """Mean seconds of a lone caller's run on the device: no waiting, so no delay, is in it."""


@contextlib.asynccontextmanager
async def loaded(
    folder: repository.ModelFolder, candidate: candidates.Candidate, options: session.Options
) -> AsyncIterator[lifecycle.ServedModel]:
    """Serve the model under a candidate's configuration, from a repository made for it, with links to the graphs.

    Raises:
        ModelLoadError: it cannot be served so.
    """
    loop_clock = clock.LoopClock(asyncio.get_running_loop())
    with tempfile.TemporaryDirectory(prefix="fovea-tune-") as place:
        copy = repository.ModelFolder(folder.name, pathlib.Path(place) / folder.name, folder.version)
        copy.path.mkdir()
        for part in folder.path.iterdir():
            if part.is_dir():
                (copy.path / part.name).symlink_to(part.resolve())
            elif part.name != "config.pbtxt":  # labels; a model takes no files from outside its folder
                shutil.copyfile(part, copy.path / part.name)
        (copy.path / "config.pbtxt").write_text(text_format.MessageToString(candidate.config))
        served = await asyncio.to_thread(lifecycle.Loader(options, 2**20, loop_clock, metrics.Metrics()).load, copy)
        try:
            yield served
        finally:
            await served.batcher.aclose()
            served.instances.close()


def callers(alone: drive.Point, in_flight: int) -> int:
    """Return how many callers keep the device full: a quarter of a second of work, 64 at most, 4 at least."""
    return max(4, 2 * in_flight, min(64, round(_WORK_S * alone.rate * in_flight)))


async def measure(served: lifecycle.ServedModel, candidate: candidates.Candidate, seconds: float) -> Trial:
    """Measure a loaded candidate, for about so many seconds."""
    alone = await drive.drive(served, 1, seconds * 0.3)
    run_s = served.numbers.run.sum / served.numbers.runs
    full = callers(alone, served.instances.in_flight)
    await drive.drive(served, full, seconds * 0.1)  # the costs that it plans with settle
    return Trial(candidate, alone, await drive.drive(served, full, seconds * 0.6), run_s)
