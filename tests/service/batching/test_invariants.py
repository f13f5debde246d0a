"""What no decision may break, through the real batcher on random histories with a manual clock and manual runs."""

import asyncio
import collections
import dataclasses
import math
from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service import errors
from service.batching import batcher, costs, place, policy, slots
from tests import fakes

BUCKETS = (1, 2, 4, 8)
SECONDS = {rows: 10.0 + rows for rows in BUCKETS}
SAMPLES_MAX = 60
LEVELS = (policy.Level(), policy.Level(timeout_s=40.0), policy.Level(timeout_s=10.0, timeout_demotes=True))
FAILURES = (errors.Refused, errors.DeadlineExceeded, errors.RunFailed)


@dataclasses.dataclass(frozen=True)
class Event:
    """What happens next: a request comes, one goes away, a run ends, or time passes."""

    kind: str
    samples: int = 1
    caller: str = ""
    priority: int = 0
    slack_s: float = math.inf
    shape: int = 1
    seconds: float = 0.0
    fails: bool = False
    which: int = 0


EVENTS = st.one_of(
    st.builds(
        Event,
        kind=st.just("comes"),
        samples=st.integers(1, 20),
        caller=st.sampled_from("abc"),
        priority=st.integers(0, 3),
        slack_s=st.sampled_from([math.inf, math.inf, 12.0, 30.0, 80.0]),
        shape=st.integers(1, 2),
    ),
    st.builds(Event, kind=st.just("goes"), which=st.integers(0, 50)),
    st.builds(Event, kind=st.just("ends"), which=st.integers(0, 3), fails=st.sampled_from([False, False, False, True])),
    st.builds(Event, kind=st.just("passes"), seconds=st.sampled_from([0.5, 5.0, 20.0])),
)


@dataclasses.dataclass
class Run:
    """A run under way, or ended."""

    values: list[int]
    rows: int
    end: "asyncio.Future[Exception | None]"


@dataclasses.dataclass
class Sent:
    """A request, and the values that it carries: all different, so that each row tells whose it is."""

    event: Event
    values: list[int]
    deadline_s: float
    task: "asyncio.Task[list[int] | Exception]"


class History:
    """Plays events on a batcher, and checks what must hold after each."""

    def __init__(self, rules: policy.Policy, pads: bool, in_flight: int) -> None:
        self.clock, self.rules, self.pads, self.in_flight = fakes.ManualClock(), rules, pads, in_flight
        self.runs: list[Run] = []
        self.begun_s: list[float] = []
        self.sent: list[Sent] = []
        self.next_value = 0
        self.batcher = batcher.Batcher(
            "m",
            self.run,
            rules,
            costs.Costs(costs.Measured(SECONDS, pads)),
            limits=batcher.Limits(SAMPLES_MAX, in_flight),
            clock=self.clock,
            observer=fakes.Observed(),
        )

    async def run(self, requests: list[slots.Tensors], wanted: frozenset[str], rows: int) -> batcher.BatchResult:
        assert len({request["x"].shape[1:] for request in requests}) == 1, "shapes are not mixed"
        values = np.concatenate([request["x"] for request in requests])
        run = Run([int(row.flat[0]) for row in values], rows, asyncio.get_running_loop().create_future())
        self.runs.append(run)
        self.begun_s.append(self.clock.now_s)
        assert len(self.under_way()) <= self.in_flight
        assert len(values) <= min(rows, self.rules.batch_samples_max), "no bucket is overfilled"
        assert rows in BUCKETS if self.pads else rows == len(values)
        if (error := await run.end) is not None:
            raise error
        return batcher.BatchResult({"y": values.reshape(len(values), -1)[:, 0] * 2}, 0.0, 0.0)

    def under_way(self) -> list[Run]:
        return [run for run in self.runs if not run.end.done()]

    async def ask(self, event: Event, values: list[int], deadline_s: float) -> list[int] | Exception:
        """The answer, or why there is none."""
        rows = np.array(values).reshape(-1, 1).repeat(event.shape, axis=1)
        who = place.Caller(event.caller, event.priority, deadline_s)
        try:
            with self.batcher.admit(len(values), who) as admitted:
                answer = await admitted.submit({"x": rows}, frozenset({"y"}))
        except FAILURES as error:
            return error
        return [int(value) for value in answer.outputs["y"]]

    async def play(self, event: Event) -> None:
        if event.kind == "comes":
            values = list(range(self.next_value, self.next_value + event.samples))
            self.next_value += event.samples
            deadline_s = self.clock.now_s + event.slack_s
            task = asyncio.create_task(self.ask(event, values, deadline_s))
            self.sent.append(Sent(event, values, deadline_s, task))
        elif event.kind == "goes" and self.sent:
            self.sent[event.which % len(self.sent)].task.cancel()
        elif event.kind == "ends" and (under_way := self.under_way()):
            run = under_way[event.which % len(under_way)]
            run.end.set_result(RuntimeError("broken") if event.fails else None)
        elif event.kind == "passes":
            self.clock.advance(event.seconds)
        await settle()
        self.check()

    def check(self) -> None:
        waiting = list(self.batcher._queue)
        assert self.batcher.samples_waiting == sum(one.samples for one in waiting) <= SAMPLES_MAX
        assert all(one.deadline_s > self.clock.now_s for one in waiting), "who is out of time is told so"
        if len(self.under_way()) < self.in_flight and not self.rules.delay_s:
            assert not waiting, "a free device is not kept waiting"
        counts = collections.Counter(value for run in self.runs for value in run.values)
        assert all(count == 1 for count in counts.values()), "nobody runs twice"

    async def finish(self) -> None:
        closing = asyncio.create_task(self.batcher.aclose())
        await settle()
        while under_way := self.under_way():
            under_way[0].end.set_result(None)
            await settle()
        await closing
        assert self.batcher.samples_waiting == 0
        for sent in self.sent:
            assert sent.task.done(), "nobody is lost"
            if not sent.task.cancelled() and not isinstance(sent.task.result(), Exception):
                assert sent.task.result() == [2 * value for value in sent.values], "the rows come back in order"


async def settle() -> None:
    """Let everything happen that happens without the clock; a busy event loop counts as quiet after 1 ms."""
    for _ in range(150):
        await asyncio.sleep(0)


def played(history: Callable[[], History], events: list[Event]) -> History:
    async def play() -> History:
        made = history()
        for event in events:
            await made.play(event)
        await made.finish()
        return made

    return asyncio.run(play())


POLICIES = (
    policy.Policy(8),
    policy.Policy(8, levels=LEVELS, default_priority=2),
    policy.Policy(8, delay_s=6.0, preferred_samples=(4,)),
    policy.Policy(6, merges_requests=False),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=25), st.sampled_from(POLICIES), st.booleans(), st.integers(1, 2))
def test_nobody_is_lost_or_answered_twice_and_all_room_comes_back(
    events: list[Event], rules: policy.Policy, pads: bool, in_flight: int
) -> None:
    played(lambda: History(rules, pads, in_flight), events)


COMING = st.builds(
    Event,
    kind=st.just("comes"),
    samples=st.integers(1, 12),
    caller=st.sampled_from("ab"),
    priority=st.integers(1, 2),
    shape=st.integers(1, 2),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(COMING, st.just(Event("ends"))), max_size=25), st.booleans())
def test_order_is_kept_within_a_priority_caller_and_shape(events: list[Event], pads: bool) -> None:
    rules = policy.Policy(8, levels=(policy.Level(), policy.Level()))
    history = played(lambda: History(rules, pads, 1), events)
    ran = [value for run in history.runs for value in run.values]
    flows: dict[tuple[str, int, int], list[int]] = collections.defaultdict(list)
    for sent in history.sent:
        if isinstance(sent.task.result(), list):
            flows[sent.event.caller, sent.event.priority, sent.event.shape] += sent.values
    for values in flows.values():
        wanted = set(values)
        assert [value for value in ran if value in wanted] == values


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(10, 40), st.integers(1, 8))
def test_of_two_callers_the_one_that_does_not_flood_is_in_the_next_batch(
    size: int, flood: int, batches_before: int
) -> None:
    events = [Event("comes", caller="flood", samples=1) for _ in range(flood)]
    events += [Event("ends")] * batches_before
    events += [Event("comes", caller="modest", samples=size), Event("ends")]

    async def play() -> None:
        history = History(policy.Policy(8), pads=False, in_flight=1)
        for event in events:
            await history.play(event)
        modest = set(history.sent[-1].values)
        assert modest <= set(history.runs[-1].values)
        await history.finish()

    asyncio.run(play())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([14.0, 30.0, 80.0, math.inf]), st.integers(1, 4)), min_size=1, max_size=6))
def test_a_delay_on_a_free_device_makes_nobody_late(asked: list[tuple[float, int]]) -> None:
    """The delay is longer than any deadline; whoever is in the run that ends it is in time."""

    async def play() -> None:
        history = History(policy.Policy(8, delay_s=100.0), pads=False, in_flight=1)
        for slack_s, samples in asked:
            await history.play(Event("comes", samples=samples, slack_s=slack_s))
            await history.play(Event("passes", seconds=0.25))
        for _ in range(400):
            if not history.runs:
                await history.play(Event("passes", seconds=0.25))
        let_in = [one for one in history.sent if not one.task.done()]
        assert bool(history.runs) == bool(let_in), "all the others were refused as they came"
        if history.runs:
            ends_s = history.begun_s[0] + 10.0 + len(history.runs[0].values)
            assert all(ends_s <= one.deadline_s for one in let_in if one.values[0] in history.runs[0].values)
        await history.finish()

    asyncio.run(play())
