"""A batch on its way to a thread, and the answer's way back.

Path: instances → **handover** → runners or pipeline → back to the event loop.

A plain thread behind a SimpleQueue costs the process 30-50 µs of CPU less for every run than
concurrent.futures with run_in_executor (DECISIONS.md); a LeNet-5 run takes 30-40 µs.
"""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Protocol

from service.batching import batcher, slots


class Reply(Protocol):
    """Where the outcome of a job goes; called once, from the thread that ran it."""

    def done(self, result: batcher.BatchResult) -> None:
        """It ran."""

    def failed(self, error: BaseException) -> None:
        """It raised."""


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """One batch to run: `rows` of it, padding included, where `wanted` outputs matter to somebody."""

    requests: Sequence[slots.Tensors]
    wanted: frozenset[str]
    rows: int
    reply: Reply


class LoopReply:
    """To a coroutine that waits for `future` on its event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[batcher.BatchResult] = self._loop.create_future()

    def done(self, result: batcher.BatchResult) -> None:
        """See Reply."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._set_result, result)

    def failed(self, error: BaseException) -> None:
        """See Reply."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._set_exception, error)

    def _set_result(self, result: batcher.BatchResult) -> None:
        if not self.future.done():  # cancelled while it ran
            self.future.set_result(result)

    def _set_exception(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class ThreadReply:
    """To another thread, which waits in `result`."""

    def __init__(self) -> None:
        self._future: concurrent.futures.Future[batcher.BatchResult] = concurrent.futures.Future()
        self.done = self._future.set_result
        self.failed = self._future.set_exception

    def result(self) -> batcher.BatchResult:
        """Wait for the outcome, and return or raise it."""
        return self._future.result()


class Runner(Protocol):
    """What runs jobs: threads with a session, or a pipeline on a device."""

    @property
    def in_flight(self) -> int:
        """Jobs that may be under way at once."""

    def submit(self, job: Job) -> None:
        """Take a job; its reply comes from another thread."""

    def close(self) -> None:
        """Finish what was taken, then end the threads."""
