"""How an error is told: as a call's status, or within a stream, which goes on.

Path: any error → status → **failures** → client.
"""

from typing import Any

import grpc
import grpc.aio

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


def serialized(message: Any) -> bytes:
    """Return a protobuf message's bytes."""
    raw: bytes = message.SerializeToString()
    return raw
