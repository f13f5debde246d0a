"""Load runs from beginning to end: connect, prepare, try once; then load and count, as often as asked.

Path: plan and source → **run** → result.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence

from service.loadgen import generator, machine, payloads, plan, processes, result, stage_times, target

Source = Callable[[target.Described], list[bytes]]
"""Makes the request messages once it is known what the model takes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Means:
    """What a load is made with: processes, the cores they keep to (in turn; none: any), the server's /metrics."""

    processes: int = 1
    cpus: Sequence[int] = ()
    metrics_url: str | None = None


ALONE = Means()
"""This process, anywhere, without metrics."""


def ignore(progress: generator.Progress) -> None:
    """Watch nothing."""


class Session:
    """A server that was tried and a generator that is ready: `measure` as often as wanted, one at a time.

    Mutable state: whether a stop was asked for; touched only on the event loop.
    """

    def __init__(
        self, server: target.Target, made: generator.Generator, facts: tuple[int, int, str], metrics_url: str | None
    ) -> None:
        self._server = server
        self._generator = made
        self._request_bytes, self._answer_bytes, self._served_by = facts
        self._metrics_url = metrics_url
        self.is_stopped = False

    def stop(self) -> None:
        """Send no more; whoever measures looks at `is_stopped` before the next run."""
        self.is_stopped = True
        self._generator.stop()

    def cut(self) -> None:
        """End the run under way, and only that."""
        self._generator.stop()

    async def measure(self, chosen: plan.Plan, watch: generator.Watch = ignore) -> result.Result:
        """Run a plan; `watch` hears how far it is.

        Raises:
            StartupError: the server's metrics cannot be read, or a process of the generator ended.
        """
        described = machine.describe(chosen.address)
        before, stages_before = await self._server.counts(), await self._stages(chosen.model)
        counted = await self._generator.generate(chosen, watch)
        after, stages_after = await self._server.counts(), await self._stages(chosen.model)
        beside = result.Beside(
            before, after, counted.cpu_s, self._request_bytes, self._answer_bytes, described, self._served_by,
            stage_times.between(stages_before, stages_after),
        )  # fmt: skip
        return result.of(chosen, counted.tally, counted.period, beside)

    async def _stages(self, model: str) -> dict[str, stage_times.Counted]:
        if self._metrics_url is None:
            return {}
        return await asyncio.to_thread(stage_times.read, self._metrics_url, model)


@contextlib.asynccontextmanager
async def session(chosen: plan.Plan, source: Source, means: Means = ALONE) -> AsyncIterator[Session]:
    """Connect, ask what the model takes, send one request, start the processes.

    Raises:
        StartupError: no server, no such model, a source that does not fit it, or a first request that fails.
    """
    server = target.Target(chosen.address, chosen.model)
    try:
        requests = source(await server.describe())
        answer = await server.probe(requests[0], chosen.give_up_s)
        facts = (len(requests[0]), len(answer), await server.name())
        async with _generator(chosen, server, requests, means) as made:
            yield Session(server, made, facts, means.metrics_url)
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def _generator(
    chosen: plan.Plan, server: target.Target, requests: list[bytes], means: Means
) -> AsyncIterator[generator.Generator]:
    if means.processes == 1:
        yield generator.Here(server.channel, requests)
        return
    several = processes.Processes(chosen.address, requests, means.processes, means.cpus)
    try:
        await several.start()
        yield several
    finally:
        await several.close()


def images(files: list[bytes], chosen: plan.Plan) -> Source:
    """Return the source of requests with these encoded images."""
    parameters = payloads.Parameters.of(chosen)
    return lambda described: payloads.of_images(described, files, chosen.images_per_request, parameters)


def pixels(chosen: plan.Plan) -> Source:
    """Return the source of requests with random pixels."""
    parameters = payloads.Parameters.of(chosen)
    return lambda described: payloads.of_pixels(described, chosen.images_per_request, parameters)
