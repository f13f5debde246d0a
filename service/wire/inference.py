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
from service.models import lifecycle
from service.wire import replies, status, tensors

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Request = inference_pb2.ModelInferRequest


Message = Request | errors.FoveaError
"""A request, or what is wrong with the message that should have been one."""


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
                return await self._answer(request, context.time_remaining())
        except Exception as error:  # all of them: this is the edge
            await context.abort(*status.explain(error))

    async def stream(self, requests: AsyncIterator[Message], context: Context) -> None:
        """Answer many requests, each when it is finished; an error is an answer, the stream goes on.

        At most `stream_messages_max` are unanswered; reading stops there. On drain, what has been
        read is answered, then the stream ends UNAVAILABLE.
        """
        try:
            with self._accepted():
                stream = _Stream(self, context, self._stream_messages_max)
                if not await stream.run(requests, self._draining):
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

    async def answer_in_stream(self, request: Message) -> inference_pb2.ModelStreamInferResponse:
        """Return the stream's answer to a message, whatever happens."""
        try:
            return inference_pb2.ModelStreamInferResponse(infer_response=await self._answer(request, None))
        except Exception as error:  # all of them: this is the edge
            _, sentence = status.explain(error)
            reply = inference_pb2.ModelStreamInferResponse(error_message=sentence)
            reply.infer_response.id = request.id if isinstance(request, Request) else ""
            return reply

    async def _answer(self, request: Message, remaining_s: float | None) -> inference_pb2.ModelInferResponse:
        """Answer, and count the outcome: OK, the error's code, or CANCELLED."""
        started_s = time.perf_counter()
        model: lifecycle.ServedModel | None = None
        try:
            if isinstance(request, errors.FoveaError):
                raise request
            model = self._engine.model(request.model_name, request.model_version)
            return await self._run(request, model, remaining_s, started_s)
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
        self, request: Request, model: lifecycle.ServedModel, remaining_s: float | None, started_s: float
    ) -> inference_pb2.ModelInferResponse:
        inputs = tensors.read(request, model)
        wanted = replies.requested(request, model)
        deadline_s = asyncio.get_running_loop().time() + min(_timeout_s(request), _seconds(remaining_s))
        decode_s = 0.0
        with model.batcher.admit(inputs.samples) as place:
            if inputs.images:
                assert model.image is not None, "tensors.read takes images only for an image model"
                decoded = await self._decoders.decode(inputs.images, model.image)
                inputs.tensors[model.image.input] = decoded.rows_nhwc
                decode_s = decoded.decode_s
            answer = await place.submit(inputs.tensors, frozenset(output.name for output in wanted), deadline_s)
        replied_s = time.perf_counter()
        reply = replies.response(request.id, model, wanted, dict(answer.outputs))
        ended_s = time.perf_counter()
        stages = metrics.Stages(
            decode_s, answer.queue_s, answer.gather_s, answer.run_s, ended_s - replied_s, ended_s - started_s
        )
        model.numbers.succeeded(inputs.samples, stages, had_images=bool(inputs.images))
        return reply

    def _count_failure(self, model: lifecycle.ServedModel | None, code: str, started_s: float) -> None:
        if model is None:
            self._metrics.requests.labels("", "", code).inc()
        else:
            model.numbers.failed(code, time.perf_counter() - started_s)


class _Stream:
    """One open stream: this task reads, a task per message answers, one task writes.

    Mutable state: `_finished` and `_answering`; touched only on the event loop.
    """

    def __init__(self, inference: Inference, context: Context, messages_max: int) -> None:
        self._inference = inference
        self._context = context
        self._room = asyncio.Semaphore(messages_max)
        self._finished: asyncio.Queue[inference_pb2.ModelStreamInferResponse | None] = asyncio.Queue()
        self._answering: set[asyncio.Task[None]] = set()

    async def run(self, requests: AsyncIterator[Message], draining: asyncio.Event) -> bool:
        """Serve until the client has finished (True) or the server drains (False); all read is answered."""
        writer = asyncio.create_task(self._write())
        drain = asyncio.create_task(draining.wait())
        try:
            is_over = await self._read(aiter(requests), drain, writer)
            await asyncio.gather(*self._answering)
            self._finished.put_nowait(None)
            await writer
            return is_over
        finally:  # the client has gone, or writing failed: nobody waits for the rest
            for task in (writer, drain, *self._answering):
                task.cancel()

    async def _read(
        self,
        requests: AsyncIterator[Message],
        drain: asyncio.Task[bool],
        writer: asyncio.Task[None],
    ) -> bool:
        reader = asyncio.create_task(self._read_all(requests))
        done, _ = await asyncio.wait((reader, drain, writer), return_when=asyncio.FIRST_COMPLETED)
        if reader in done:
            reader.result()
            return True
        reader.cancel()
        await asyncio.wait((reader,))
        if writer in done:
            writer.result()
        return False

    async def _read_all(self, requests: AsyncIterator[Message]) -> None:
        loop = asyncio.get_running_loop()
        await self._room.acquire()
        async for request in requests:
            task = loop.create_task(self._answer(request))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
            await self._room.acquire()

    async def _answer(self, request: Message) -> None:
        self._finished.put_nowait(await self._inference.answer_in_stream(request))

    async def _write(self) -> None:
        while (reply := await self._finished.get()) is not None:
            await self._context.write(reply)
            self._room.release()


def _seconds(remaining_s: float | None) -> float:
    return math.inf if remaining_s is None else remaining_s


def _timeout_s(request: Request) -> float:
    """The request's `timeout` parameter in seconds; infinity without one.

    Raises:
        BadRequest: not an int64, negative; or a request parameter that is not supported.
    """
    timeout_s = math.inf
    for name, parameter in request.parameters.items():
        if name == "timeout":
            choice = parameter.WhichOneof("parameter_choice")
            microseconds = parameter.int64_param if choice == "int64_param" else parameter.uint64_param
            if choice not in {"int64_param", "uint64_param"} or microseconds < 0:
                raise errors.BadRequest("parameter 'timeout' must be an int64 of microseconds, at least 0")
            timeout_s = microseconds / 1e6 if microseconds else math.inf
        elif name not in _IGNORED_PARAMETERS:
            raise errors.BadRequest(f"parameter {name!r} is not supported; known: timeout")
    return timeout_s


# Sent by stock clients with every request; they change nothing for models with one response each.
_IGNORED_PARAMETERS = frozenset({"triton_enable_empty_final_response", "binary_data_output"})
