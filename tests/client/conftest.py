"""Servers of the client's tests: several Fovea processes, started at once."""

import concurrent.futures
import contextlib
import pathlib
from collections.abc import Iterator

from tests import conftest
from tests.conftest import Exported, RunningServer


@contextlib.contextmanager
def several(exported: Exported, folder: pathlib.Path, count: int) -> Iterator[list[RunningServer]]:
    """Start so many servers side by side, and end them."""
    with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(count) as threads:
        started = [conftest.running(exported.repository, folder / f"log{number}") for number in range(count)]
        yield list(threads.map(stack.enter_context, started))


def commas(servers: list[RunningServer]) -> str:
    return ",".join(server.address for server in servers)
