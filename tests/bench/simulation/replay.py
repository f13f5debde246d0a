"""Replays a trace through our batcher, the real one, in virtual time.

Path: traces → **replay** → outcome.
"""

import asyncio
import math
import selectors
from collections.abc import Sequence

import numpy as np

from service import errors
from service.batching import batcher, costs, place, policy, slots
from tests.bench.simulation import devices, outcome, traces

_ROWS = np.zeros((64, 1), np.uint8)
_UNBOUNDED = 1 << 40


class _NoSelector(selectors.SelectSelector):
    """Waits for nothing: time goes on by as much as it would have waited."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits, and nothing will happen any more")
        self.now_s += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while everybody waits, and then at once."""

    def __init__(self) -> None:
        self._virtual = _NoSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s


class _Unobserved:
    def ran(self, samples: int, rows: int, gather_s: float, run_s: float) -> None:
        pass

    def occupied(self, share: float, now_s: float) -> None:
        pass


class _Replay:
    def __init__(self, device: devices.Device, trace: traces.Trace) -> None:
        self.device = device
        self.outcome = outcome.Outcome(trace)
        self.noise = devices.Noise()

    async def run(self) -> outcome.Outcome:
        loop = asyncio.get_running_loop()
        served = batcher.Batcher(
            "simulated",
            self.run_batch,
            policy.Policy(self.device.samples_max),
            costs.Costs(self.device.measured),
            limits=batcher.Limits(_UNBOUNDED, self.device.instances),
            clock=loop,
            observer=_Unobserved(),
        )
        tasks = []
        for number, arrival in enumerate(self.outcome.trace.arrivals):
            if arrival.at_s > loop.time():
                await asyncio.sleep(arrival.at_s - loop.time())
            tasks.append(loop.create_task(self.ask(served, number, arrival)))
        await asyncio.gather(*tasks)
        await served.aclose()
        return self.outcome

    async def ask(self, served: batcher.Batcher, number: int, arrival: traces.Arrival) -> None:
        who = place.Caller(arrival.caller, deadline_s=arrival.deadline_s)
        inputs = {"x": np.zeros((arrival.samples, 1 + arrival.shape), np.uint8)}
        try:
            with served.admit(arrival.samples, who) as admitted:
                self.outcome.accepted += 1
                await admitted.submit(inputs, frozenset({"y"}))
        except (errors.Refused, errors.DeadlineExceeded):
            return
        self.outcome.ended_s[number] = asyncio.get_running_loop().time()

    async def run_batch(
        self, requests: Sequence[slots.Tensors], wanted: frozenset[str], rows: int
    ) -> batcher.BatchResult:
        samples = sum(len(request["x"]) for request in requests)
        assert rows == self.device.rows(samples), "the rows that run are a bucket's"
        assert samples <= self.device.samples_max
        seconds = self.device.seconds(rows) * self.noise()
        self.outcome.rows_run += rows
        await asyncio.sleep(seconds)
        return batcher.BatchResult({"y": _ROWS[:samples]}, 0.0, seconds)


def ours(device: devices.Device, trace: traces.Trace) -> outcome.Outcome:
    """What becomes of a trace with our batcher; waits for nothing in real time."""
    assert math.isfinite(trace.duration_s)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_Replay(device, trace).run())
