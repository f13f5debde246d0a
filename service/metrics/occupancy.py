"""How much of what can run out is taken: the device, decode threads, the event loop, cores.

Path: batcher → **occupancy** → families.

Each is a counter of busy seconds in which a second counts fully when all of the resource was taken,
and by its share otherwise. So the counter's rate is the saturation, 0 to 1, whatever the number of
instances, threads or cores.
"""

import collections
import threading
import time
from collections.abc import Callable

WINDOW_S = 5.0
"""A saturation is the mean of at least so long: many runs of any model, or it would be all or nothing."""
_APART_S = 1.0
"""Readings that are remembered are so far apart: however often somebody scrapes, there are few."""


class Busy:
    """Busy seconds of something that is taken in shares of the whole.

    Mutable state: `_state`, replaced as a whole on the event loop, so that a scrape from another thread sees
    three numbers that belong together.
    """

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = (0.0, 0.0, 0.0)

    def occupy(self, share: float, now_s: float) -> None:
        """Take a share of it from now on; a negative one gives it back."""
        since_s, taken, busy_s = self._state
        self._state = (now_s, taken + share, busy_s + (taken if taken < 1.0 else 1.0) * (now_s - since_s))

    def seconds(self, now_s: float) -> float:
        """Return the busy seconds until now."""
        since_s, taken, busy_s = self._state
        return busy_s + min(1.0, max(0.0, taken)) * max(0.0, now_s - since_s)


class Saturation:
    """A counter of busy seconds as it is published: it never falls, and its growth is also given as a gauge.

    Mutable state: the readings; touched by whoever scrapes, under a lock.
    """

    def __init__(self, busy_s: Callable[[float], float], now_s: float) -> None:
        """Take what returns the busy seconds until a time, and the time now."""
        self._busy_s = busy_s
        self._lock = threading.Lock()
        self._readings = collections.deque([(now_s, busy_s(now_s))])
        self._published_s = 0.0

    def read(self, now_s: float) -> tuple[float, float]:
        """Return the busy seconds until now, and the share since the last reading that is at least WINDOW_S old.

        So who scrapes once a minute is told the mean of the minute, and who looks every second that of some seconds.
        """
        with self._lock:
            # Whoever counts may have read the clock a moment before the last scrape did; a counter never falls.
            busy_s = self._published_s = max(self._published_s, self._busy_s(now_s))
            readings = self._readings
            while len(readings) > 1 and readings[1][0] <= now_s - WINDOW_S:
                readings.popleft()
            from_s, from_busy_s = readings[0]
            if now_s - readings[-1][0] >= _APART_S:
                readings.append((now_s, busy_s))
        share = (busy_s - from_busy_s) / (now_s - from_s) if now_s > from_s else 0.0
        return busy_s, min(1.0, max(0.0, share))


def process_cpu(cores: int) -> Callable[[float], float]:
    """Return the busy seconds of the cores that this process may use."""
    return lambda now_s: time.process_time() / cores


def thread_cpu(thread: int) -> Callable[[float], float]:
    """Return the CPU seconds of a thread of this process, given by `threading.get_ident`: of one core, all there is."""
    clock = time.pthread_getcpuclockid(thread)
    return lambda now_s: time.clock_gettime(clock)
