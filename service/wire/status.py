"""The one table from errors to gRPC status codes, and what unexpected errors look like outside.

Path: any error → **status** → client.
"""

import logging
import math
import secrets

import grpc

from service import errors

log = logging.getLogger(__name__)

CODES: dict[type[errors.FoveaError], grpc.StatusCode] = {
    errors.FoveaError: grpc.StatusCode.UNKNOWN,
    errors.StartupError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.BadRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.MessageTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.Refused: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.NotServing: grpc.StatusCode.UNAVAILABLE,
    errors.WasReplaced: grpc.StatusCode.UNAVAILABLE,
    errors.ControlOff: grpc.StatusCode.UNAVAILABLE,
    errors.ControlDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotAuthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.NotPermitted: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotSupported: grpc.StatusCode.UNIMPLEMENTED,
    errors.RunFailed: grpc.StatusCode.INTERNAL,
}


_CUT = " […] "

PUSHBACK = "grpc-retry-pushback-ms"
"""Trailing metadata that gRPC's own retries obey: when to try again, or -1 for never (gRFC A6)."""

CODE = "grpc-status"
"""Parameter of an error's answer in a stream, whose own status has to stay OK: the name of the code."""


SENTENCE_BYTES_MAX = 1500
"""Of a sentence, in UTF-8. It travels as a header, each byte that is not ASCII as three, and beside it the details
(wire.details), and clients take 8 KiB of headers: gRPC's default. A name in a request may be as long as a message."""


def shortened(text: str, bytes_max: int) -> str:
    """Return a text of so many bytes at most, without its middle if it has more; what UTF-8 has not is escaped."""
    encoded = text.encode(errors="backslashreplace")  # a file's name may be no text
    if len(encoded) <= bytes_max:
        return encoded.decode()
    half = (bytes_max - len(_CUT.encode())) // 2
    return encoded[:half].decode(errors="ignore") + _CUT + encoded[-half:].decode(errors="ignore")


def pushback_ms(error: errors.Refused) -> int:
    """Return the value for PUSHBACK."""
    return -1 if error.pause_s is None else math.ceil(error.pause_s * 1e3)


def code(error: errors.FoveaError) -> grpc.StatusCode:
    """Return the status code of an error: its own, or its nearest base's."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def explain(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Return what the caller is told; what they are not told goes into the log.

    Expected errors explain themselves. Of anything else the caller gets a number to report.
    """
    if isinstance(error, errors.FoveaError):
        if isinstance(error, errors.RunFailed):
            log.error("%s", error, exc_info=error.__cause__)
        return code(error), shortened(str(error), SENTENCE_BYTES_MAX)
    number = secrets.token_hex(4)
    log.error("internal error %s", number, exc_info=error)
    return (
        grpc.StatusCode.INTERNAL,
        f"internal error {number}; the server's log has the cause under this number",
    )
