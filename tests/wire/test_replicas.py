"""Three replicas on one port of three addresses, as Pods behind a headless Service: load is shared, none is lost.

Addresses are known by a list, where a replica comes back to its place, or by a name that is looked up again and again.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

from export import digits
from service import client
from tests.conftest import Exported, RunningServer, running

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = ("ours-streams", "ours-unary", "stock-streams", "stock-unary")
CALLS = 300
SHARE = 0.1
"""How far from an even share a replica may be."""

EVEN_WITHIN_S = 60.0
"""How long callers may take to connect to a new replica."""

NAME = "fovea.replicas.test"


@dataclasses.dataclass
class Replicas:
    """Servers by address, all on one port. Mutable state: those that run."""

    exported: Exported
    folder: pathlib.Path
    port: int
    stack: contextlib.ExitStack
    servers: dict[str, RunningServer] = dataclasses.field(default_factory=dict)

    def start(self, *hosts: str) -> None:
        """Start servers side by side."""
        with concurrent.futures.ThreadPoolExecutor(len(hosts)) as threads:
            for host, server in zip(hosts, threads.map(self._start, hosts), strict=True):
                self.servers[host] = server

    def _start(self, host: str) -> RunningServer:
        log = self.folder / f"{host}.{len(list(self.folder.iterdir()))}.log"
        flags = ("--host", host, "--grpc-port", str(self.port), "--drain-delay-s", "0.5")
        return self.stack.enter_context(running(self.exported.repository, log, *flags))

    def counts(self) -> dict[str, int]:
        """How many images each has answered."""
        answered = {}
        for host in self.servers:
            with client.SyncClient(f"{host}:{self.port}") as served:
                answered[host] = served.statistics("lenet5").inference_count
        return answered


@dataclasses.dataclass(frozen=True)
class Callers:
    """The program with callers of all kinds; see callers.py."""

    process: "subprocess.Popen[str]"

    def do(self, *words: object) -> object:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline()
        assert said, "the callers have given up: a call was lost or wrong; see stderr"
        return json.loads(said)


@dataclasses.dataclass(frozen=True)
class Names:
    """What the name stands for: a hosts file that only the callers see."""

    path: pathlib.Path

    def stand_for(self, *hosts: str) -> None:
        """Written in place, because the file is mounted."""
        self.path.write_text("".join(f"{host} {NAME}\n" for host in hosts))


@pytest.fixture
def replicas(exported: Exported, tmp_path: pathlib.Path) -> Iterator[Replicas]:
    (tmp_path / "logs").mkdir()
    with contextlib.ExitStack() as stack:
        yield Replicas(exported, tmp_path / "logs", free_port(), stack)


@pytest.fixture
def images(exported: Exported, held_out: digits.Digits, tmp_path: pathlib.Path) -> pathlib.Path:
    """Images and what PyTorch says they are."""
    path = tmp_path / "images.npz"
    chosen = held_out.images_nhwc[:64]
    np.savez(path, images_nhwc=chosen, labels=exported.logits(chosen).argmax(1))
    return path


def free_port() -> int:
    """A port that is free at every address of the loopback."""
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def calling(ours: str, stock: str, images: pathlib.Path, names: Names | None) -> Iterator[Callers]:
    """Start the callers, in a view of the file system with a hosts file of their own if they go by names."""
    command = [sys.executable, "-m", "tests.wire.callers", ours, stock, str(images)]
    if names is not None:
        script = 'mount --make-rprivate / && mount --bind "$1" /etc/hosts && shift && exec "$@"'
        command = ["unshare", "-m", "sh", "-c", script, "sh", str(names.path), *command]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    with process:
        try:
            yield Callers(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)


def share(replicas: Replicas, callers: Callers, kind: str) -> dict[str, float]:
    """What part of its even share each replica got of a round."""
    before = replicas.counts()
    callers.do("round", kind, CALLS)
    after = replicas.counts()
    shares = {host: (after[host] - before[host]) * len(after) / CALLS for host in after}
    assert sum(shares.values()) == pytest.approx(len(after))
    return shares


def is_even(shares: dict[str, float]) -> bool:
    return all(abs(part - 1.0) <= SHARE for part in shares.values())


def becomes_even(replicas: Replicas, callers: Callers) -> None:
    """Each kind of callers spreads a round within the bound, as soon as it is connected to all."""
    for kind in KINDS:
        give_up_s = time.monotonic() + EVEN_WITHIN_S
        while not is_even(shares := share(replicas, callers, kind)):
            assert time.monotonic() < give_up_s, (kind, shares)
            time.sleep(0.1)  # between rounds of other processes; bounded above


def one_drains_one_joins_one_dies(replicas: Replicas, callers: Callers, joins: str, names: Names | None) -> None:
    """Under traffic of all kinds. The joining one is ready before the other dies, as in a rollout."""
    first, second, third = replicas.servers
    callers.do("go")
    callers.do("more", 2)
    drained = replicas.servers.pop(first)
    drained.process.send_signal(signal.SIGTERM)
    if names is not None:
        names.stand_for(second, third)
    assert drained.process.wait(60) == 0
    assert "0 with an error" in drained.log()
    callers.do("more", 2)
    replicas.start(joins)
    if names is not None:
        names.stand_for(second, third, joins)
    callers.do("more", 2)
    replicas.servers.pop(second).process.kill()
    if names is not None:
        names.stand_for(third, joins)
    callers.do("more", 3)
    rounds = callers.do("stop")
    assert isinstance(rounds, dict)
    assert min(rounds.values()) >= 9


def test_three_replicas_by_a_list_of_addresses(replicas: Replicas, images: pathlib.Path) -> None:
    """The drained one comes back at its address."""
    hosts = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
    replicas.start(*hosts)
    addresses = ",".join(f"{host}:{replicas.port}" for host in hosts)
    with calling(addresses, f"ipv4:{addresses}", images, None) as callers:
        becomes_even(replicas, callers)
        one_drains_one_joins_one_dies(replicas, callers, "127.0.0.1", None)
        becomes_even(replicas, callers)


@pytest.mark.slow
def test_three_replicas_by_a_name(replicas: Replicas, images: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The joining one is at a new address, which the name stands for from then on: DNS of a headless Service."""
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, text=True, check=False)
    if os.geteuid() != 0 or tried.returncode != 0:
        pytest.skip(f"NOT CHECKED: replicas by a name, because only root makes namespaces here: {tried.stderr}")
    names = Names(tmp_path / "hosts")
    hosts = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
    names.stand_for(*hosts)
    replicas.start(*hosts)
    address = f"dns:///{NAME}:{replicas.port}"
    with calling(address, address, images, names) as callers:
        becomes_even(replicas, callers)
        one_drains_one_joins_one_dies(replicas, callers, "127.0.0.4", names)
        becomes_even(replicas, callers)
