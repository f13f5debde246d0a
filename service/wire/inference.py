"""ModelInfer and ModelStreamInfer: a request's way through the server, timed stage by stage.

Path: client → **inference** → tensors → images → engine → replies → client.
"""

import asyncio
import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
from google.protobuf import message as protobuf_message

from protos import inference_pb2
from service import engine, errors, metrics
from service.images import pool
from service.models import description
from service.wire import parameters, replies, status, stream, tensors

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Request = inference_pb2.ModelInferRequest
Message = stream.Message


@dataclasses.dataclass(frozen=True, slots=True)
class Parser:
    """Parses request messages up to a size in bytes. Never raises: gRPC would answer for us."""

    message_bytes_max: int

    def __call__(self, message: bytes) -> Message:
        """Return the request, or the error to answer with."""
        if len(message) > self.message_bytes_max:
            return errors.MessageTooLarge(len(message), self.message_bytes_max)
        try:
            return Request.FromString(message)
        except protobuf_message.DecodeError:
            return errors.BadRequest(
                f"{len(message)} bytes that are no inference.ModelInferRequest; "
                "send that message, as protos/inference.proto has it"
            )


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

    async def infer(self, request: Message, context: Context) -> inference_pb2.ModelInferResponse:
        """Answer one request; any error becomes the call's status."""
        try:
            with self._accepted():
                return await self._answer(request, stream.caller(context), context.time_remaining())
        except Exception as error:  # all of them: this is the edge
            return _failed(context, error)

    async def stream(self, requests: AsyncIterator[Message], context: Context) -> None:
        """Answer many requests, each when it is finished; an error is an answer, the stream goes on.

        At most `stream_messages_max` are unanswered; reading stops there. On drain, what has been
        read is answered, then the stream ends UNAVAILABLE.
        """
        try:
            with self._accepted():
                opened = stream.Stream(self.answer_in_stream, context, self._stream_messages_max)
                if not await opened.run(requests, self._draining):
                    raise errors.NotServing(engine.State.DRAINING.value)
        except errors.NotServing as error:
            await context.abort(*status.explain(error))

    async def drain(self, grace_s: float) -> None:
        """Read no more from streams; return when everything accepted is answered, or time is up."""
        self._draining.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._none_open.wait(), grace_s)
        if self._open:
            log.warning("%d calls and streams are still open after %g s of grace and are cut off", self._open, grace_s)

    @contextlib.contextmanager
    def _accepted(self) -> Iterator[None]:
        """Count a call or a stream as open, unless the server is starting or draining."""
        try:
            self._engine.require_serving()
        except errors.NotServing as error:
            self._metrics.requests.labels("", "", status.code(error).name).inc()
            raise
        self._open += 1
        self._none_open.clear()
        try:
            yield
        finally:
            self._open -= 1
            if not self._open:
                self._none_open.set()

    async def answer_in_stream(self, request: Message, caller: str) -> inference_pb2.ModelStreamInferResponse:
        """Return the stream's answer to a message, whatever happens."""
        try:
            return inference_pb2.ModelStreamInferResponse(infer_response=await self._answer(request, caller, None))
        except Exception as error:  # all of them: this is the edge
            _, sentence = status.explain(error)
            reply = inference_pb2.ModelStreamInferResponse(error_message=sentence)
            reply.infer_response.id = request.id if isinstance(request, Request) else ""
            if isinstance(error, errors.Refused):
                reply.infer_response.parameters[status.PUSHBACK].int64_param = status.pushback_ms(error)
            return reply

    async def _answer(
        self, request: Message, caller: str, remaining_s: float | None
    ) -> inference_pb2.ModelInferResponse:
        """Answer, and count the outcome: OK, the error's code, or CANCELLED."""
        started_s = time.perf_counter()
        model: description.Description | None = None
        try:
            if isinstance(request, errors.FoveaError):
                raise request
            model = self._engine.model(request.model_name, request.model_version)
            deadline_s = math.inf if remaining_s is None else time.monotonic() + remaining_s
            asked = parameters.read(request, caller, deadline_s)
            return await self._run(request, model, asked, started_s)
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
        self, request: Request, model: description.Description, asked: engine.Caller, started_s: float
    ) -> inference_pb2.ModelInferResponse:
        inputs = tensors.read(request, model)
        wanted = replies.requested(request, model)
        waits_s = self._decoders.decode_s_estimate(len(inputs.images))
        decode_s = 0.0
        with self._engine.admit(model, inputs.samples, asked, decode_s=waits_s) as place:
            if inputs.images:
                assert model.image is not None, "tensors.read takes images only for an image model"
                decoded = await self._decoders.decode(inputs.images, model.image)
                inputs.tensors[model.image.input] = decoded.rows_nhwc
                decode_s = decoded.decode_s
            answer = await place.submit(inputs.tensors, frozenset(output.name for output in wanted))
        replied_s = time.perf_counter()
        reply = replies.response(request.id, model, wanted, answer.outputs)
        ended_s = time.perf_counter()
        stages = metrics.Stages(
            decode_s, answer.queue_s, answer.gather_s, answer.run_s, ended_s - replied_s, ended_s - started_s
        )
        self._engine.numbers(model).succeeded(inputs.samples, stages, had_images=bool(inputs.images))
        return reply

    def _count_failure(self, model: description.Description | None, code: str, started_s: float) -> None:
        if model is None:
            self._metrics.requests.labels("", "", code).inc()
        else:
            self._engine.numbers(model).failed(code, time.perf_counter() - started_s)


def _failed(context: Context, error: Exception) -> inference_pb2.ModelInferResponse:
    """Make an error the call's status. Not by `abort`, which raises: a refusal should cost no more than an answer."""
    code, sentence = status.explain(error)
    context.set_code(code)
    context.set_details(sentence)
    if isinstance(error, errors.Refused):
        context.set_trailing_metadata(((status.PUSHBACK, str(status.pushback_ms(error))),))
    return inference_pb2.ModelInferResponse()
