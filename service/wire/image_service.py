"""fovea.v1.ImageService: images in, answers for people out (protos/images.proto).

Path: client → **image_service** → passage → verdicts → client.
"""

import dataclasses
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import grpc
import grpc.aio
from google.protobuf import message as protobuf_message

from protos import images_pb2
from service import engine, errors
from service.images import decode
from service.models import description
from service.tracing import trace as tracing
from service.wire import failures, messages, passage, status, stream, verdicts

SERVICE = "fovea.v1.ImageService"

_ID = 1
"""The field of a stream's requests that is their id."""

Context = grpc.aio.ServicerContext[Any, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Verb:
    """One of the calls: how its requests name a model, and how it answers."""

    name: str
    model: Callable[[Any], tuple[str, str]]
    """Name and version in a request."""
    wanted: Callable[[Any, description.Description], list[str]]
    """The outputs that a request needs; raises BadRequest."""
    answer: Callable[[Any, description.Description, verdicts.Outputs], Awaitable[Any]]
    """The response, without who answered."""

    def message(self, kind: str) -> Any:
        """Return a message class of this call, such as Request or StreamResponse."""
        return getattr(images_pb2, f"{self.name}{kind}")


VERBS = (
    Verb("Classify", lambda asked: (asked.model, asked.model_version), verdicts.of_scores, verdicts.classify),
    Verb("Features", lambda asked: (asked.model, asked.model_version), verdicts.of_layers, verdicts.features),
    Verb("Filter", lambda asked: (asked.bank, asked.bank_version), verdicts.of_responses, verdicts.filtered),
)


class _Asker(NamedTuple):
    """Who asks, how long the answer may take, and what the request is called."""

    caller: str
    remaining_s: float | None
    method: str
    request_id: str = ""


class ImageService:
    """The calls. Holds nothing of its own."""

    def __init__(self, way: passage.Passage, *, message_bytes_max: int, stream_messages_max: int) -> None:
        self._way = way
        self._message_bytes_max = message_bytes_max
        self._stream_messages_max = stream_messages_max

    def handlers(self) -> Any:
        """Return what a gRPC server is given."""
        methods: dict[str, Any] = {}
        for verb in VERBS:
            methods[verb.name] = grpc.unary_unary_rpc_method_handler(
                self._call(verb), request_deserializer=self._parser(verb.message("Request"))
            )
            methods[f"{verb.name}Stream"] = grpc.stream_stream_rpc_method_handler(
                self._stream(verb), request_deserializer=self._parser(verb.message("StreamRequest"))
            )
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _parser(self, kind: Any) -> Callable[[bytes], Any]:
        def parse(raw: bytes) -> Any:
            """Return the message, or the error to answer with."""
            if len(raw) > self._message_bytes_max:
                error: errors.FoveaError = errors.MessageTooLarge(len(raw), self._message_bytes_max)
                return messages.Unreadable(error, messages.id_of(raw, _ID))
            try:
                return kind.FromString(raw)
            except protobuf_message.DecodeError:
                error = errors.BadRequest(
                    f"{len(raw)} bytes that are no {kind.DESCRIPTOR.full_name}; "
                    "send that message, as protos/images.proto has it"
                )
                return messages.Unreadable(error, messages.id_of(raw, _ID))

        return parse

    def _call(self, verb: Verb) -> Callable[[Any, Context], Awaitable[bytes]]:
        async def call(request: Any, context: Context) -> bytes:
            try:
                self._way.enter(context)
                try:
                    asker = _Asker(stream.caller(context), context.time_remaining(), f"{SERVICE}/{verb.name}")
                    answer = await self._answer(verb, request, asker)
                    return failures.serialized(answer)
                finally:
                    self._way.leave()
            except Exception as error:  # all of them: this is the edge
                return failures.of_call(context, error)

        return call

    def _stream(self, verb: Verb) -> Callable[[AsyncIterator[Any], Context], Awaitable[None]]:
        async def answer(request: Any, caller: str) -> bytes:
            """Answer a message, whatever happens."""
            reply = verb.message("StreamResponse")()
            try:
                reply.id = request.id
                if isinstance(request, messages.Unreadable):
                    raise request.error
                if not request.timeout_seconds >= 0:  # NaN too
                    raise errors.BadRequest(
                        f"timeout_seconds is {request.timeout_seconds}; send a number of at least 0, 0 for any time",
                        "timeout_seconds",
                    )
                method = f"{SERVICE}/{verb.name}Stream"
                asker = _Asker(caller, request.timeout_seconds or None, method, request.id)
                reply.response.CopyFrom(await self._answer(verb, request.request, asker))
            except Exception as error:  # all of them: this is the edge
                code, reply.failure.message = status.explain(error)
                reply.failure.code = code.name
                if isinstance(error, errors.Refused):
                    reply.failure.retry_pushback_ms = status.pushback_ms(error)
            return failures.serialized(reply)

        async def call(requests: AsyncIterator[Any], context: Context) -> None:
            await stream.serve(self._way, answer, requests, context, self._stream_messages_max)

        return call

    async def _answer(self, verb: Verb, request: Any, asker: _Asker) -> Any:
        """Answer a request, and count the outcome."""
        started_s = time.perf_counter()
        model: description.Description | None = None
        trace: tracing.Trace | None = None
        try:
            if isinstance(request, messages.Unreadable):
                raise request.error
            trace = self._way.trace(asker.method, asker.request_id)
            model = self._way.model(*verb.model(request))
            wanted = verb.wanted(request, model)
            deadline_s = math.inf if asker.remaining_s is None else time.monotonic() + asker.remaining_s
            asked = engine.Caller(asker.caller, 0, deadline_s)
            images = [_image(request.image, model)]
            passed = await self._way.through(model, asked, 1, {}, images, frozenset(wanted), trace)
            ran_s = time.perf_counter()
            answer = await verb.answer(request, model, [(name, passed.outputs[name]) for name in wanted])
        except BaseException as error:  # cancellation too
            if isinstance(error, errors.BadImage):
                error.field = f"image.{request.image.WhichOneof('content')}"
            self._way.failed(model, error, started_s, asker.request_id, trace)
            raise
        ended_s = time.perf_counter()
        self._way.succeeded(model, 1, passed, ended_s - ran_s, ended_s - started_s, trace)
        _sign(answer.answered, model, passed, ended_s - started_s)
        return answer


def _image(image: images_pb2.Image, model: description.Description) -> decode.Source:
    """Return what is to be decoded.

    Raises:
        BadRequest: no image, or a model that takes none.
    """
    if model.image is None or len(model.inputs) != 1:
        raise errors.BadRequest(
            f"model {model.name!r} takes no images but {', '.join(model.inputs)}; export it with an image input "
            "(`fovea export`), or send its tensors to inference.GRPCInferenceService",
            "model",
        )
    content = image.WhichOneof("content")
    if content is None:
        raise errors.BadRequest("the request has no image; set image.file or image.pixels", "image")
    if content == "file":
        file: bytes = image.file
        return file
    pixels = image.pixels
    return decode.Pixels(pixels.width, pixels.height, pixels.channels, pixels.data)


def _sign(
    answered: images_pb2.Answered, model: description.Description, passed: passage.Passed, total_s: float
) -> None:
    answered.model, answered.model_version = model.name, model.version
    answered.total_seconds = total_s
    answered.decode_seconds, answered.queue_seconds = passed.decode_s, passed.queue_s
    answered.gather_seconds, answered.run_seconds = passed.gather_s, passed.run_s
