"""A request's way through the server, between its parsing and its answer: the same for every protocol.

Path: inference, images → **passage** → images.pool → engine → back.

It also knows what is open, so that a drain ends when everything that was accepted is answered.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from protos import inference_pb2
from service import engine, errors, logs, metrics
from service.images import decode, pool
from service.models import description
from service.tracing import trace as tracing
from service.wire import parameters as told
from service.wire import status
from service.wire.security import guard

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


_LOGGED_IN_FULL = frozenset({grpc.StatusCode.INTERNAL.name})
"""Codes of failures that `status` logs with their cause; the others are their callers' business, and news only for
somebody who looks for faults."""


class Passed(NamedTuple):
    """What came of a request, and how long its stages took, in seconds."""

    outputs: Mapping[str, NDArray[np.generic]]
    decode_s: float
    queue_s: float
    gather_s: float
    run_s: float


class Passage:
    """The way through the server.

    Mutable state: the accepted calls and open streams, and whether the server drains; touched only on the
    event loop.
    """

    def __init__(
        self,
        served: engine.Engine,
        decoders: pool.DecodePool,
        numbers: metrics.Metrics,
        watch: guard.Guard,
        tracer: tracing.Tracer | None = None,
    ) -> None:
        self.draining = asyncio.Event()
        """Set when no more is read from streams."""
        self.tracer = tracer
        """Makes traces of requests; None: nothing is traced."""
        self._engine = served
        self._decoders = decoders
        self._metrics = numbers
        self._guard = watch
        self._open = 0
        self._none_open = asyncio.Event()
        self._none_open.set()

    def enter(self, context: Context) -> None:
        """Count a call or a stream as open, until `leave`. Called by the task that answers it.

        Raises:
            NotServing: the server is starting or draining.
        """
        try:
            self._engine.require_serving()
        except errors.NotServing as error:
            self._metrics.unknown[status.code(error).name] += 1
            raise
        if self.tracer is not None:
            self.tracer.arrives(context.invocation_metadata() or ())
        self._open += 1
        self._none_open.clear()

    def leave(self) -> None:
        """Count it out again."""
        self._open -= 1
        if not self._open:
            self._none_open.set()

    async def drain(self, grace_s: float) -> bool:
        """Read no more from streams; return when everything accepted is answered, or False when time is up."""
        self.draining.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._none_open.wait(), grace_s)
        if self._open:
            log.warning("%d calls and streams are still open after %g s of grace and are cut off", self._open, grace_s)
        return not self._open

    def model(self, name: str, version: str) -> description.Description:
        """Return a served model.

        Raises:
            ModelNotFound: see engine.Engine.model.
            NotAuthenticated, NotPermitted: see guard.Guard.require_model.
        """
        self._guard.require_model(name)
        return self._engine.model(name, version)

    def trace(
        self, method: str, request_id: str, parameters: inference_pb2.ModelInferRequest | None = None
    ) -> tracing.Trace | None:
        """Return the trace of a request that begins now; None: it is not traced.

        Args:
            method: service and method of the call or stream that it came in.
            request_id: as its client numbers it.
            parameters: may hold a context of its own; see service.tracing.
        """
        if self.tracer is None:
            return None
        return self.tracer.begin(method, request_id, told.trace_context(parameters) if parameters else {})

    async def through(
        self,
        model: description.Description,
        asked: engine.Caller,
        samples: int,
        rows: dict[str, NDArray[np.generic]],
        images: Sequence[decode.Source],
        names: frozenset[str],
        trace: tracing.Trace | None = None,
    ) -> Passed:
        """Admit a request, decode its images, and wait for its outputs.

        Args:
            model: for whom it is.
            asked: who asks, how urgently, until when.
            samples: its rows.
            rows: its inputs; those of `images` are added.
            images: of an image model, to be decoded into its image input.
            names: of the outputs wanted.
            trace: of the request, if it is traced.

        Raises:
            FoveaError: refused, late, an image that does not decode, or a run that failed.
        """
        decode_s = 0.0
        waits_s = self._decoders.decode_s_estimate(len(images)) if images else 0.0
        with (
            self._guard.held(asked.caller, samples),
            self._engine.admit(model, samples, asked, decode_s=waits_s) as place,
        ):
            if trace is not None:
                trace.admitted((model.name, model.version), samples)
                place.trace = trace
            if images:
                assert model.image is not None, "only an image model is sent images"
                decoded = await self._decoders.decode(images, model.image)
                rows[model.image.input] = decoded.rows_nhwc
                decode_s = decoded.decode_s
                if trace is not None:
                    trace.decoded(decode_s)
            if trace is not None:
                trace.submitted()
            outputs, queue_s, gather_s, run_s = await place.submit(rows, names)
        return Passed(outputs, decode_s, queue_s, gather_s, run_s)

    def succeeded(
        self,
        model: description.Description,
        samples: int,
        passed: Passed,
        reply_s: float,
        total_s: float,
        trace: tracing.Trace | None = None,
    ) -> None:
        """Count a request that is answered."""
        stages = metrics.Stages(passed.decode_s, passed.queue_s, passed.gather_s, passed.run_s, reply_s, total_s)
        self._engine.numbers(model).succeeded(samples, stages, had_images=passed.decode_s > 0)
        if trace is not None and self.tracer is not None:
            self.tracer.end(trace, tracing.End("OK", reply_s))

    def failed(
        self,
        model: description.Description | None,
        error: BaseException,
        started_s: float,
        request_id: str = "",
        trace: tracing.Trace | None = None,
    ) -> None:
        """Count a request that is answered with an error, or whose caller went away (CANCELLED).

        From here on, what this task logs says which request it is about.
        """
        code = _code(error).name
        if model is None:
            self._metrics.unknown[code] += 1
        else:
            self._engine.numbers(model).failed(code, time.perf_counter() - started_s, error)
        trace_id = trace.id if trace is not None else ""
        if self.tracer is not None:
            trace_id = trace_id or self.tracer.current_id()
            if trace is not None:
                self.tracer.end(trace, tracing.End(code, error=error))
        logs.concerns(logs.Request(request_id, "" if model is None else model.name, trace_id))
        if code not in _LOGGED_IN_FULL:
            log.debug("%s: %s", code, str(error) or type(error).__name__)


def _code(error: BaseException) -> grpc.StatusCode:
    if isinstance(error, errors.FoveaError):
        return status.code(error)
    is_cancelled = isinstance(error, asyncio.CancelledError)
    return grpc.StatusCode.CANCELLED if is_cancelled else grpc.StatusCode.INTERNAL
