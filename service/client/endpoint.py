"""One address: its channel, its streams, and whether calls should go there now.

Path: fleet → **endpoint** → stream, or a unary call → server.
"""

import asyncio
import dataclasses
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio
from google.protobuf import message as protobuf_message

from protos import inference_pb2
from service.client import access, context, failures, messages, retries, stream

log = logging.getLogger(__name__)

Response = inference_pb2.ModelInferResponse
Answer = TypeVar("Answer")
Parsed_co = TypeVar("Parsed_co", covariant=True)

STREAM_CALLS_MAX = 128
"""Calls out on a stream from which on another is opened; Fovea reads 256 unanswered messages of one."""

ENDS_MAX = 2
"""Streams in a row that may end unanswered and without a reason, until the address counts as one without streams."""

STREAMS_MAX = 8
"""Streams to one address."""

STREAMS_AGAIN_S = 60.0
"""Seconds after which streams are tried again where they did not work."""

AGE_JITTER = 0.1
"""Streams end at their age give or take this part of it, so that not all of them do at once."""

_METHOD = "/inference.GRPCInferenceService/"

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # connections of its own, so that closing ends them
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # the longest that one attempt to connect takes
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A silent peer is found out in 40 s. Servers with gRPC's own settings take offence at the fourth ping without
    # data of theirs in between: so none without an open stream, and after the first without data one a minute.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # without it gRPC 1.85 waits 60 s, whatever the line above says
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 1),
)


class Message(Protocol[Parsed_co]):
    """A class of the protocol's messages."""

    def FromString(self, serialized: bytes, /) -> Parsed_co:  # noqa: N802 - protobuf's name
        """Parse."""


@dataclasses.dataclass(frozen=True, slots=True)
class Transport:
    """How messages travel, the same for all addresses."""

    streams: bool = True
    """Use streams where they work; False: unary calls only."""
    stream_age_s: float = 60.0
    """Seconds until a stream is renewed, give or take a tenth."""
    compression: grpc.Compression | None = None
    credentials: grpc.ChannelCredentials | None = None
    """For TLS; None: plain text."""
    token: str = dataclasses.field(default="", repr=False)

    def channel(self, address: str, authority: str) -> grpc.aio.Channel | access.Bearing:
        """Open a channel; `authority` is the name that the server has, where the address is only its number."""
        options = [*_OPTIONS, *([("grpc.default_authority", authority)] if authority else [])]
        if self.credentials is None:
            opened = grpc.aio.insecure_channel(address, options, self.compression)
        else:
            opened = grpc.aio.secure_channel(address, self.credentials, options, self.compression)
        return access.Bearing(opened, self.token) if self.token else opened


class Endpoint:
    """An address that takes calls.

    After a failure it rests; then one call at a time tries it, until one has an answer.

    Mutable state: the channel, streams, calls out (`trials`: those of them that try it after a failure),
    failures in a row and until when it rests; touched only on the event loop.
    """

    def __init__(self, address: str, authority: str, transport: Transport, on_change: Callable[[], None]) -> None:
        self.address = address
        self.authority = authority
        self.outstanding = 0
        self.failures = 0
        self.last_failure: failures.CallFailed | None = None
        self.rests_until_s = 0.0
        self.picked = 0
        self.trials = 0
        self._transport = transport
        self._on_change = on_change
        self._channel: grpc.aio.Channel | access.Bearing | None = None
        self._calls: dict[str, Any] = {}
        self._streams: list[stream.Stream] = []
        self._leaving: set[stream.Stream] = set()
        self._unary_until_s = 0.0
        self._unexplained_ends = 0
        self._has_told = False
        self._chance = random.Random()
        self._none_out: asyncio.Future[None] | None = None

    def takes_calls(self, now_s: float) -> bool:
        """Whether a call may go there: always while it works, else one at a time after a rest."""
        return not self.failures or (now_s >= self.rests_until_s and not self.trials)

    def open(self) -> None:
        """Open the channel; the first call connects."""
        self._channel = self._transport.channel(self.address, self.authority)

    async def infer(self, outgoing: messages.Outgoing, remaining_s: float, *, alone: bool) -> Response:
        """Send a request over a stream, or as a unary call where `alone` or the address wants that.

        Raises:
            CallFailed: no answer, or an error.
        """
        if alone or not self._transport.streams or time.monotonic() < self._unary_until_s:
            message = outgoing.unary()
            return await self.ask("ModelInfer", message, inference_pb2.ModelInferResponse, remaining_s)
        return await self._judged(self._stream().send(outgoing, remaining_s))

    async def ask(
        self, method: str, message: bytes, kind: Message[Answer], remaining_s: float, *, proves: bool = True
    ) -> Answer:
        """Make a unary call and return its answer, a message of `kind`.

        `proves`: an answer shows that the address takes calls. That to "are you ready" does not: it may be no.

        Raises:
            CallFailed: no answer, or an error.
        """
        return await self._judged(self._unary(method, message, kind, remaining_s), proves=proves)

    async def read(
        self, requests: AsyncIterator[inference_pb2.ModelInferRequest]
    ) -> AsyncIterator[inference_pb2.ModelStreamInferResponse]:
        """Yield the answers of a stream of the caller's own.

        Raises:
            CallFailed: the stream ended with an error.
        """
        call = self._opened().stream_stream(
            _METHOD + "ModelStreamInfer",
            request_serializer=inference_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=inference_pb2.ModelStreamInferResponse.FromString,
        )(requests, metadata=context.current())
        self.outstanding += 1
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise failures.of_call(error, self.address) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise failures.closed(self.address) from None  # the channel was, and grpc.aio calls that a cancellation
        finally:
            call.cancel()
            self.outstanding -= 1
            self._settle()

    async def finish(self) -> None:
        """Let the calls that are out end, then close. It must be given no more."""
        for open_stream in tuple(self._streams):
            self._retire(open_stream)
        if self.outstanding:
            self._none_out = asyncio.get_running_loop().create_future()
            await self._none_out
        await self.close()

    async def close(self) -> None:
        """Cut off what is open."""
        await asyncio.gather(*(open_stream.close() for open_stream in (*self._streams, *self._leaving)))
        if self._channel is not None:
            await self._channel.close()

    async def _judged(self, attempt: Awaitable[Answer], *, proves: bool = True) -> Answer:
        """Count a call while it is out, and learn from its end how the address does."""
        is_trial = self.failures > 0
        self.outstanding += 1
        self.trials += is_trial
        try:
            answer = await attempt
        except failures.CallFailed as failure:
            self._failed(failure) if failure.is_of_the_address else self._worked()
            raise
        finally:
            self.outstanding -= 1
            self.trials -= is_trial
            if self.failures:
                self._on_change()  # whoever waits may be the next to try
            self._settle()
        if proves:
            self._worked()
        return answer

    def _settle(self) -> None:
        if self._none_out is not None and not self.outstanding and not self._none_out.done():
            self._none_out.set_result(None)

    def _worked(self) -> None:
        if self.failures:
            self.failures = 0
            self._on_change()

    def _failed(self, failure: failures.CallFailed) -> None:
        """Rest, longer with every failure; of many calls that fail together only the first counts."""
        now_s = time.monotonic()
        self.last_failure = failure
        if now_s >= self.rests_until_s:
            self.failures += 1
            self.rests_until_s = now_s + retries.bound_s(self.failures) * self._chance.uniform(0.5, 1.0)

    async def _unary(self, method: str, message: bytes, kind: Message[Answer], remaining_s: float) -> Answer:
        call = self._calls.get(method)
        if call is None:
            call = self._calls[method] = self._opened().unary_unary(_METHOD + method)
        try:
            return kind.FromString(await call(message, timeout=remaining_s, metadata=context.current()))
        except grpc.aio.AioRpcError as error:
            raise failures.of_call(error, self.address) from error
        except protobuf_message.DecodeError as error:
            raise failures.of_message(error, self.address) from error

    def _stream(self) -> stream.Stream:
        """The stream with the fewest calls out; a new one where there is none, or all have many."""
        least = min(self._streams, key=lambda one: one.outstanding, default=None)
        if least is None or (least.outstanding >= STREAM_CALLS_MAX and len(self._streams) < STREAMS_MAX):
            return self._open_stream()
        return least

    def _open_stream(self) -> stream.Stream:
        call: Any = self._opened().stream_stream(_METHOD + "ModelStreamInfer")()
        opened = stream.Stream(call, self.address, self._stream_ended)
        opened.start()
        age_s = self._transport.stream_age_s * self._chance.uniform(1.0 - AGE_JITTER, 1.0 + AGE_JITTER)
        opened.renew_after(age_s, self._renew)
        self._streams.append(opened)
        return opened

    def _renew(self, old: stream.Stream) -> None:
        """Put a new stream in the place of an old one; in the place of an idle one when a call comes."""
        if old.outstanding:
            self._open_stream()
        self._retire(old)

    def _retire(self, old: stream.Stream) -> None:
        self._streams.remove(old)
        self._leaving.add(old)
        old.retire()

    def _stream_ended(self, ended: stream.Stream) -> None:
        self._leaving.discard(ended)
        if ended in self._streams:
            self._streams.remove(ended)
        if ended.has_answered:
            self._unexplained_ends = 0
        elif ended.has_hidden_reason:
            self._unexplained_ends += 1
        if ended.forbids_streams or self._unexplained_ends >= ENDS_MAX:
            self._unexplained_ends = 0
            self._unary_until_s = time.monotonic() + STREAMS_AGAIN_S
            if not self._has_told:
                self._has_told = True
                log.warning("no streams to %s: unary calls instead, which cost more; %s", self.address, ended.failure)

    def _opened(self) -> grpc.aio.Channel | access.Bearing:
        assert self._channel is not None, "the fleet opens an endpoint before it gives it calls"
        return self._channel
