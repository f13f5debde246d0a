"""One process's part of a run: its channel, its requests, its tally.

Path: run, or a process of its own → **generator** → traffic, senders, ledger → tally.
"""

import asyncio
import contextlib
import dataclasses
import gc
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

import grpc.aio

from service.loadgen import ledger, plan, result, senders, tally, traffic

WATCH_EVERY_S = 0.2

_EARLY_S = 0.002
"""uvloop's timers tick in milliseconds and may be early: what is sent before the beginning would belong to no count."""

Outcome = TypeVar("Outcome")


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, while it runs: seconds since its beginning, of how many; requests ended so far, and lately."""

    elapsed_s: float
    all_s: float
    ok: int
    failed: int
    recent: ledger.Recent


Watch = Callable[[Progress], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Counted:
    """What a run came to: its tally, its times, and the CPU seconds of each process."""

    tally: tally.Tally
    period: result.Period
    cpu_s: tuple[float, ...]


class Generator(Protocol):
    """Makes load: in this process, or in several."""

    async def generate(self, chosen: plan.Plan, watch: Watch) -> Counted:
        """Run a plan.

        Raises:
            StartupError: a process of the generator ended.
        """

    def stop(self) -> None:
        """End the run that is under way."""

    async def close(self) -> None:
        """Give up what is held."""


class Here:
    """The generator in this process.

    Mutable state: the traffic under way; touched only on the event loop.
    """

    def __init__(self, channel: grpc.aio.Channel, requests: Sequence[bytes]) -> None:
        self._channel = channel
        self._requests = requests
        self._traffic: traffic.Traffic | None = None

    async def generate(self, chosen: plan.Plan, watch: Watch) -> Counted:
        """See Generator."""
        return await self.generate_at(chosen, tally.frame(chosen, time.monotonic()), watch)

    async def generate_at(self, chosen: plan.Plan, frame: tally.Frame, watch: Watch) -> Counted:
        """Run a plan in a frame whose beginning may be still to come, so that several begin together."""
        started_s = frame.started_s
        ends = ledger.Ledger(frame)
        sender = senders.sender(chosen, self._channel, self._requests, ends)
        running = self._traffic = traffic.Traffic(chosen, sender, ends, started_s)
        if (wait_s := started_s - time.monotonic()) > 0:
            await asyncio.sleep(wait_s + _EARLY_S)
        cpu_before_s = time.process_time()
        watching = asyncio.create_task(_watch(chosen, started_s, ends, watch))
        try:
            await running.run()
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            await sender.close()
        period = result.Period(started_s, min(running.measured_from_s, running.ends_s), running.ends_s)
        return Counted(ends.tally(), period, (time.process_time() - cpu_before_s,))

    def stop(self) -> None:
        """See Generator."""
        if self._traffic is not None:
            self._traffic.stop()

    async def close(self) -> None:
        """Nothing of its own is held."""


async def _watch(chosen: plan.Plan, started_s: float, ends: ledger.Ledger, watch: Watch) -> None:
    all_s = chosen.warmup_s + chosen.duration_s
    while True:
        await asyncio.sleep(WATCH_EVERY_S)
        ok = ends.counts[ledger.OK]
        watch(Progress(time.monotonic() - started_s, all_s, ok, len(ends) - ok, ends.recent()))


def run_loop(main: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Run on uvloop where it is installed; the garbage collector leaves alone what is there already."""
    gc.freeze()
    try:
        import uvloop  # noqa: PLC0415 - not there on Windows
    except ImportError:
        return asyncio.run(main)
    outcome: Outcome = uvloop.run(main)
    return outcome
