"""Gathering ends when the event loop has nothing else to do, or when there is enough."""

import asyncio

import pytest

from service.batching import gathering


class Bringer:
    """Keeps the event loop busy for so many turns, and counts."""

    def __init__(self, turns: int) -> None:
        self.turns = turns

    def turn(self) -> None:
        sum(range(3000))  # as much as a call has to do
        self.turns -= 1
        if self.turns:
            asyncio.get_running_loop().call_soon(self.turn)


@pytest.mark.parametrize("gives_way", [False, True])
async def test_it_waits_until_nothing_more_is_brought(gives_way: bool) -> None:
    bringer = Bringer(100)
    ends: asyncio.Queue[int] = asyncio.Queue()
    gathered = gathering.Gathering(
        lambda: ends.put_nowait(bringer.turns), lambda seconds: seconds > 10, gives_way=gives_way
    )
    for _ in range(10):  # it learns how long a turn takes in which nothing happens
        gathered.begin()
        assert await ends.get() == 100
    gathered.begin()
    asyncio.get_running_loop().call_soon(bringer.turn)
    assert await ends.get() == 0


async def test_it_ends_when_there_is_enough_although_the_loop_is_busy() -> None:
    done = asyncio.get_running_loop().create_future()
    bringer = Bringer(10_000)
    gathered = gathering.Gathering(
        lambda: done.set_result(bringer.turns), lambda _: bringer.turns < 9_990, gives_way=False
    )
    asyncio.get_running_loop().call_soon(bringer.turn)
    gathered.begin()
    assert await done > 9_000
    bringer.turns = 1


async def test_it_is_begun_once_and_nothing_is_called_after_its_end() -> None:
    calls: list[None] = []
    gathered = gathering.Gathering(lambda: calls.append(None), lambda _: False, gives_way=False)
    gathered.begin()
    gathered.begin()
    await asyncio.sleep(0.01)
    assert len(calls) == 1
    gathered.begin()
    gathered.end()
    await asyncio.sleep(0.01)
    assert len(calls) == 1
