"""The machine that a run was made on: figures mean nothing without it.

Path: **machine** → result.
"""

import dataclasses
import datetime
import ipaddress
import os
import pathlib
import platform


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """The generator's machine; `load_before` is the load average over a minute when the run began."""

    processor: str
    cores: int
    system: str
    python: str
    load_before: float | None
    began: str
    is_shared_with_server: bool
    """Whether the server's address is one of this machine's own: then both take each other's time."""


def describe(address: str) -> Machine:
    """Return this machine, before a run against a server at `address`."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        load_before=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        began=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        is_shared_with_server=is_loopback(address),
    )


def is_loopback(address: str) -> bool:
    """Whether an address names this machine: localhost, 127.*, ::1 or a Unix socket."""
    host = address.rpartition(":")[0].strip("[]").removeprefix("dns:///")
    if address.startswith("unix:") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
