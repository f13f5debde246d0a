"""How a call fails: one error for all calls, made from what a server or the transport said.

Path: stream, endpoint → **failures** → calls, and the caller.
"""

import grpc
import grpc.aio
from google.protobuf import message as protobuf_message

from protos import inference_pb2, rpc_pb2

PUSHBACK = "grpc-retry-pushback-ms"
"""When to try again in milliseconds, negative for never: trailing metadata, or a parameter of a stream's answer."""

DETAILS = "grpc-status-details-bin"
"""Trailing metadata: a google.rpc.Status."""

STATUS = "grpc-status"
"""The parameter of a stream's error answer that names its gRPC status code."""

NEVER = -1.0
"""A `pushback_s` that says: do not try again."""

# What gRPC's core writes itself. By these a call that no server has seen, and one whose connection broke, are known.
_NEVER_SENT = ("failed to connect", "errors resolving", "DNS resolution failed")
_LOST = ("Socket closed", "Stream removed", "Connection reset", "Broken pipe", "recvmsg")

# What grpc.aio says of itself when it was writing while the server ended the stream.
_WRITING_AT_THE_END = (grpc.StatusCode.INTERNAL, "Internal error from Core")

ENDS = (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
"""How a stream ends when its server, or the way to it, ends: not for anything in the stream."""


class CallFailed(Exception):
    """A call that has no answer, after all the retries that its deadline and the budget allowed.

    Attributes:
        code: the gRPC status code.
        details: the server's sentence, or the transport's.
        address: who was asked last.
        pushback_s: when the server wants to be asked again, in seconds; negative for never, None if it did not say.
    """

    def __init__(self, code: grpc.StatusCode, details: str, address: str, pushback_s: float | None = None) -> None:
        super().__init__(code, details, address, pushback_s)
        self.code = code
        self.details = details
        self.address = address
        self.pushback_s = pushback_s

    def __str__(self) -> str:
        return f"{self.code.name} from {self.address}: {self.details}"

    @property
    def may_be_repeated(self) -> bool:
        """Whether the same call may succeed later: nobody took it, or the server said when to come back."""
        if self.pushback_s is not None:
            return self.pushback_s >= 0
        return self.code is grpc.StatusCode.UNAVAILABLE

    @property
    def was_sent(self) -> bool:
        """Whether a server may have seen the call."""
        return not self.details.startswith(_NEVER_SENT)

    @property
    def is_lost(self) -> bool:
        """Whether the connection broke, as it does when a server dies."""
        return any(text in self.details for text in _LOST)

    @property
    def is_of_the_address(self) -> bool:
        """Whether others who ask there now would fare the same."""
        return self.code is grpc.StatusCode.UNAVAILABLE


class Answered(CallFailed):
    """An error that came as an answer in a stream: the server works, this call does not."""

    @property
    def is_of_the_address(self) -> bool:
        """Return False: the stream goes on."""
        return False


class Unanswered(CallFailed):
    """The stream ended, and the call had no answer; `goes_alone`: it may be why, so it is repeated as a unary call."""

    def __init__(self, ended: CallFailed, was_sent: bool, goes_alone: bool) -> None:
        super().__init__(ended.code, ended.details, ended.address)
        self._was_sent = was_sent
        self.goes_alone = goes_alone

    @property
    def may_be_repeated(self) -> bool:
        """Return True: inference has no effects, so a second run does no harm."""
        return True

    @property
    def was_sent(self) -> bool:
        """Whether a server may have seen the call."""
        return self._was_sent


def of_call(error: grpc.aio.AioRpcError, address: str) -> CallFailed:
    """Return the failure of a unary call or of a stream that a caller reads itself.

    CANCELLED comes from the other side, which ends: this side's own cancellation is no AioRpcError.
    """
    code, details = error.code(), error.details() or ""
    if is_hidden(code, details) or code is grpc.StatusCode.CANCELLED:
        code = grpc.StatusCode.UNAVAILABLE
    metadata = dict(error.trailing_metadata() or ())
    pushback_s = _seconds(metadata[PUSHBACK]) if PUSHBACK in metadata else _retry_delay_s(metadata.get(DETAILS))
    return CallFailed(code, details, address, pushback_s)


def of_answer(answer: inference_pb2.ModelStreamInferResponse, address: str) -> Answered:
    """Return the failure in a stream's answer. A server that names no status code means UNKNOWN, or a refusal."""
    parameters = answer.infer_response.parameters
    pushback_s = parameters[PUSHBACK].int64_param / 1e3 if PUSHBACK in parameters else None
    code = grpc.StatusCode.UNKNOWN if pushback_s is None else grpc.StatusCode.RESOURCE_EXHAUSTED
    if STATUS in parameters:
        code = grpc.StatusCode.__members__.get(parameters[STATUS].string_param, code)
    return Answered(code, answer.error_message, address, pushback_s)


def of_message(error: protobuf_message.DecodeError, address: str) -> CallFailed:
    """Return the failure of an answer that is no message of the protocol."""
    return CallFailed(grpc.StatusCode.INTERNAL, f"an answer that is not the protocol's: {error}", address)


def closed(address: str) -> CallFailed:
    """Return the failure of a call that is out when its client is closed."""
    return CallFailed(grpc.StatusCode.CANCELLED, "the client was closed before the answer came", address)


def is_hidden(code: grpc.StatusCode, details: str) -> bool:
    """Whether grpc.aio hides how a stream ended behind an error of its own: it was writing at that moment."""
    return (code, details) == _WRITING_AT_THE_END


def _retry_delay_s(said: str | bytes | None) -> float | None:
    """Return the delay in google.rpc's RetryInfo, which others say instead of gRPC's pushback; None: there is none."""
    if not isinstance(said, bytes):
        return None
    retry = rpc_pb2.RetryInfo()
    try:
        for detail in rpc_pb2.Status.FromString(said).details:
            if detail.Unpack(retry):
                return float(retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9)
    except protobuf_message.DecodeError:  # details only help: the call has failed, and its code is known
        return None
    return None


def _seconds(said: str | bytes) -> float:
    try:
        return int(said) / 1e3
    except ValueError:
        return NEVER  # gRFC A6: what cannot be read means never
