"""Several generator processes that make one load: one event loop is one core at most.

Path: run → **processes** ─a pipe each─▶ generator in another process → one tally.

They begin at the same moment of `time.monotonic`, which all processes of a machine share, and count into the same
windows; so their tallies add up as if one process had counted.
"""

import asyncio
import contextlib
import dataclasses
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import Any

from service import errors
from service.loadgen import generator, ledger, plan, result, tally, target

_BEGIN_AFTER_S = 0.1
"""From the order to the beginning: enough for the order to reach all."""

_START_WITHIN_S = 60.0
_END_WITHIN_S = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class _Order:
    run: int
    chosen: plan.Plan
    frame: tally.Frame


@dataclasses.dataclass(frozen=True, slots=True)
class _Stop:
    run: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Lost:
    """A run ended with an error that nobody expected."""

    reason: str


class _Worker:
    """This side of one process.

    Mutable state: the process and its pipe; messages that came; touched only on the event loop.
    """

    def __init__(self, number: int, address: str, requests: Sequence[bytes], cpus: Sequence[int]) -> None:
        context = multiprocessing.get_context("spawn")  # never forked: gRPC's threads would not come along
        self._number = number
        self._pipe, other = context.Pipe()
        cpu = cpus[number % len(cpus)] if cpus else None
        self._process = context.Process(target=_work, args=(other, address, list(requests), cpu), daemon=True)
        self._process.start()
        other.close()
        self.came: asyncio.Queue[Any] = asyncio.Queue()
        _listen(self._pipe, self._receive)

    def send(self, message: _Order | _Stop) -> None:
        """Order a run, or its end."""
        try:
            self._pipe.send(message)
        except OSError:
            self.came.put_nowait(self._gone())

    async def close(self) -> None:
        """End the process: it ends with its pipe."""
        self._leave()
        self._pipe.close()
        await asyncio.to_thread(self._process.join, _END_WITHIN_S)
        if self._process.is_alive():
            self._process.kill()

    def _receive(self) -> None:
        try:
            self.came.put_nowait(self._pipe.recv())
        except (EOFError, OSError):
            self._leave()
            self.came.put_nowait(self._gone())

    def _leave(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())

    def _gone(self) -> _Lost:
        self._process.join(1.0)
        return _Lost(f"generator process {self._number} ended with status {self._process.exitcode}")


class Processes:
    """The generator in several processes; started by `start`, ended by `close`.

    Mutable state: the workers, and the number of the run; touched only on the event loop.
    """

    def __init__(self, address: str, requests: Sequence[bytes], count: int, cpus: Sequence[int] = ()) -> None:
        self._address, self._requests, self._count, self._cpus = address, requests, count, cpus
        self._workers: list[_Worker] = []
        self._run = 0

    async def start(self) -> None:
        """Start the processes and wait until all are there.

        Raises:
            StartupError: one of them is not.
        """
        self._workers = [
            _Worker(number, self._address, self._requests, self._cpus) for number in range(self._count)
        ]  # fmt: skip
        for worker in self._workers:
            try:
                message = await asyncio.wait_for(worker.came.get(), _START_WITHIN_S)
            except TimeoutError:
                message = _Lost(f"a generator process did not start within {_START_WITHIN_S:.0f} s")
            _raise_if_lost(message)

    async def generate(self, chosen: plan.Plan, watch: generator.Watch) -> generator.Counted:
        """See Generator."""
        self._run += 1
        frame = tally.frame(chosen, time.monotonic() + _BEGIN_AFTER_S)
        for number, worker in enumerate(self._workers):
            worker.send(_Order(self._run, plan.share(chosen, number, self._count), frame))
        heard = _Heard(watch, self._count)
        counted = await asyncio.gather(*(_until_done(worker, heard) for worker in self._workers))
        whole = tally.Tally()
        for one in counted:
            whole.merge(one.tally)
        period = result.Period(
            frame.started_s,
            min(one.period.measured_from_s for one in counted),
            max(one.period.ended_s for one in counted),
        )
        return generator.Counted(whole, period, tuple(seconds for one in counted for seconds in one.cpu_s))

    def stop(self) -> None:
        """See Generator."""
        for worker in self._workers:
            worker.send(_Stop(self._run))

    async def close(self) -> None:
        """End the processes."""
        await asyncio.gather(*(worker.close() for worker in self._workers))


class _Heard:
    """Puts the processes' progress together.

    Mutable state: the last progress of each, and what ended since the last look; touched only on the event loop.
    """

    def __init__(self, watch: generator.Watch, count: int) -> None:
        self._watch = watch
        self._count = count
        self._last: dict[int, generator.Progress] = {}
        self._recent = ledger.Recent()
        self._news = 0

    def hear(self, worker: int, progress: generator.Progress) -> None:
        """Note one process's progress; after as many as there are processes, tell of all."""
        self._last[worker] = progress
        self._recent.ok += progress.recent.ok
        self._recent.failed += progress.recent.failed
        self._recent.latency.merge(progress.recent.latency)
        self._news += 1
        if self._news < self._count:
            return
        ok, failed = (sum(getattr(one, name) for one in self._last.values()) for name in ("ok", "failed"))
        self._watch(generator.Progress(progress.elapsed_s, progress.all_s, ok, failed, self._recent))
        self._recent, self._news = ledger.Recent(), 0


async def _until_done(worker: _Worker, heard: _Heard) -> generator.Counted:
    while True:
        message = await worker.came.get()
        _raise_if_lost(message)
        if isinstance(message, generator.Counted):
            return message
        heard.hear(id(worker), message)


def _listen(pipe: connection.Connection, receive: Callable[[], None]) -> None:
    """Call when a message has begun to come. uvloop makes the pipe non-blocking, but a message is read whole."""
    asyncio.get_running_loop().add_reader(pipe.fileno(), receive)
    os.set_blocking(pipe.fileno(), True)


def _raise_if_lost(message: object) -> None:
    if isinstance(message, _Lost):
        raise errors.StartupError(f"{message.reason}; the run was given up")


def _work(pipe: connection.Connection, address: str, requests: list[bytes], cpu: int | None) -> None:
    """Run in the other process: take orders until the pipe ends. Ctrl-C is the first process's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    with contextlib.suppress(EOFError, OSError):
        generator.run_loop(_serve(pipe, address, requests))


async def _serve(pipe: connection.Connection, address: str, requests: list[bytes]) -> None:
    channel = target.open_channel(address)
    try:
        orders = _Orders(pipe, generator.Here(channel, requests))
        orders.listen()
        pipe.send("ready")
        await orders.obey()
    finally:
        await channel.close()


class _Orders:
    """What the first process wants, in another one.

    Mutable state: orders to come, the run under way, and the run to be stopped; touched only on the event loop.
    """

    def __init__(self, pipe: connection.Connection, here: generator.Here) -> None:
        self._pipe, self._here = pipe, here
        self._came: asyncio.Queue[_Order | None] = asyncio.Queue()
        self._stopped_run = 0

    def listen(self) -> None:
        """Take messages from now on."""
        _listen(self._pipe, self._receive)

    async def obey(self) -> None:
        """Run what is ordered, until the pipe ends. A stop may come before its run begins, or after it is over."""
        while (order := await self._came.get()) is not None:
            chosen = order.chosen
            if order.run == self._stopped_run:
                chosen = dataclasses.replace(chosen, duration_s=0.0, warmup_s=0.0)
            try:
                self._pipe.send(await self._here.generate_at(chosen, order.frame, self._pipe.send))
            except OSError:
                raise
            except Exception as error:  # whatever it is: the first process must hear of it, not wait forever
                self._pipe.send(_Lost(f"a generator process failed: {error!r}"))

    def _receive(self) -> None:
        try:
            message = self._pipe.recv()
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())
            self._came.put_nowait(None)
            self._here.stop()
            return
        if isinstance(message, _Stop):
            self._stopped_run = message.run
            self._here.stop()
        else:
            self._came.put_nowait(message)
