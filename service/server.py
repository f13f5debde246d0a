"""The server put together: settings in, ports open, models loaded, drained on SIGTERM.

Path: cli → **server** → everything.
"""

import asyncio
import dataclasses
import gc
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

from service import control, engine, errors, metrics, poll, settings
from service.batching import clock
from service.images import decode, pool
from service.metrics import occupancy
from service.models import lifecycle
from service.runtime import cores, cuda, nvml, providers, session
from service.wire import describe, http, passage, transport
from service.wire import repository as wire_repository
from service.wire import server as grpc_server
from service.wire.security import certificates, guard, peers, tokens

if TYPE_CHECKING:
    from service.tracing import otlp

log = logging.getLogger(__name__)

LAST_WORDS_S = 0.5
"""After the last answer: new calls still hear UNAVAILABLE from us, and clients read what was sent. A
process that closes its sockets at once cuts off answers that clients have not read yet."""
LAST_SPANS_S = 2.0
"""For so long a collector may take the last spans; the process is waited for meanwhile."""


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
        self._watch()
        self._tracer = _tracer(chosen)
        access = _access(chosen, self._metrics)
        self._way = passage.Passage(self._engine, self._decoders, self._metrics, access.watch, self._tracer)
        mode = control.Mode(chosen.model_control_mode)
        self._control = control.Control(self._engine, chosen.repository, mode, self._metrics, health=self._tell_health)
        self._poll = poll.Poll(self._control, chosen.repository_poll_s)
        door = wire_repository.Repository(self._control, access.watch)
        with cores.threads_give_way():
            described = describe.Describe(self._engine, mode, allows_shared_memory=chosen.allow_client_shm)
            self._grpc = grpc_server.GrpcPort(self._way, described, door, _transport(chosen), access)
        self._http = http.HttpPort(self._engine, self._metrics, asyncio.get_running_loop())

    async def start(self) -> None:
        """Listen, load, and be ready.

        Raises:
            StartupError: a port is taken, the provider is missing, or a model cannot be served.
        """
        host = self._settings.host
        with cores.threads_give_way():
            ports = await self._grpc.start(host, self._settings.grpc_port, self._settings.health_port)
        if ports.health is not None:
            log.info("plain health on %s:%d", host, ports.health)
        metrics_port = self._http.start(host, self._settings.metrics_port)
        await self._control.start(await self._loader(), self._settings.load_model)
        self._engine.state = engine.State.SERVING
        await self._grpc.set_ready(self._engine.names(), is_ready=True)
        gc.freeze()  # what is there now stays: no need to look through it again and again
        log.info(
            "ready: gRPC on %s:%d, metrics on http://%s:%d/metrics, models: %s",
            *(host, ports.grpc, host, metrics_port, ", ".join(self._engine.names()) or "none yet"),
        )
        if self._control.mode is control.Mode.POLL:
            self._poll.start()

    async def drain(self) -> bool:
        """Readiness first, then no new work, then out: all that was accepted is answered.

        Returns:
            Whether everything has ended; False: some of it was given up when the grace was over.
        """
        chosen = self._settings
        self._engine.state = engine.State.NOT_READY
        await self._grpc.set_ready(self._engine.names(), is_ready=False)
        log.info("draining: not ready; taking work for %g s more", chosen.drain_delay_s)
        await asyncio.sleep(chosen.drain_delay_s)
        self._engine.state = engine.State.DRAINING
        ending = asyncio.create_task(self._end_control())
        loop = asyncio.get_running_loop()
        grace_ends_s = loop.time() + chosen.drain_grace_s
        is_done = await self._way.drain(chosen.drain_grace_s)
        await asyncio.gather(asyncio.sleep(LAST_WORDS_S), self._end_traces())
        if is_done:  # else a run may hang, and the process ends without it
            is_done = await self._end_runs(max(LAST_WORDS_S, grace_ends_s - loop.time()))
        if not ending.done():
            log.info("a load that is under way is broken off")
        totals = self._metrics.totals()
        log.info("drained: %d requests answered with OK, %d with an error", totals.ok, totals.failed)
        return is_done

    async def aclose(self) -> None:
        """Close the ports and end the threads; at once, if `drain` has not been called."""
        await self._end_control()
        await self._grpc.close(0)
        self._http.close()
        self._decoders.close()
        await self._end_traces()

    def _watch(self) -> None:
        """Have the metrics look at what can run out beside the device, and at readiness."""
        self._metrics.watch("decode", self._decoders.busy_seconds)
        self._metrics.watch("loop", occupancy.thread_cpu(threading.get_ident()))
        self._metrics.watch("cpu", occupancy.process_cpu(cores.available()))
        self._metrics.is_ready = lambda: self._engine.is_ready

    def _report(self, model: str, done: int, total: int) -> None:
        """Say how far a model is. Called from the loading thread; replacing one value is whole in itself."""
        self._engine.progress = engine.Progress(model, done, total)

    async def _end_control(self) -> None:
        """Load and unload no more."""
        await self._poll.aclose()
        await self._control.aclose()

    async def _end_runs(self, within_s: float) -> bool:
        """End the models' threads; False when time is up: a run may hang although its caller has long gone."""
        try:
            await asyncio.wait_for(self._engine.aclose(), within_s)
        except TimeoutError:
            log.warning(
                "a run whose caller has gone has not ended after %g s of grace and is cut off",
                self._settings.drain_grace_s,
            )
            return False
        return True

    async def _end_traces(self) -> None:
        """Send the last spans, and take no more; nothing the second time."""
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close, LAST_SPANS_S)

    async def _tell_health(self, model: str, serves: bool) -> None:
        await self._grpc.set_model(model, is_ready=serves and self._engine.is_ready)

    async def _loader(self) -> lifecycle.Loader:
        chosen = self._settings
        provider = await asyncio.to_thread(providers.choose, chosen.device)
        log.info("execution provider: %s (%s)", provider.name, provider.reason)
        self._metrics.provider = provider.name
        if provider.name == providers.CUDA:
            self._metrics.gpu = await asyncio.to_thread(lambda: nvml.find(cuda.Cuda(cuda.load()).pci_bus_id()))
        return lifecycle.Loader(
            session.Options(provider, chosen.threads),
            chosen.queue_samples_max,
            clock.LoopClock(asyncio.get_running_loop()),
            self._metrics,
            self._report,
            self._tracer,
        )


def _tracer(chosen: settings.Settings) -> "otlp.Tracer | None":
    """What traces requests, if that is asked for.

    Raises:
        MissingExtra: OpenTelemetry is not installed.
    """
    if not chosen.trace_endpoint:
        return None
    try:
        from service.tracing import otlp  # noqa: PLC0415 - an extra, and half a second, only for those who trace
    except ImportError as error:
        raise errors.MissingExtra("--trace-endpoint", "OpenTelemetry", "tracing", error) from error
    with cores.threads_give_way():
        tracer = otlp.Tracer(chosen.trace_endpoint, chosen.trace_ratio)
    log.info("tracing: %g of the requests without a context, to %s", chosen.trace_ratio, chosen.trace_endpoint)
    return tracer


def _transport(chosen: settings.Settings) -> transport.Transport:
    names = (field.name for field in dataclasses.fields(transport.Transport))
    return transport.Transport(**{name: getattr(chosen, name) for name in names})


def _access(chosen: settings.Settings, numbers: metrics.Metrics) -> grpc_server.Access:
    """Read what says who may call, and have the metrics tell until when.

    Raises:
        CertificateError, TokenFileError: a file cannot be used.
    """
    known = None if chosen.tokens is None else tokens.Tokens(chosen.tokens)
    watch = guard.Guard(
        known,
        allows_remote_control=chosen.allow_remote_control,
        caller_samples_max=chosen.caller_samples_max,
        count=lambda code: numbers.unknown.update((code,)),
    )
    certificate = None
    if chosen.tls_certificate is not None and chosen.tls_key is not None:
        places = certificates.Files(chosen.tls_certificate, chosen.tls_key, chosen.tls_client_ca)
        certificate = certificates.Certificates(places)
        numbers.certificate_ends_s = certificate.ends_s
    _warn_of_strangers(chosen)
    return grpc_server.Access(watch, certificate, chosen.allow_client_shm)


def _warn_of_strangers(chosen: settings.Settings) -> None:
    """Say what those who reach the port from elsewhere may do."""
    host = chosen.host
    if host == "localhost" or peers.is_loopback(host.strip("[]")):
        return
    if chosen.tokens is None and chosen.tls_client_ca is None:
        log.warning("listening on %s without --tokens or --tls-client-ca: all who reach it may use it", host)
    elif chosen.tls_certificate is None:
        log.warning("listening on %s without TLS: tokens can be read on the way, unless a proxy adds it", host)


async def run(chosen: settings.Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain, and end the process: status 1 if something had to be cut off.

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
            is_done = await server.drain()
            _leave(0 if is_done else 1)
        else:
            log.info("asked to stop while starting")
            starting.cancel()
    finally:
        stopping.cancel()
        await server.aclose()


def _leave(status: int) -> NoReturn:
    """End the process as it is, and leave the sockets to the system.

    Calls that come while gRPC shuts down are told CANCELLED by it, which nobody retries; those that come
    when a process ends fail with UNAVAILABLE. What has to be written before goes into `drain`.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
