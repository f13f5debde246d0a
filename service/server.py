"""The server put together: settings in, ports open, models loaded, drained on SIGTERM.

Path: cli → **server** → everything.
"""

import asyncio
import gc
import logging
import signal
from collections.abc import Sequence

from service import engine, errors, metrics, settings
from service.batching import clock
from service.images import decode, pool
from service.models import lifecycle, repository
from service.runtime import cores, providers, session
from service.wire import describe, http, passage
from service.wire import server as grpc_server

log = logging.getLogger(__name__)

LAST_WORDS_S = 0.25
"""After the last answer: new calls still hear UNAVAILABLE from us, and clients read what was sent. A
process that closes its sockets at once cuts off answers that clients have not read yet, and gRPC
tells calls that come during its own shutdown CANCELLED, which nobody retries."""


class Server:
    """One server process: `start`, `drain`, `aclose`.

    Mutable state: its parts', and the ports, set by `start`.
    """

    def __init__(self, chosen: settings.Settings) -> None:
        self._settings = chosen
        self._engine = engine.Engine()
        self._metrics = metrics.Metrics()
        limits = decode.Limits(chosen.image_bytes_max, chosen.image_pixels_max, chosen.image_aspect_max)
        self._decoders = pool.DecodePool(
            chosen.decode_threads or cores.available(), limits, decode.Mode(chosen.decode_mode)
        )
        self._way = passage.Passage(self._engine, self._decoders, self._metrics)
        with cores.threads_give_way():
            self._grpc = grpc_server.GrpcPort(self._way, describe.Describe(self._engine), _limits(chosen))
        self._http = http.HttpPort(self._engine, self._metrics, asyncio.get_running_loop())

    async def start(self) -> None:
        """Listen, load, and be ready.

        Raises:
            StartupError: a port is taken, the provider is missing, or a model cannot be served.
        """
        host = self._settings.host
        with cores.threads_give_way():
            grpc_port = await self._grpc.start(host, self._settings.grpc_port)
        metrics_port = self._http.start(host, self._settings.metrics_port)
        self._engine.serve(await self._load())
        await self._grpc.set_ready(self._names(), is_ready=True)
        gc.freeze()  # what is there now stays: no need to look through it again and again
        log.info(
            "ready: gRPC on %s:%d, metrics on http://%s:%d/metrics, models: %s",
            *(host, grpc_port, host, metrics_port, ", ".join(self._names())),
        )

    async def drain(self) -> None:
        """Readiness first, then no new work, then out: all that was accepted is answered."""
        chosen = self._settings
        self._engine.state = engine.State.NOT_READY
        await self._grpc.set_ready(self._names(), is_ready=False)
        log.info("draining: not ready; taking work for %g s more", chosen.drain_delay_s)
        await asyncio.sleep(chosen.drain_delay_s)
        self._engine.state = engine.State.DRAINING
        await self._way.drain(chosen.drain_grace_s)
        await asyncio.sleep(LAST_WORDS_S)
        await self._grpc.close(LAST_WORDS_S)
        await self._engine.aclose()
        totals = [self._engine.numbers(model) for model in self._engine.models()]
        log.info(
            "drained: %d requests answered with OK, %d with an error",
            sum(numbers.success.count for numbers in totals),
            sum(numbers.fail.count for numbers in totals),
        )

    async def aclose(self) -> None:
        """Close the ports and end the threads; at once, if `drain` has not been called."""
        await self._grpc.close(0)
        self._http.close()
        self._decoders.close()

    def _report(self, model: str, done: int, total: int) -> None:
        """Say how far a model is. Called from the loading thread; replacing one value is whole in itself."""
        self._engine.progress = engine.Progress(model, done, total)

    def _names(self) -> list[str]:
        return [model.name for model in self._engine.models()]

    async def _load(self) -> list[lifecycle.ServedModel]:
        chosen = self._settings
        provider = await asyncio.to_thread(providers.choose, chosen.device)
        log.info("execution provider: %s (%s)", provider.name, provider.reason)
        self._metrics.set_provider(provider.name)
        loader = lifecycle.Loader(
            session.Options(provider, chosen.threads),
            chosen.queue_samples_max,
            clock.LoopClock(asyncio.get_running_loop()),
            self._metrics,
            self._report,
        )
        return await _load_all(loader, repository.scan(chosen.repository))


def _limits(chosen: settings.Settings) -> grpc_server.Limits:
    return grpc_server.Limits(chosen.message_bytes_max, chosen.stream_messages_max)


async def _load_all(loader: lifecycle.Loader, folders: Sequence[repository.ModelFolder]) -> list[lifecycle.ServedModel]:
    """Load every model. A repository holds variants for several devices: those for others stay aside, aloud.

    Raises:
        ModelLoadError: a model cannot be served, or all are for other devices.
    """
    models, aside = [], []
    for folder in folders:
        try:
            models.append(await asyncio.to_thread(loader.load, folder))
        except errors.NotForThisDevice as error:
            log.warning("%s", error)
            aside.append(error)
    if not models:
        raise aside[0]
    return models


async def run(chosen: settings.Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Raises:
        StartupError: see Server.start.
    """
    log.info("settings: %s", " ".join(f"{name}={value}" for name, value in chosen.model_dump().items()))
    asked_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop.set)
    server = Server(chosen)
    starting = loop.create_task(server.start())
    stopping = loop.create_task(asked_to_stop.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    try:
        if starting.done():
            starting.result()
            await stopping
            await server.drain()
        else:
            log.info("asked to stop while starting")
            starting.cancel()
    finally:
        stopping.cancel()
        await server.aclose()
