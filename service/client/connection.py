"""A client's connections and deadlines: what it is told, opening, closing, and making one call.

Path: asynchronous → **connection** → calls, fleet.
"""

import asyncio
import math
from types import TracebackType
from typing import Self, TypedDict, TypeVar

import grpc
from google.protobuf import message as protobuf_message

from protos import inference_pb2
from service.client import access, addresses, calls, endpoint, failures, fleet

Answer = TypeVar("Answer")

TIMEOUT_S = 30.0
"""Seconds that a call may take, unless its caller says otherwise."""

_NOT_READY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Options(TypedDict, total=False):
    """What a client may be told beside its address: see Client."""

    timeout_s: float
    streams: bool
    compression: grpc.Compression | None
    credentials: grpc.ChannelCredentials | None
    token: str
    stream_age_s: float
    resolve_every_s: float


class Connection:
    """The way to one or more servers; open inside `async with`.

    Args:
        address: host:port, several with commas between, or dns:///name:port for all addresses of a name.
        timeout_s: seconds that a call may take which names no `timeout_s` of its own.
        streams: False for unary calls only.
        compression: of messages, such as grpc.Compression.Gzip. Encoded images do not get smaller.
        credentials: for TLS, such as grpc.ssl_channel_credentials(); None for plain text.
        token: of the server's file of tokens; in plain text everybody on the way can read it.
        stream_age_s: seconds until a stream is renewed, give or take a tenth.
        resolve_every_s: seconds between look-ups of names; another is made when an address fails.

    Raises:
        TypeError: compression or credentials of another kind.
        ValueError: an address or a token that is none, or seconds that are not positive.

    Mutable state: the fleet and the calls, once open; touched only on the event loop that opened it.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = TIMEOUT_S,
        streams: bool = True,
        compression: grpc.Compression | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        token: str = "",
        stream_age_s: float = 60.0,
        resolve_every_s: float = 30.0,
    ) -> None:
        self._places = addresses.parse(address)
        self._timeout_s = positive_s("timeout_s", timeout_s)
        self._resolve_every_s = positive_s("resolve_every_s", resolve_every_s)
        self._transport = endpoint.Transport(
            streams,
            positive_s("stream_age_s", stream_age_s),
            _given("compression", compression, grpc.Compression),
            _given("credentials", credentials, grpc.ChannelCredentials),
            access.checked(token),
        )
        self._fleet: fleet.Fleet | None = None
        self._calls: calls.Calls | None = None

    async def __aenter__(self) -> Self:
        """Get ready; the first call connects."""
        self._fleet = fleet.Fleet(self._places, self._transport, resolve_every_s=self._resolve_every_s)
        self._calls = calls.Calls(self._fleet)
        self._fleet.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close: calls that are out fail with CANCELLED."""
        await self.close()

    async def close(self) -> None:
        """Fail the calls that are out with CANCELLED, and close all connections. Closing again does nothing."""
        if self._calls is not None and self._fleet is not None:
            await self._calls.close()
            await self._fleet.close()

    async def _run(self, attempt: calls.Attempt[Answer], timeout_s: float | None) -> Answer:
        return await self._within(lambda call: self._opened_calls().repeat(attempt, call), timeout_s)

    async def _ask(
        self, request: protobuf_message.Message, kind: endpoint.Message[Answer], timeout_s: float | None
    ) -> Answer:
        return await self._within(lambda call: self._ask_within(request, kind, call), timeout_s)

    async def _ask_within(
        self, request: protobuf_message.Message, kind: endpoint.Message[Answer], call: calls.Call
    ) -> Answer:
        """Make the unary call that a message is the request of, such as ModelConfig for ModelConfigRequest."""
        method, message = type(request).__name__.removesuffix("Request"), request.SerializeToString()

        async def attempt(chosen: endpoint.Endpoint, call: calls.Call) -> Answer:
            return await chosen.ask(method, message, kind, call.remaining_s)

        return await self._opened_calls().repeat(attempt, call)

    async def _any_ready(
        self, request: inference_pb2.ServerReadyRequest | inference_pb2.ModelReadyRequest, timeout_s: float | None
    ) -> bool:
        """Put the question to all addresses; one that does not answer in time is not ready."""

        async def ask_all(call: calls.Call) -> bool:
            known = await self._opened_fleet().known()
            questions = (_is_ready(one, request, call.remaining_s) for one in known)
            answers = await asyncio.gather(*questions, return_exceptions=True)
            if True in answers:
                return True
            for error in answers:
                if isinstance(error, BaseException):
                    raise error
            return False

        try:
            return await self._within(ask_all, timeout_s)
        except failures.CallFailed as failure:
            if failure.code in _NOT_READY:
                return False
            raise

    async def _one(self) -> endpoint.Endpoint:
        """Pick an address for a call of the caller's own."""
        return await self._within(lambda call: self._opened_fleet().pick(), None)

    async def _within(self, work: calls.Work[Answer], timeout_s: float | None) -> Answer:
        return await self._opened_calls().within(work, self._seconds(timeout_s))

    def _seconds(self, timeout_s: float | None) -> float:
        return self._timeout_s if timeout_s is None else positive_s("timeout_s", timeout_s)

    def _opened_calls(self) -> calls.Calls:
        if self._calls is None:
            raise RuntimeError("the client is not open; use it inside `async with client.Client(address)`")
        return self._calls

    def _opened_fleet(self) -> fleet.Fleet:
        assert self._fleet is not None, "opened together with the calls, which were there"
        return self._fleet


async def _is_ready(
    one: endpoint.Endpoint,
    request: inference_pb2.ServerReadyRequest | inference_pb2.ModelReadyRequest,
    remaining_s: float,
) -> bool:
    method = type(request).__name__.removesuffix("Request")
    kind = inference_pb2.ServerReadyResponse  # both answers are one bool, `ready`
    try:
        answer = await one.ask(method, request.SerializeToString(), kind, remaining_s, proves=False)
    except failures.CallFailed as failure:
        if failure.code in _NOT_READY:
            return False
        raise
    return answer.ready


def _given(name: str, value: Answer | None, kind: type[Answer]) -> Answer | None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} is a {type(value).__name__}; expected a grpc.{kind.__name__} or None")
    return value


def positive_s(name: str, seconds: float) -> float:
    """Return seconds that are a positive number.

    Raises:
        ValueError: they are not.
    """
    if not 0.0 < seconds < math.inf:
        raise ValueError(f"{name} is {seconds}; expected seconds, more than 0 and finite")
    return float(seconds)


def at_least(name: str, number: int, least: int) -> int:
    """Return a whole number that is not too small.

    Raises:
        TypeError: not a whole number.
        ValueError: less than `least`.
    """
    if not isinstance(number, int):
        raise TypeError(f"{name} is a {type(number).__name__}; expected a whole number of at least {least}")
    if number < least:
        raise ValueError(f"{name} is {number}; expected at least {least}")
    return number
