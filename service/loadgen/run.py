"""One load run from beginning to end: connect, prepare, try once, load, count.

Path: plan and source → **run** → result.
"""

import asyncio
import dataclasses
import time
from collections.abc import Callable

from service.loadgen import ledger, payloads, plan, result, senders, target, traffic

Source = Callable[[target.Described], list[bytes]]
"""Makes the request messages once it is known what the model takes."""

WATCH_EVERY_S = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, while it runs: seconds since its beginning, of how many; requests ended so far."""

    elapsed_s: float
    all_s: float
    ok: int
    failed: int


Watch = Callable[[Progress], None]


class Run:
    """A run: `measure` once; `stop` ends it early, with what was measured so far.

    Mutable state: the traffic, and whether a stop came before it began; touched only on the event loop.
    """

    def __init__(self, chosen: plan.Plan, source: Source) -> None:
        self._plan = chosen
        self._source = source
        self._traffic: traffic.Traffic | None = None
        self._is_stopped = False

    def stop(self) -> None:
        """Send no more."""
        self._is_stopped = True
        if self._traffic is not None:
            self._traffic.stop()

    async def measure(self, watch: Watch = lambda progress: None) -> result.Result:
        """Run the plan; `watch` hears how far it is.

        Raises:
            StartupError: no server, no such model, a source that does not fit it, or a first request that fails.
        """
        server = target.Target(self._plan.address, self._plan.model)
        try:
            requests = self._source(await server.describe())
            answer = await server.probe(requests[0], self._plan.give_up_s)
            before = await server.counts()
            cpu_before_s = time.process_time()
            ends, period = await self._load(server, requests, watch)
            cpu_s = time.process_time() - cpu_before_s
            after = await server.counts()
        finally:
            await server.close()
        beside = result.Beside(before, after, cpu_s, len(requests[0]), len(answer))
        return result.of(self._plan, ends, period, beside)

    async def _load(
        self, server: target.Target, requests: list[bytes], watch: Watch
    ) -> tuple[ledger.Ledger, result.Period]:
        ends = ledger.Ledger()
        sender = senders.sender(self._plan, server.channel, requests, ends)
        self._traffic = traffic.Traffic(self._plan, sender, ends)
        if self._is_stopped:
            self._traffic.stop()
        watching = asyncio.create_task(self._watch(ends, watch))
        try:
            await self._traffic.run()
        finally:
            watching.cancel()
            await sender.close()
        times = self._traffic
        return ends, result.Period(times.started_s, min(times.measured_from_s, times.ends_s), times.ends_s)

    async def _watch(self, ends: ledger.Ledger, watch: Watch) -> None:
        started_s = time.monotonic()
        all_s = self._plan.warmup_s + self._plan.duration_s
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            ok = ends.counts[ledger.OK]
            watch(Progress(time.monotonic() - started_s, all_s, ok, len(ends) - ok))


def images(files: list[bytes], chosen: plan.Plan) -> Source:
    """Return the source of requests with these encoded images."""
    parameters = payloads.Parameters.of(chosen)
    return lambda described: payloads.of_images(described, files, chosen.images_per_request, parameters)


def pixels(chosen: plan.Plan) -> Source:
    """Return the source of requests with random pixels."""
    parameters = payloads.Parameters.of(chosen)
    return lambda described: payloads.of_pixels(described, chosen.images_per_request, parameters)
