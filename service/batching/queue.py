"""The order in which waiting requests are served: by priority, then fairly over callers.

Path: admission → **queue** → planner.

Within a priority it is start-time fair queueing (Goyal, Vin, Cheng, 1996). Every caller who waits
has a tag, which grows by the samples he is served; the lowest goes first. Who comes new gets the
tag up to which others have been served: nobody saves up while he is idle, and nobody pays for
requests that were refused or given up. One caller alone is served in order of arrival.

Nobody is passed over for ever by his own priority: what newcomers get grows with every run, so
whoever waits has the lowest tag some day. A lower priority can wait for ever behind a higher one
that leaves no room, as in Triton.
"""

import contextlib
import heapq
import itertools
from collections.abc import Iterable, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

_CALLERS_LOOKED_AT = 64
"""How many callers are looked at to say how much is before a request; the others are taken to be like them."""


class Queued(Protocol):
    """What has a place in the queue."""

    level: int
    """0 is served first."""
    caller: str
    samples: int
    """What is left of it to serve."""
    arrived_s: float
    """When it was admitted, in seconds of the batcher's clock."""


Q = TypeVar("Q", bound=Queued)


class Waiting(NamedTuple):
    """What waits, for people: samples, requests, and for how long the oldest of them has waited."""

    samples: int
    requests: int
    oldest_age_s: float


class Queue(Generic[Q]):
    """Waiting requests in their order.

    Mutable state: the levels and all in them; touched only on the event loop.
    """

    def __init__(self) -> None:
        self.samples = 0
        self._levels: dict[int, _Level[Q]] = {}

    def __bool__(self) -> bool:
        return bool(self._levels)

    def __iter__(self) -> Iterator[Q]:
        if len(self._levels) == 1:
            (level,) = self._levels.values()
            return level.ordered()
        return itertools.chain.from_iterable(self._levels[number].ordered() for number in sorted(self._levels))

    def requests(self, level: int) -> int:
        """Return how many requests of a level wait."""
        return self._levels[level].requests if level in self._levels else 0

    def waiting(self, now_s: float) -> Waiting:
        """Return what waits. From any thread: it copies before it looks, and misses what comes or goes meanwhile."""
        requests, oldest_s = 0, now_s
        for level in list(self._levels.values()):
            requests += level.requests
            for flow in list(level.flows.values()):
                with contextlib.suppress(StopIteration, RuntimeError):  # emptied or changed under our eyes
                    oldest_s = min(oldest_s, next(iter(flow.requests)).arrived_s)
        return Waiting(self.samples, requests, now_s - oldest_s)

    def samples_before(self, level: int, caller: str) -> int:
        """Return how many of the waiting samples would be served before a new request of that caller."""
        before = sum(other.samples for number, other in self._levels.items() if number < level)
        return before + (self._levels[level].samples_before(caller) if level in self._levels else 0)

    def add(self, request: Q) -> None:
        """Put a request behind the others of its level and caller."""
        level = self._levels.get(request.level)
        if level is None:
            level = self._levels[request.level] = _Level()
        level.add(request)
        self.samples += request.samples

    def remove(self, request: Q) -> bool:
        """Take a request out, unserved; False if it was not there."""
        level = self._levels.get(request.level)
        flow = level.flows.get(request.caller) if level else None
        if level is None or flow is None or request not in flow.requests:
            return False
        self._take(level, flow, request, request.samples)
        return True

    def serve(self, request: Q, samples: int) -> None:
        """Note that so many samples of a request are served; it is taken out if those are all that is left."""
        level = self._levels[request.level]
        flow = level.flows[request.caller]
        flow.tag += samples
        level.served = max(level.served, flow.tag)
        self._take(level, flow, request, samples)

    def _take(self, level: "_Level[Q]", flow: "_Flow[Q]", request: Q, samples: int) -> None:
        self.samples -= samples
        level.samples -= samples
        flow.samples -= samples
        if samples == request.samples:
            del flow.requests[request]
            level.requests -= 1
            if not flow.requests:
                del level.flows[request.caller]
                if not level.flows:
                    del self._levels[request.level]


class _Flow(Generic[Q]):
    """One caller's requests of one level, in order of arrival."""

    __slots__ = ("number", "requests", "samples", "tag")

    def __init__(self, tag: int, number: int) -> None:
        self.tag = tag
        self.number = number
        self.samples = 0
        self.requests: dict[Q, None] = {}


class _Level(Generic[Q]):
    """The callers of one level."""

    def __init__(self) -> None:
        self.flows: dict[str, _Flow[Q]] = {}
        self.samples = 0
        self.requests = 0
        self.served = 0
        self._numbers = itertools.count(0, -1)  # of equal tags the newest goes first: he has had nothing lately

    def add(self, request: Q) -> None:
        flow = self.flows.get(request.caller)
        if flow is None:
            flow = self.flows[request.caller] = _Flow(self.served, next(self._numbers))
        flow.requests[request] = None
        flow.samples += request.samples
        self.samples += request.samples
        self.requests += 1

    def ordered(self) -> Iterator[Q]:
        if len(self.flows) == 1:
            (flow,) = self.flows.values()
            return iter(flow.requests)
        return _merged(self.flows.values())

    def samples_before(self, caller: str) -> int:
        mine = self.flows.get(caller)
        if mine is not None and len(self.flows) == 1:
            return mine.samples
        tag = mine.tag + mine.samples if mine else self.served
        others = [flow for flow in itertools.islice(self.flows.values(), _CALLERS_LOOKED_AT) if flow is not mine]
        before = sum(min(flow.samples, max(0, tag - flow.tag)) for flow in others)
        if others:
            before = before * (len(self.flows) - (mine is not None)) // len(others)
        return before + (mine.samples if mine else 0)


def _merged(flows: Iterable[_Flow[Q]]) -> Iterator[Q]:
    """The requests of several callers, each time of the one with the lowest tag."""
    heap = [(flow.tag, flow.number, iter(flow.requests)) for flow in flows]
    heapq.heapify(heap)
    while heap:
        tag, number, requests = heap[0]
        request = next(requests, None)
        if request is None:
            heapq.heappop(heap)
            continue
        yield request
        heapq.heapreplace(heap, (tag + request.samples, number, requests))
