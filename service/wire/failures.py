"""How an error is told: as a call's status, or within a stream, which goes on.

Path: any error → status → **failures** → client.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from protos import inference_pb2
from service import errors
from service.wire import status

Context = grpc.aio.ServicerContext[Any, Any]


def of_call(context: Context, error: Exception) -> bytes:
    """Make an error the call's status. Not by `abort`, which raises: a refusal should cost no more than an answer."""
    code, sentence = status.explain(error)
    context.set_code(code)
    context.set_details(sentence)
    if isinstance(error, errors.Refused):
        context.set_trailing_metadata(((status.PUSHBACK, str(status.pushback_ms(error))),))
    return b""


def in_stream(request_id: str, error: Exception) -> bytes:
    """Return the answer that says so: the sentence, the request's id, the code's name, and when to try again."""
    code, sentence = status.explain(error)
    reply = inference_pb2.ModelStreamInferResponse(error_message=sentence)
    reply.infer_response.id = request_id
    reply.infer_response.parameters[status.CODE].string_param = code.name
    if isinstance(error, errors.Refused):
        reply.infer_response.parameters[status.PUSHBACK].int64_param = status.pushback_ms(error)
    return serialized(reply)


def told(answer: Callable[[Any, Context], Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[bytes]]:
    """Return a call that serializes what `answer` returns, and makes what it raises the call's status."""

    async def call(request: Any, context: Context) -> bytes:
        try:
            return serialized(await answer(request, context))
        except Exception as error:  # all of them: this is the edge
            return of_call(context, error)

    return call


def serialized(message: Any) -> bytes:
    """Return a protobuf message's bytes."""
    raw: bytes = message.SerializeToString()
    return raw
