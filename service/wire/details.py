"""What a program is told of an error beside code and sentence: Google's richer error model (protos/rpc.proto).

Path: any error → status → **details** → failures → the trailing metadata of a call.

Clients read it with grpcio-status and its like in other languages (https://grpc.io/docs/guides/error). Only errors
pay for it. It is a help: a client that knows the code and the sentence alone misses nothing that it needs.
"""

import functools
import re
from typing import Any

import grpc

from protos import rpc_pb2
from service import errors
from service.wire import status

KEY = "grpc-status-details-bin"

_DOMAIN = "fovea"
_URL = "type.googleapis.com/google.rpc."
_TEXT_BYTES_MAX = 500
"""Of a text in a detail, in UTF-8; see status.SENTENCE_BYTES_MAX."""
_NAME_BYTES_MAX = 150

Metadata = tuple[tuple[str, str | bytes], ...]


def trailing(error: Exception, code: grpc.StatusCode, sentence: str) -> Metadata:
    """Return the trailing metadata of a call that ends with an error: details, and when to try again."""
    if not isinstance(error, errors.FoveaError):
        return ()
    whole = rpc_pb2.Status(code=code.value[0], message=sentence)
    whole.details.add(type_url=_URL + "ErrorInfo", value=_info(type(error).__name__))
    detail = _of(error)
    if detail is not None:
        whole.details.add(type_url=_URL + detail.DESCRIPTOR.name, value=detail.SerializeToString())
    entries: list[tuple[str, str | bytes]] = [(KEY, whole.SerializeToString())]
    if isinstance(error, errors.Refused):
        entries.append((status.PUSHBACK, str(status.pushback_ms(error))))
    return tuple(entries)


def _of(error: errors.FoveaError) -> Any | None:
    if isinstance(error, errors.BadRequest) and error.field:
        violation = rpc_pb2.BadRequest.FieldViolation(
            field=status.shortened(error.field, _NAME_BYTES_MAX),
            description=status.shortened(error.violation, _TEXT_BYTES_MAX),
        )
        return rpc_pb2.BadRequest(field_violations=[violation])
    if isinstance(error, errors.ModelNotFound):
        name = f"{error.model}/{error.version}" if error.version else error.model
        return rpc_pb2.ResourceInfo(
            resource_type="model",
            resource_name=status.shortened(name, _NAME_BYTES_MAX),
            description=status.shortened(str(error), _TEXT_BYTES_MAX),
        )
    if isinstance(error, errors.Refused) and error.pause_s is not None:
        seconds, ms = divmod(status.pushback_ms(error), 1000)
        return rpc_pb2.RetryInfo(retry_delay={"seconds": seconds, "nanos": ms * 1_000_000})
    return None


@functools.cache
def _info(name: str) -> bytes:
    """The ErrorInfo of an error, serialized; its name as AIP-193 writes it: QueueFull is QUEUE_FULL."""
    reason = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()
    serialized: bytes = rpc_pb2.ErrorInfo(reason=reason, domain=_DOMAIN).SerializeToString()
    return serialized
