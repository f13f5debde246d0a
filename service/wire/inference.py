"""ModelInfer and ModelStreamInfer: a request's way through the server, timed stage by stage.

Path: client → messages → **inference** → tensors → images → engine → replies → client.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import grpc
import grpc.aio

from protos import inference_pb2
from service import engine, errors, metrics
from service.images import pool
from service.models import description
from service.wire import messages, parameters, replies, status, stream, tensors

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class Known(NamedTuple):
    """What a header says, checked against a model."""

    model: description.Description
    layout: tensors.Layout
    replies: replies.Replies
    parameters: parameters.Parameters


class Inference:
    """The two inference calls.

    Mutable state: `_open`, the accepted calls and open streams, and whether it drains; touched only
    on the event loop.
    """

    def __init__(
        self,
        served: engine.Engine,
        decoders: pool.DecodePool,
        numbers: metrics.Metrics,
        *,
        stream_messages_max: int,
    ) -> None:
        self._engine = served
        self._decoders = decoders
        self._metrics = numbers
        self._stream_messages_max = stream_messages_max
        self._draining = asyncio.Event()
        self._open = 0
        self._none_open = asyncio.Event()
        self._none_open.set()

    async def infer(self, request: messages.Message, context: Context) -> bytes:
        """Answer one request with a serialized ModelInferResponse; any error becomes the call's status."""
        try:
            self._enter()
            try:
                return await self._answer(request, stream.caller(context), context.time_remaining(), in_stream=False)
            finally:
                self._leave()
        except Exception as error:  # all of them: this is the edge
            return _failed(context, error)

    async def stream(self, requests: AsyncIterator[messages.Message], context: Context) -> None:
        """Answer many requests, each when it is finished; an error is an answer, the stream goes on.

        At most `stream_messages_max` are unanswered; reading stops there. On drain, what has been
        read is answered, then the stream ends UNAVAILABLE.
        """
        try:
            self._enter()
            try:
                opened = stream.Stream(self.answer_in_stream, context, self._stream_messages_max)
                if not await opened.run(requests, self._draining):
                    raise errors.NotServing(engine.State.DRAINING.value)
            finally:
                self._leave()
        except errors.NotServing as error:
            await context.abort(*status.explain(error))

    async def drain(self, grace_s: float) -> None:
        """Read no more from streams; return when everything accepted is answered, or time is up."""
        self._draining.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._none_open.wait(), grace_s)
        if self._open:
            log.warning("%d calls and streams are still open after %g s of grace and are cut off", self._open, grace_s)

    def _enter(self) -> None:
        """Count a call or a stream as open, unless the server is starting or draining."""
        try:
            self._engine.require_serving()
        except errors.NotServing as error:
            self._metrics.unknown[status.code(error).name] += 1
            raise
        self._open += 1
        self._none_open.clear()

    def _leave(self) -> None:
        self._open -= 1
        if not self._open:
            self._none_open.set()

    async def answer_in_stream(self, request: messages.Message, caller: str) -> bytes:
        """Return the stream's answer to a message, a serialized ModelStreamInferResponse, whatever happens."""
        try:
            return await self._answer(request, caller, None, in_stream=True)
        except Exception as error:  # all of them: this is the edge
            return _failed_in_stream(request, error)

    async def _answer(
        self, request: messages.Message, caller: str, remaining_s: float | None, *, in_stream: bool
    ) -> bytes:
        """Answer, and count the outcome: OK, the error's code, or CANCELLED."""
        started_s = time.perf_counter()
        model: description.Description | None = None
        try:
            if isinstance(request, errors.FoveaError):
                raise request
            header = request.header
            model = self._engine.model(header.model, header.version)
            known: Known = header.known
            if known is None or known.model is not model:
                known = header.known = _check(header, model)
            deadline_s = math.inf if remaining_s is None else time.monotonic() + remaining_s
            asked = engine.Caller(caller, known.parameters.priority, deadline_s, known.parameters.timeout_s)
            return await self._run(request, known, asked, started_s, in_stream=in_stream)
        except errors.FoveaError as error:
            self._count_failure(model, status.code(error).name, started_s)
            raise
        except asyncio.CancelledError:
            self._count_failure(model, grpc.StatusCode.CANCELLED.name, started_s)
            raise
        except Exception:
            self._count_failure(model, grpc.StatusCode.INTERNAL.name, started_s)
            raise

    async def _run(
        self, request: messages.Request, known: Known, asked: engine.Caller, started_s: float, *, in_stream: bool
    ) -> bytes:
        model, samples = known.model, known.layout.samples
        rows, images = known.layout.read(request.raws)
        decode_s = 0.0
        waits_s = self._decoders.decode_s_estimate(len(images)) if images else 0.0
        with self._engine.admit(model, samples, asked, decode_s=waits_s) as place:
            if images:
                assert model.image is not None, "a layout has images only for an image model"
                decoded = await self._decoders.decode(images, model.image)
                rows[model.image.input] = decoded.rows_nhwc
                decode_s = decoded.decode_s
            answer = await place.submit(rows, known.replies.names)
        replied_s = time.perf_counter()
        make = known.replies.in_stream if in_stream else known.replies.response
        reply = make(request.id, answer.outputs)
        ended_s = time.perf_counter()
        stages = metrics.Stages(
            decode_s, answer.queue_s, answer.gather_s, answer.run_s, ended_s - replied_s, ended_s - started_s
        )
        self._engine.numbers(model).succeeded(samples, stages, had_images=bool(images))
        return reply

    def _count_failure(self, model: description.Description | None, code: str, started_s: float) -> None:
        if model is None:
            self._metrics.unknown[code] += 1
        else:
            self._engine.numbers(model).failed(code, time.perf_counter() - started_s)


def _check(header: messages.Header, model: description.Description) -> Known:
    """Check what a header says, once for all requests that have it."""
    said = parameters.read(header.message)
    layout = tensors.Layout(header.message, header.raws, model)
    return Known(model, layout, replies.Replies(model, replies.requested(header.message, model)), said)


def _failed(context: Context, error: Exception) -> bytes:
    """Make an error the call's status. Not by `abort`, which raises: a refusal should cost no more than an answer."""
    code, sentence = status.explain(error)
    context.set_code(code)
    context.set_details(sentence)
    if isinstance(error, errors.Refused):
        context.set_trailing_metadata(((status.PUSHBACK, str(status.pushback_ms(error))),))
    return b""


def _failed_in_stream(request: messages.Message, error: Exception) -> bytes:
    """The answer that says so: the sentence, the request's id, the code's name, and when to try again."""
    code, sentence = status.explain(error)
    reply = inference_pb2.ModelStreamInferResponse(error_message=sentence)
    reply.infer_response.id = request.id if isinstance(request, messages.Request) else ""
    reply.infer_response.parameters[status.CODE].string_param = code.name
    if isinstance(error, errors.Refused):
        reply.infer_response.parameters[status.PUSHBACK].int64_param = status.pushback_ms(error)
    serialized: bytes = reply.SerializeToString()
    return serialized
