"""What a program is told of an error beside code and sentence: Google's richer error model (protos/rpc.proto).

Path: any error → status → **details** → failures → the trailing metadata of a call.

Clients read it with grpcio-status and its like in other languages (https://grpc.io/docs/guides/error). Only errors
pay for it. It is a help: a client that knows the code and the sentence alone misses nothing that it needs.
"""

import functools
import re
from collections.abc import Iterator
from typing import Any

import grpc

from protos import rpc_pb2
from service import errors
from service.wire import status

KEY = "grpc-status-details-bin"

_DOMAIN = "fovea"
_TEXT_BYTES_MAX = 500
"""Of a text in a detail, in UTF-8; see status.SENTENCE_BYTES_MAX."""
_NAME_BYTES_MAX = 150

Metadata = tuple[tuple[str, str | bytes], ...]


def trailing(error: Exception, code: grpc.StatusCode, sentence: str) -> Metadata:
    """Return the trailing metadata of a call that ends with an error: details, and when to try again."""
    if not isinstance(error, errors.FoveaError):
        return ()
    whole = rpc_pb2.Status(code=code.value[0], message=sentence)
    for detail in _of(error):
        whole.details.add().Pack(detail)
    entries: list[tuple[str, str | bytes]] = [(KEY, whole.SerializeToString())]
    if isinstance(error, errors.Refused):
        entries.append((status.PUSHBACK, str(status.pushback_ms(error))))
    return tuple(entries)


def _of(error: errors.FoveaError) -> Iterator[Any]:
    yield rpc_pb2.ErrorInfo(reason=_reason(type(error).__name__), domain=_DOMAIN)
    if isinstance(error, errors.BadRequest) and error.field:
        violation = rpc_pb2.BadRequest.FieldViolation(
            field=status.shortened(error.field, _NAME_BYTES_MAX),
            description=status.shortened(error.violation, _TEXT_BYTES_MAX),
        )
        yield rpc_pb2.BadRequest(field_violations=[violation])
    elif isinstance(error, errors.ModelNotFound):
        name = f"{error.model}/{error.version}" if error.version else error.model
        yield rpc_pb2.ResourceInfo(
            resource_type="model",
            resource_name=status.shortened(name, _NAME_BYTES_MAX),
            description=status.shortened(str(error), _TEXT_BYTES_MAX),
        )
    elif isinstance(error, errors.Refused) and error.pause_s is not None:
        retry = rpc_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(status.pushback_ms(error))
        yield retry


@functools.cache
def _reason(name: str) -> str:
    """An error's name as AIP-193 writes it: QueueFull is QUEUE_FULL."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()
