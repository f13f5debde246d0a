"""`fovea top` beside real servers under load."""

import asyncio
import contextlib
import os
import pathlib
import pty
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import prometheus_client
import pytest
import rich.console

from service import client
from service.top import places, table, watch
from tests.conftest import FOVEA, Exported, RunningServer, running

DRAWN_WITHIN_S = 60.0


@contextlib.contextmanager
def load(address: str, pngs: list[bytes]) -> Iterator[None]:
    """Eight callers, and now and then one with a bad image, from another thread."""
    ending = threading.Event()

    async def call(connection: client.Client, number: int) -> None:
        while not ending.is_set():
            await connection.classify(pngs[number], "lenet5")

    async def callers() -> None:
        async with client.Client(address) as connection:
            await asyncio.gather(*[call(connection, number) for number in range(8)], fail(connection))

    async def fail(connection: client.Client) -> None:
        while not ending.is_set():
            with pytest.raises(client.CallFailed):
                await connection.classify(b"no image", "lenet5")
            await asyncio.sleep(0.01)

    thread = threading.Thread(target=asyncio.run, args=(callers(),))
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def drawn(view: watch.View, width: int = 160) -> str:
    console = rich.console.Console(record=True, width=width, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    with console.file:
        console.print(table.draw(view, width))
    return console.export_text()


def where(server: RunningServer) -> places.Where:
    return places.where(server.http)


def test_a_table_of_two_servers_under_load(
    server: RunningServer, exported: Exported, tmp_path: pathlib.Path, pngs: list[bytes]
) -> None:
    with (
        running(exported.repository, tmp_path / "log") as other,
        watch.Watch([where(server), where(other)]) as watching,
        load(server.address, pngs),
        load(other.address, pngs),
    ):
        watching.begin()
        view = watching.look()
        for _ in range(4):
            time.sleep(0.5)  # figures are of a time
            view = watching.look()
    (model,) = [model for model in view.models if model.model == "lenet5"]
    assert model.images_per_s
    assert model.images_per_s == model.requests_per_s
    assert model.errors_per_s
    assert model.p50_s is not None
    assert model.p99_s is not None
    assert 0 < model.p50_s <= model.p99_s < 10
    assert model.batch_mean is not None
    assert 1 <= model.batch_mean <= 8
    text = drawn(view)
    assert "2 of 2 servers answering" in text
    assert all(f"● {where(one)}" in text for one in (server, other))
    (row,) = [line for line in text.splitlines() if line.startswith("lenet5/1")]
    assert re.search(r"[▁▂▃▄▅▆▇█]{4}", row)
    assert f"{model.images_per_s:,.{1 if model.images_per_s < 1000 else 0}f}" in row
    narrow = drawn(view, width=100)
    assert "err/s" in narrow
    assert not re.search("…", narrow), "the numbers whole, before there is room for pictures"


def test_a_server_that_goes_is_shown_as_gone_and_the_others_go_on(
    server: RunningServer, exported: Exported, tmp_path: pathlib.Path
) -> None:
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(running(exported.repository, tmp_path / "log"))
        watching = stack.enter_context(watch.Watch([where(server), where(other)]))
        watching.begin()
        other.process.send_signal(signal.SIGKILL)
        other.process.wait()
        text = drawn(watching.look())
    assert "1 of 2 servers answering" in text
    assert f"○ {where(other)}  cannot be reached" in text
    assert "lenet5/1" in text


def top(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([FOVEA, "top", *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_once_prints_one_table(server: RunningServer) -> None:
    ended = top(where(server).host + f":{where(server).port}", "--once", "--interval", "200ms")
    assert ended.returncode == 0, ended.stderr
    assert "1 of 1 server answering" in ended.stdout
    assert re.search(r"^lenet5/1 +0\.0 ", ended.stdout, re.MULTILINE)
    assert "\x1b" not in ended.stdout


def test_what_is_no_metrics_of_a_server_is_a_sentence(server: RunningServer) -> None:
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.Counter("others", "Somebody else's.", registry=registry)
    httpd, thread = prometheus_client.start_http_server(0, "127.0.0.1", registry)
    with socket.create_server(("127.0.0.1", 0)) as nobody_listens:
        free = nobody_listens.getsockname()[1]
    try:
        cases = {
            server.address: "does not speak HTTP (is it the gRPC port?)",
            f"127.0.0.1:{httpd.server_port}": "has no fovea_* metrics: not a Fovea server",
            f"127.0.0.1:{free}": "cannot be reached (Connection refused)",
            "nowhere.invalid": "cannot be looked up",
        }
        for address, sentence in cases.items():
            ended = top(address, "--once")
            assert (ended.returncode, ended.stdout) == (1, "")
            assert sentence in ended.stderr
            assert "Traceback" not in ended.stderr
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def test_without_a_terminal_it_asks_for_once(server: RunningServer) -> None:
    ended = top(str(where(server)))
    assert (ended.returncode, "--once prints one table" in ended.stderr) == (1, True)


def test_it_draws_on_a_terminal_until_it_is_interrupted(server: RunningServer) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "24"}
    command = [FOVEA, "top", str(where(server)), "--interval", "200ms"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=environment)
    os.close(theirs)
    seen = b""
    give_up_s = time.monotonic() + DRAWN_WITHIN_S
    try:
        while seen.count(b"lenet5/1") < 3 and time.monotonic() < give_up_s:
            if select.select([ours], [], [], 1.0)[0]:
                seen += os.read(ours, 65536)
        assert seen.count(b"lenet5/1") >= 3, seen
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()
        os.close(ours)


def test_a_name_stands_for_all_addresses_behind_it() -> None:
    assert places.behind(places.Where("localhost", 8002)) == [places.Where("127.0.0.1", 8002)]
