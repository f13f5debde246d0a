"""Threads on one core."""

import subprocess
import sys

import pytest

SCRIPT = """
import os, sys, threading
os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: int(sys.argv[1])]))
from service.runtime import cores
found = []
with cores.threads_give_way():
    thread = threading.Thread(target=lambda: found.append(os.sched_getscheduler(0)))
    thread.start(), thread.join()
found.append(os.sched_getscheduler(0))
print(cores.available(), *found)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="SCHED_BATCH is Linux's")
@pytest.mark.parametrize(("wanted", "policy"), [(1, 3), (2, 0)])
def test_threads_give_way_on_one_core_only(wanted: int, policy: int) -> None:
    """3 is SCHED_BATCH, 0 SCHED_OTHER, which the starting thread has again afterwards."""
    ended = subprocess.run([sys.executable, "-c", SCRIPT, str(wanted)], capture_output=True, text=True, check=True)
    available, *policies = map(int, ended.stdout.split())
    if available != wanted:
        pytest.skip(f"this machine has {available} cores, and {wanted} were wanted")
    assert policies == [policy, 0]
