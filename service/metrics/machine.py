"""The computer's CPU and memory, as /proc tells them; of the whole machine, in a container too.

Path: /proc → **machine** → triton. The process's own are prometheus-client's `process_*`.
"""

import pathlib
import threading
from typing import NamedTuple


class Reading(NamedTuple):
    """What the machine has, and what of it is used."""

    utilization: float
    """Share of all cores that was busy since the reading before; 0 to 1."""
    memory_total_bytes: int
    memory_used_bytes: int
    """What programs could not have if they asked for it: all that is not "available"."""


class Machine:
    """Reads /proc.

    Mutable state: the ticks of the last reading; touched by whoever scrapes, under a lock.
    """

    def __init__(self, proc: pathlib.Path = pathlib.Path("/proc")) -> None:
        self._proc = proc
        self._lock = threading.Lock()
        self._before = (0, 0)
        self._utilization = 0.0

    def read(self) -> Reading | None:
        """Return the machine's state; None where there is no /proc."""
        try:
            stat = (self._proc / "stat").read_text()
            memory = (self._proc / "meminfo").read_text()
        except OSError:
            return None
        total_bytes, available_bytes = _bytes(memory, "MemTotal"), _bytes(memory, "MemAvailable")
        return Reading(self._share(*_ticks(stat)), total_bytes, total_bytes - available_bytes)

    def _share(self, busy: int, total: int) -> float:
        with self._lock:
            busy_before, total_before = self._before
            if total > total_before:  # else no tick has passed: what was said a moment ago still holds
                self._utilization = min(1.0, max(0.0, (busy - busy_before) / (total - total_before)))
                self._before = (busy, total)
            return self._utilization


def _ticks(stat: str) -> tuple[int, int]:
    """Busy and all ticks since boot, of the line "cpu" of /proc/stat; what guests use is in `user`."""
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, stat.split("\n", 1)[0].split()[1:9])
    busy = user + nice + system + irq + softirq + steal
    return busy, busy + idle + iowait


def _bytes(memory: str, name: str) -> int:
    line = next(line for line in memory.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
