"""How many CPU cores this process may use: its affinity and its cgroup's quota, not the host's size."""

import contextlib
import logging
import math
import os
import pathlib
from collections.abc import Iterator

log = logging.getLogger(__name__)

_CGROUP = pathlib.Path("/sys/fs/cgroup")


def available(cgroup: pathlib.Path = _CGROUP) -> int:
    """Return the cores that the process may use, at least 1.

    Args:
        cgroup: where the process's cgroup files are (version 2, or version 1's `cpu` below it).
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, math.ceil(_quota(cgroup))))


def _quota(cgroup: pathlib.Path) -> float:
    """Cores per period that the cgroup allows; a large number without a limit."""
    unlimited = 1e6
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except OSError:
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return unlimited
    return unlimited if quota in {"max", "-1"} else int(quota) / int(period)


@contextlib.contextmanager
def threads_give_way() -> Iterator[None]:
    """Let the threads that are started within this never interrupt others, where one core has to do for all.

    Every message wakes gRPC's own threads several times. On one core each of them takes the core from
    the event loop, has little to do, and gives it back: 8 switches a message. Scheduled as SCHED_BATCH
    (sched(7): "not preempt"), they wait until the loop has nothing to do, and then find many messages
    at once. With more cores they run beside it and are left alone.
    """
    if available() > 1 or not hasattr(os, "SCHED_BATCH") or os.sched_getscheduler(0) != os.SCHED_OTHER:
        yield
        return
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # of this thread; others inherit it
    except OSError as error:
        log.warning("one core, and gRPC's threads will interrupt the event loop: %s", error)
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
