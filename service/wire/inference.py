"""ModelInfer and ModelStreamInfer: a request's way through the server, timed stage by stage.

Path: client → messages → **inference** → tensors → passage → replies → client.
"""

import math
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import grpc
import grpc.aio

from service import engine, errors
from service.models import description
from service.tracing import trace as tracing
from service.wire import failures, messages, parameters, passage, regions, replies, stream, tensors

Context = grpc.aio.ServicerContext[Any, Any]

_UNARY, _STREAM = "inference.GRPCInferenceService/ModelInfer", "inference.GRPCInferenceService/ModelStreamInfer"
_STRICT = ("triton_grpc_error", "true")
"""Metadata of a stream whose client wants an error as the stream's status, which ends it, not as an answer."""


class Known(NamedTuple):
    """What a header says, checked against a model."""

    model: description.Description
    layout: tensors.Layout
    replies: replies.Replies
    shared: tuple[regions.Part | None, ...]
    """Where each input is in shared memory, None for one that is in the message; empty: all are in the message."""
    named: tuple[regions.Part, ...]
    """All of it that inputs and outputs name."""


class Inference:
    """The two inference calls. Holds nothing of its own."""

    def __init__(self, way: passage.Passage, shared: regions.Regions, *, stream_messages_max: int) -> None:
        self._way = way
        self._regions = shared
        self._stream_messages_max = stream_messages_max

    async def infer(self, request: messages.Message, context: Context) -> bytes:
        """Answer one request with a serialized ModelInferResponse; any error becomes the call's status."""
        try:
            self._way.enter(context)
            try:
                return await self._answer(request, stream.caller(context), context.time_remaining(), in_stream=False)
            finally:
                self._way.leave()
        except Exception as error:  # all of them: this is the edge
            return failures.of_call(context, error)

    async def stream(self, requests: AsyncIterator[messages.Message], context: Context) -> None:
        """Answer many requests, each when it is finished; see stream.serve."""
        is_strict = _STRICT in (context.invocation_metadata() or ())
        answer = self._answer_strictly if is_strict else self.answer_in_stream
        await stream.serve(self._way, answer, requests, context, self._stream_messages_max)

    async def answer_in_stream(self, request: messages.Message, caller: str) -> bytes:
        """Return the stream's answer to a message, a serialized ModelStreamInferResponse, whatever happens."""
        try:
            return await self._answer(request, caller, None, in_stream=True)
        except Exception as error:  # all of them: this is the edge
            return failures.in_stream(request.id, error)

    async def _answer_strictly(self, request: messages.Message, caller: str) -> bytes:
        """Return the stream's answer to a message; its error ends the stream."""
        return await self._answer(request, caller, None, in_stream=True)

    async def _answer(
        self, request: messages.Message, caller: str, remaining_s: float | None, *, in_stream: bool
    ) -> bytes:
        """Answer, and count the outcome: OK, the error's code, or CANCELLED."""
        started_s = time.perf_counter()
        model: description.Description | None = None
        trace: tracing.Trace | None = None
        try:
            if isinstance(request, messages.Unreadable):
                raise request.error
            trace = self._way.trace(_STREAM if in_stream else _UNARY, request.id, request.parameters)
            header = request.header
            model = self._way.model(header.model, header.version)
            said = parameters.read(request.parameters)
            known: Known = header.known
            if known is None or known.model is not model:
                known = header.known = self._check(header, model)
            deadline_s = math.inf if remaining_s is None else time.monotonic() + remaining_s
            asked = engine.Caller(caller, said.priority, deadline_s, said.timeout_s)
            if known.named:
                self._regions.require_own(known.named, caller)
            samples = known.layout.samples
            rows, images = known.layout.read(self._raws(request, known) if known.shared else request.raws)
            passed = await self._way.through(model, asked, samples, rows, images, known.replies.names, trace)
            ran_s = time.perf_counter()
            make = known.replies.in_stream if in_stream else known.replies.response
            reply = make(request.id, passed.outputs)
        except BaseException as error:  # cancellation too
            if isinstance(error, errors.BadImage) and model is not None and model.image is not None:
                error.field = f"{errors.path('inputs', model.image.input)}[{error.index}]"
            self._way.failed(model, error, started_s, request.id, trace)
            raise
        ended_s = time.perf_counter()
        self._way.succeeded(model, samples, passed, ended_s - ran_s, ended_s - started_s, trace)
        return reply

    def _check(self, header: messages.Header, model: description.Description) -> Known:
        """Check what a header says, once for all requests that have it."""
        parts = tuple(regions.part(tensor.name, tensor.parameters) for tensor in header.message.inputs)
        shared = parts if any(parts) else ()
        layout = tensors.Layout(header.message, len(shared) or header.raws, model)
        wanted = replies.requested(header.message, model)
        named = (*filter(None, shared), *filter(None, (output.shared for output in wanted)))
        return Known(model, layout, replies.Replies(model, wanted, self._regions), shared, named)

    def _raws(self, request: messages.Request, known: Known) -> list[memoryview]:
        """The raw contents of all inputs, where some are in shared memory: the message's are for the others, in order.

        Raises:
            BadRequest: another number of them, or a region that is not registered.
        """
        in_message = sum(part is None for part in known.shared)
        if len(request.raws) != in_message:
            raise errors.BadRequest(
                f"{len(request.raws)} raw_input_contents for {in_message} inputs that are not in shared memory; "
                "send one for each, in their order",
                "raw_input_contents",
            )
        rest = iter(request.raws)
        return [next(rest) if part is None else self._regions.view(part) for part in known.shared]
