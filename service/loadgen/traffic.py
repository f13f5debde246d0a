"""When requests are sent: callers in a closed loop, or arrivals at a rate.

Path: plan → **traffic** → senders.
"""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from service.loadgen import arrivals, ledger, plan, senders

_SENT_AT_ONCE = 8
"""Overdue requests that go out before the event loop may take answers again."""

_LATE_S = 1.0
_LATE_SHARE = 0.25
"""A request that the generator is later with than this (this share of the deadline, if there is one) is not
sent: it would only make the next ones later."""

_NAP_S = 0.1
"""Between two looks at whether sending was stopped."""

_LAST_ANSWERS_S = 1.0
"""What answers are waited for after a stop."""


class Traffic:
    """The requests of one run: started, timed, stopped, and waited for.

    Mutable state: the number of the next request, the tasks under way, and when sending ends (`stop` makes it
    now); touched only on the event loop.
    """

    def __init__(self, chosen: plan.Plan, sender: senders.Sender, ends: ledger.Ledger, started_s: float) -> None:
        self._plan = chosen
        self._sender = sender
        self._ends = ends
        self._stopped = asyncio.Event()
        self._next = 0
        self._first_measured: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self.started_s = started_s
        self.ends_s = self.measured_from_s + chosen.duration_s

    @property
    def measured_from_s(self) -> float:
        """When the warm-up ends."""
        return self.started_s + self._plan.warmup_s

    def stop(self) -> None:
        """Send no more from now on."""
        self._end()
        self._stopped.set()

    async def run(self) -> None:
        """Send for the plan's time or count, then wait for the answers, at most `give_up_s`."""
        self._ends.ends_at(self.ends_s)
        if isinstance(self._plan.loop, plan.Closed):
            for _ in range(self._plan.loop.concurrency):
                self._start(self._caller())
            await self._wait(self.ends_s - self.started_s)
        else:
            await self._arrive(self._plan.loop)
        self._end()
        await self._finish()

    def _end(self) -> None:
        self.ends_s = min(self.ends_s, time.monotonic())
        self._ends.ends_at(self.ends_s)

    async def _caller(self) -> None:
        while self._may_send(now_s := time.monotonic()):
            self._next += 1
            await self._sender.send(self._next - 1, now_s)

    def _may_send(self, now_s: float) -> bool:
        """Whether neither the time nor the count is used up; the count is of what comes after the warm-up."""
        if self._stopped.is_set() or now_s >= self.ends_s:
            return False
        if self._first_measured is None:
            if now_s < self.measured_from_s:
                return True
            self._first_measured = self._next
        return self._plan.requests_max is None or self._next - self._first_measured < self._plan.requests_max

    async def _arrive(self, loop: plan.Open) -> None:
        """Send each request at its time. What is overdue goes out at once, still counted from its time."""
        at_once = 0
        for intended_s in arrivals.times_s(loop, self.started_s, self._plan.warmup_s):
            while (wait_s := intended_s - time.monotonic()) > 0 and not self._stopped.is_set():
                at_once = 0
                await asyncio.sleep(min(wait_s, _NAP_S))
            at_once += 1
            if at_once % _SENT_AT_ONCE == 0:
                await asyncio.sleep(0)
            if not self._may_send(intended_s):
                return
            self._send(intended_s, loop)

    def _send(self, intended_s: float, loop: plan.Open) -> None:
        now_s = time.monotonic()
        self._next += 1
        is_late = now_s - intended_s > _LATE_SHARE * (self._plan.deadline_s or _LATE_S / _LATE_SHARE)
        if is_late or len(self._tasks) >= loop.outstanding_max:
            self._ends.ended(intended_s, now_s, now_s, ledger.NOT_SENT)
        else:
            self._start(self._sender.send(self._next - 1, intended_s))

    def _start(self, sending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(sending)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()
            self.stop()

    async def _wait(self, timeout_s: float) -> None:
        """Wait until all tasks are done, sending is stopped, or the time is up."""
        if not self._tasks:
            return
        stopped = asyncio.create_task(self._stopped.wait())
        all_done = asyncio.create_task(asyncio.wait(self._tasks))
        await asyncio.wait((stopped, all_done), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        all_done.cancel()

    async def _finish(self) -> None:
        """Wait for answers that are still to come, then cut off the rest."""
        if not self._stopped.is_set():
            await self._wait(self._plan.give_up_s)
        elif self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_ANSWERS_S)
        rest = list(self._tasks)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        if self._failure is not None:
            raise self._failure
