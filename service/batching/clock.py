"""The time that deadlines and runs are measured by.

Path: event loop → **clock** → batcher.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

LATE_S = 0.001
"""Event loops count milliseconds: what a timer was set for may begin so much later."""


class Timer(Protocol):
    """What `Clock.call_at` returns."""

    def cancel(self) -> None:
        """Do not call."""


class Clock(Protocol):
    """The event loop's clock, or a test's."""

    def time(self) -> float:
        """Seconds, monotonic."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back at that time."""


class LoopClock:
    """An event loop's clock, read exactly: uvloop's own `time` stands still for a millisecond, twenty LeNet-5 runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.time = time.monotonic
        self.call_at = loop.call_at
