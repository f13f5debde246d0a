"""The order of service: priorities, then shares."""

import collections
import dataclasses
import random

from hypothesis import given
from hypothesis import strategies as st

from service.batching import queue


@dataclasses.dataclass(eq=False)
class Request:
    caller: str = ""
    samples: int = 1
    level: int = 0
    number: int = 0


def waiting(*requests: Request) -> queue.Queue[Request]:
    filled: queue.Queue[Request] = queue.Queue()
    for request in requests:
        filled.add(request)
    return filled


def serve(served: queue.Queue[Request]) -> Request:
    head = next(iter(served))
    served.serve(head, head.samples)
    return head


def test_one_caller_is_served_in_order_of_arrival() -> None:
    requests = [Request(samples=samples) for samples in (3, 1, 2)]
    assert list(waiting(*requests)) == requests


def test_a_higher_priority_goes_first() -> None:
    low, high = Request(level=2), Request(level=0)
    assert list(waiting(low, high)) == [high, low]


def test_two_callers_are_served_in_turn_however_many_one_sends() -> None:
    flood, modest = [Request("flood") for _ in range(10)], [Request("modest") for _ in range(2)]
    order = list(waiting(*flood, *modest))
    assert sum(request.caller == "modest" for request in order[:4]) == 2


def test_shares_are_counted_in_samples() -> None:
    large, small = [Request("large", samples=8) for _ in range(4)], [Request("small") for _ in range(16)]
    order = list(waiting(*large, *small))
    assert sum(request.caller == "small" for request in order[: order.index(large[2])]) >= 8


def test_who_comes_new_saves_nothing_up() -> None:
    served = waiting(*(Request("old") for _ in range(20)))
    for _ in range(10):
        serve(served)
    for _ in range(10):
        served.add(Request("new"))
    callers = [serve(served).caller for _ in range(10)]
    assert callers.count("new") in {5, 6}


def test_nobody_pays_for_requests_that_were_given_up() -> None:
    given_up = [Request("unlucky") for _ in range(50)]
    served = waiting(*given_up)
    for request in given_up:
        served.remove(request)
    for number in range(4):
        served.add(Request("unlucky", number=number))
        served.add(Request("other", number=number))
    assert collections.Counter(serve(served).caller for _ in range(4)) == {"unlucky": 2, "other": 2}


def test_what_is_left_of_a_large_request_keeps_its_turn_among_its_caller_s() -> None:
    large, after = Request("one", samples=10), Request("one")
    served = waiting(large, after)
    served.serve(large, 4)
    large.samples -= 4
    assert list(served) == [large, after]
    assert served.samples == 7


def test_whoever_waits_is_served_although_new_callers_keep_coming() -> None:
    """Every new caller goes before the second request of one who has just had a turn; but not for ever."""
    patient = [Request("patient", number=0), Request("patient", number=1)]
    served = waiting(*patient)
    for turn in range(10):
        served.add(Request(f"new {turn}"))
        if serve(served) is patient[1]:
            return
    raise AssertionError("passed over for ever")


def test_removing_what_is_not_there_says_so() -> None:
    request = Request()
    served = waiting(request)
    assert served.remove(request)
    assert not served.remove(request)
    assert not served


def test_samples_before_a_new_request_are_those_of_higher_priorities_its_caller_s_and_others_shares() -> None:
    served = waiting(
        Request("other", samples=5, level=0),
        *(Request("flood", level=2) for _ in range(100)),
        *(Request("mine", level=2) for _ in range(3)),
    )
    assert served.samples_before(2, "mine") == 5 + 3 + 3
    assert served.samples_before(2, "new") == 5
    assert served.samples_before(2, "flood") == 5 + 100 + 3
    assert served.samples_before(0, "new") == 0


@st.composite
def histories(draw: st.DrawFn) -> list[Request]:
    return [
        Request(
            draw(st.sampled_from("abc")), draw(st.integers(1, 4)), draw(st.sampled_from([0, 0, 0, 2])), number=number
        )
        for number in range(draw(st.integers(1, 30)))
    ]


@given(histories(), st.integers(0, 1000))
def test_all_are_served_once_and_each_caller_s_in_order(requests: list[Request], seed: int) -> None:
    chance = random.Random(seed)
    served: queue.Queue[Request] = queue.Queue()
    left = list(requests)
    done: list[Request] = []
    while left or served:
        if left and (not served or chance.random() < 0.5):
            served.add(left.pop(0))
        else:
            done.append(serve(served))
        assert served.samples == sum(request.samples for request in served)
    assert sorted(request.number for request in done) == [request.number for request in requests]
    for flow in {(request.caller, request.level) for request in requests}:
        numbers = [request.number for request in done if (request.caller, request.level) == flow]
        assert numbers == sorted(numbers)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=20))
def test_two_who_always_wait_never_differ_by_more_than_their_largest_requests(sizes: list[int]) -> None:
    served: queue.Queue[Request] = queue.Queue()
    for number in range(200):
        served.add(Request("a", sizes[number % len(sizes)]))
        served.add(Request("b", sizes[-1 - number % len(sizes)]))
    had = collections.Counter(a=0, b=0)
    for _ in range(200):
        head = serve(served)
        had[head.caller] += head.samples
        assert abs(had["a"] - had["b"]) <= 2 * max(sizes)
