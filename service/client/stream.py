"""One ModelStreamInfer stream: messages of many calls out, answers back to whom they belong.

Path: endpoint → **stream** → server → **stream** → endpoint.
"""

import asyncio
import dataclasses
import itertools
import logging
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf import message as protobuf_message

from protos import inference_pb2
from service.client import failures, messages

log = logging.getLogger(__name__)

Response = inference_pb2.ModelInferResponse

FINISH_WITHIN_S = 10.0
"""Seconds that a server has to end a stream that the client has finished."""

CLOSE_WITHIN_S = 1.0
"""The same when the client is closed."""

_FINAL_RESPONSE = "triton_final_response"
"""The parameter of a stream's answer that says whether another one to the same message will come."""

_SAY_NOTHING_OF_STREAMS = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,  # a message that is too large
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAUTHENTICATED,  # of the token
)


@dataclasses.dataclass(slots=True, eq=False)
class _Waiting:
    """A call in the stream: its message, and the future of its answer. Done early: nobody waits any more."""

    message: bytes
    answer: asyncio.Future[Response]
    is_sent: bool = False


class Stream:
    """An open stream: one task writes, one reads. Answers are matched by an id that the stream gives.

    Mutable state: the calls that wait for an answer, those not yet written, how many answers the server owes,
    and how the stream ended; touched only on the event loop.
    """

    def __init__(self, call: Any, address: str, on_end: Callable[["Stream"], None]) -> None:
        self.has_answered = False
        self.is_retired = False
        self.has_hidden_reason = False
        self.failure: failures.CallFailed | None = None
        self._call = call
        self._address = address
        self._on_end = on_end
        self._is_connected = False
        self._is_finished = False
        self._owed = 0
        self._waiting: dict[str, _Waiting] = {}
        self._outbox: asyncio.Queue[_Waiting | None] = asyncio.Queue()
        self._ids = itertools.count(1)
        self._tasks: list[asyncio.Task[None]] = []
        self._timers: list[asyncio.TimerHandle] = []

    @property
    def outstanding(self) -> int:
        """Calls without an answer."""
        return len(self._waiting)

    def start(self) -> None:
        """Start writing and reading."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._write()), loop.create_task(self._read())]

    @property
    def forbids_streams(self) -> bool:
        """Whether it ended as where streams are not served, or not let through."""
        return self.failure is not None and not self.has_answered and self.failure.code not in _SAY_NOTHING_OF_STREAMS

    def renew_after(self, age_s: float, renew: Callable[["Stream"], None]) -> None:
        """Call `renew` when the stream is `age_s` old, unless it has ended."""
        self._timers.append(asyncio.get_running_loop().call_later(age_s, renew, self))

    async def send(self, outgoing: messages.Outgoing, remaining_s: float) -> Response:
        """Send a message and return its answer, with the caller's id.

        Raises:
            failures.Answered: the server's error.
            failures.Unanswered: the stream ended before.
        """
        wire_id = str(next(self._ids))
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(outgoing.streamed(wire_id, remaining_s), answer)
        self._waiting[wire_id] = waiting
        self._outbox.put_nowait(waiting)
        try:
            response = await answer
        finally:  # after this the answer is late and dropped
            self._waiting.pop(wire_id, None)
            self._finish_if_done()
        response.id = outgoing.own_id
        if _FINAL_RESPONSE in response.parameters:  # of the stream, not of the answer: a unary one does not have it
            del response.parameters[_FINAL_RESPONSE]
        return response

    def retire(self) -> None:
        """Take no new calls; when the last has its answer, say that no more will come."""
        self.is_retired = True
        self._cancel_timers()
        self._finish_if_done()

    async def close(self) -> None:
        """End the stream: by agreement where the server owes no answer, else by cutting it off.

        Both wait for the transport's last word: an event for an event loop that is gone disturbs the next one.
        """
        if self._is_connected and not self._owed:
            self.retire()
            await asyncio.wait(self._tasks, timeout=CLOSE_WITHIN_S)
        self._call.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _finish_if_done(self) -> None:
        if self.is_retired and not self._waiting and not self._is_finished:
            self._is_finished = True
            self._outbox.put_nowait(None)
            self._timers.append(asyncio.get_running_loop().call_later(FINISH_WITHIN_S, self._call.cancel))

    def _cancel_timers(self) -> None:
        while self._timers:
            self._timers.pop().cancel()

    async def _write(self) -> None:
        try:
            await self._call.wait_for_connection()
            self._is_connected = True
            while (waiting := await self._outbox.get()) is not None:
                if not waiting.answer.done():
                    waiting.is_sent = True
                    self._owed += 1
                    await self._call.write(waiting.message)
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the stream has ended; the reader hears why
        except Exception:  # what grpc.aio does not translate: a stream that cannot be written to is of no use
            log.debug("writing to %s failed", self._address, exc_info=True)
            self._call.cancel()

    async def _read(self) -> None:
        code, details = grpc.StatusCode.CANCELLED, "the stream was cut off"
        try:
            async for raw in self._call:  # not read(): that gives up answers which came before an error of writing
                self._take(inference_pb2.ModelStreamInferResponse.FromString(raw))
            code, details = grpc.StatusCode.OK, "the server ended the stream"
        except grpc.aio.AioRpcError as error:
            code, details = error.code(), error.details() or ""
        except protobuf_message.DecodeError as error:
            failure = failures.of_message(error, self._address)
            code, details = failure.code, failure.details
        finally:
            self._end(code, details)

    def _take(self, answer: inference_pb2.ModelStreamInferResponse) -> None:
        self._owed -= 1
        self.has_answered = True
        response = answer.infer_response
        waiting = self._waiting.get(response.id)
        if waiting is None:  # 1. late: nobody waits any more. 2. an error that does not say of which message
            if answer.error_message and not response.id:
                self._displace(failures.of_answer(answer, self._address), goes_alone=True)
            return
        if waiting.answer.done():
            return
        if answer.error_message:
            waiting.answer.set_exception(failures.of_answer(answer, self._address))
        else:
            waiting.answer.set_result(response)

    def _displace(self, failure: failures.CallFailed, *, goes_alone: bool) -> None:
        for waiting in self._waiting.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(failures.Unanswered(failure, waiting.is_sent, goes_alone))

    def _end(self, code: grpc.StatusCode, details: str) -> None:
        """Fail who still waits.

        1. The server, or the way to it, ended: UNAVAILABLE.
        2. It ended while this client was writing, and grpc.aio hides the reason for good, which may be 1 or 3:
           UNAVAILABLE, and the calls go on alone.
        3. Anything else may be due to one of the messages: the calls go on alone.
        """
        self.has_hidden_reason = failures.is_hidden(code, details)
        is_over = self.has_hidden_reason or code in failures.ENDS
        self.failure = failures.CallFailed(grpc.StatusCode.UNAVAILABLE if is_over else code, details, self._address)
        self._cancel_timers()
        self._call.cancel()
        if self._is_connected:
            self._outbox.put_nowait(None)  # the writer ends
        else:
            self._tasks[0].cancel()  # grpc.aio does not wake who waits for a connection when the call is cut off
        self._on_end(self)
        self._displace(self.failure, goes_alone=self.has_hidden_reason or not is_over)
