"""A call's way to an answer: attempts at one address after another, until its deadline.

Path: client → **calls** → fleet → endpoint.
"""

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc

from service.client import endpoint, failures, fleet, retries

Answer = TypeVar("Answer")


@dataclasses.dataclass(slots=True)
class Call:
    """One call: until when it is of use, and what became of it so far."""

    deadline_s: float
    """Of the event loop's clock."""
    alone: bool = False
    """As a unary call from now on: a stream ended under it, maybe because of it."""
    resends: int = 0
    asked: str = ""
    """The address that is being asked; empty while none is."""
    is_trial: bool = False
    """Whether that address did not work when it was last heard of."""
    failure: failures.CallFailed | None = None
    """How the last attempt failed."""

    @property
    def remaining_s(self) -> float:
        """Seconds left."""
        return self.deadline_s - asyncio.get_running_loop().time()


Attempt = Callable[[endpoint.Endpoint, Call], Awaitable[Answer]]
"""Asks one address once."""

Work = Callable[[Call], Awaitable[Answer]]
"""What is done under a call's deadline."""


class Calls:
    """Makes calls and repeats them.

    Mutable state: the deadlines of the calls that are out, the retry budget, and whether all is over;
    touched only on the event loop.
    """

    def __init__(self, served: fleet.Fleet) -> None:
        self._fleet = served
        self._budget = retries.Budget()
        self._chance = random.Random()
        self._scopes: set[asyncio.Timeout] = set()
        self._is_closed = False
        self._none_out: asyncio.Future[None] | None = None

    async def within(self, work: Work[Answer], timeout_s: float) -> Answer:
        """Do something under a deadline of `timeout_s` seconds from now.

        Raises:
            CallFailed: what the work raised; time is up; the client was closed.
        """
        loop = asyncio.get_running_loop()
        call = Call(loop.time() + timeout_s)
        if self._is_closed:
            raise self._over(call, timeout_s)
        scope = asyncio.timeout_at(call.deadline_s)
        try:
            async with scope:
                self._scopes.add(scope)
                return await work(call)
        except TimeoutError as error:
            raise self._over(call, timeout_s) from error
        finally:
            self._scopes.discard(scope)
            if self._none_out is not None and not self._scopes and not self._none_out.done():
                self._none_out.set_result(None)

    async def close(self) -> None:
        """Fail the calls that are out, and wait until their callers know."""
        self._is_closed = True
        now_s = asyncio.get_running_loop().time()
        for scope in self._scopes:
            if not scope.expired():
                scope.reschedule(now_s)
        if self._scopes:
            self._none_out = self._none_out or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._none_out)  # it may be another's who closes as well

    async def repeat(self, attempt: Attempt[Answer], call: Call) -> Answer:
        """Return the answer of the first attempt that succeeds.

        Raises:
            CallFailed: an error that another attempt would not change.
        """
        while True:
            chosen = await self._fleet.pick()
            call.asked, call.is_trial = chosen.address, chosen.failures > 0
            try:
                answer = await attempt(chosen, call)
            except failures.CallFailed as failure:
                call.asked, call.failure = "", failure
                await self._before_the_next(call, failure)
            else:
                self._budget.earn()
                return answer

    async def _before_the_next(self, call: Call, failure: failures.CallFailed) -> None:
        """Wait as long as another attempt has to; raise the failure if there is to be none.

        1. Nobody has seen the call, or a server that was known not to work still does not: that is free.
           The fleet holds calls back until somebody may take them.
        2. The server said when to come back: then, if there is a token and time.
        3. Otherwise after a pause, as soon as there is a token.
        """
        if not failure.may_be_repeated:
            raise failure
        if isinstance(failure, failures.Unanswered):  # two streams that end under one call may do so because of it
            call.alone |= failure.goes_alone or (failure.was_sent and call.resends > 0)
        if not failure.was_sent or (call.is_trial and failure.is_of_the_address and not failure.is_lost):
            return  # case 1
        call.resends += 1
        if call.resends > retries.RESENDS_MAX:
            raise failure
        if failure.pushback_s is None:
            await self._pause(call)
        elif failure.pushback_s < call.remaining_s and self._has_token():
            await asyncio.sleep(failure.pushback_s)
        else:
            raise failure

    async def _pause(self, call: Call) -> None:
        pause_s = retries.backoff_s(call.resends, self._chance)
        while True:
            await asyncio.sleep(pause_s)
            if self._has_token():
                return
            pause_s = retries.backoff_s(retries.RESENDS_MAX, self._chance)

    def _has_token(self) -> bool:
        return self._budget.take(asyncio.get_running_loop().time())

    def _over(self, call: Call, timeout_s: float) -> failures.CallFailed:
        """The error of a call that ends without an answer: the client is closed, nobody took it, or time is up."""
        if self._is_closed:
            return failures.closed(call.asked or "nobody")
        known = call.failure or self._fleet.trouble()
        if known is None or (call.asked and not call.is_trial):
            sentence = f"no answer within {timeout_s:g} s"
            return failures.CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED, sentence, call.asked or "nobody")
        return failures.CallFailed(known.code, f"{known.details} (tried for {timeout_s:g} s)", known.address)
