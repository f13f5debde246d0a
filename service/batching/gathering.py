"""Waits until the event loop has brought all the requests that it has at hand.

Path: batcher, with a free device → **gathering** → batcher's dispatch.

gRPC hands over one call a turn of the event loop, each of them through several turns. While the loop
is busy the cores are, so a run started after the first call would not be done sooner; and for a small
network a run costs the loop more than the device. So a free device waits for two turns in which
nothing happened: some tens of microseconds where nobody else calls.
"""

import asyncio
import math
import os
import time
from collections.abc import Callable

_QUIET_TURN_S = 10e-6
"""A turn in which nothing happened takes less, one that brought something more."""
_QUIET_TURNS = 2


class Gathering:
    """Calls `then` when the event loop has nothing else to do, or `is_enough` says so.

    Mutable state: the turns; touched only on the event loop.
    """

    def __init__(self, then: Callable[[], None], is_enough: Callable[[float], bool], *, gives_way: bool) -> None:
        """Begin nothing yet.

        Args:
            then: what to do at the end.
            is_enough: whether to end after so many seconds, although the loop is busy.
            gives_way: every turn lets the other threads have the core, which has to do for all of them:
                gRPC's, which bring more.
        """
        self._then = then
        self._is_enough = is_enough
        self._gives_way = gives_way
        self._is_under_way = False
        self._since_s = self._turn_s = 0.0
        self._quiet_turns = 0
        self._quickest_s = math.inf

    def begin(self) -> None:
        """Begin, unless it is under way."""
        if not self._is_under_way:
            self._is_under_way = True
            self._quiet_turns = -1  # the turn that brought the first is not quiet
            self._since_s = self._turn_s = time.perf_counter()
            asyncio.get_running_loop().call_soon(self._turn)

    def end(self) -> None:
        """Do it now, or note that it is being done."""
        self._is_under_way = False

    def _turn(self) -> None:
        if not self._is_under_way:
            return
        now_s = time.perf_counter()
        turn_s = now_s - self._turn_s
        self._quickest_s = min(self._quickest_s, turn_s)
        is_quiet = turn_s < max(_QUIET_TURN_S, 2 * self._quickest_s)  # slow machines have slow turns
        self._quiet_turns = self._quiet_turns + 1 if is_quiet else 0
        if self._quiet_turns >= _QUIET_TURNS or self._is_enough(now_s - self._since_s):
            self._is_under_way = False
            self._then()
            return
        if self._gives_way:
            os.sched_yield()
        self._turn_s = time.perf_counter()
        asyncio.get_running_loop().call_soon(self._turn)
