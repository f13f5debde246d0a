"""How many CPU cores this process may use: its affinity and its cgroup's quota, not the host's size."""

import math
import os
import pathlib

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
