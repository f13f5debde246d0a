"""How an error is told: as a call's status, or within a stream, which goes on.

Path: any error → status, details → **failures** → client.
"""

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc
import grpc.aio

from protos import inference_pb2
from service import errors
from service.wire import details, replies, status

Context = grpc.aio.ServicerContext[Any, Any]


def of_call(context: Context, error: Exception) -> bytes:
    """Make an error the call's status. Not by `abort`, which raises: a refusal should cost no more than an answer."""
    code, sentence = status.explain(error)
    context.set_code(code)
    context.set_details(sentence)
    context.set_trailing_metadata(details.trailing(error, code, sentence))
    return b""


async def end_stream(context: Context, error: Exception) -> NoReturn:
    """Make an error the status of a stream, which ends."""
    code, sentence = status.explain(error)
    await context.abort(code, sentence, details.trailing(error, code, sentence))
    raise AssertionError("abort raises")


def in_stream(request_id: str, error: Exception) -> bytes:
    """Return the answer that says so: the sentence, the request's id, the code's name, and when to try again."""
    code, sentence = status.explain(error)
    reply = inference_pb2.ModelStreamInferResponse(error_message=sentence)
    reply.infer_response.id = request_id
    parameters = reply.infer_response.parameters
    parameters[replies.FINAL_RESPONSE].bool_param = True
    parameters[status.CODE].string_param = code.name
    if isinstance(error, errors.Refused):
        parameters[status.PUSHBACK].int64_param = status.pushback_ms(error)
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
