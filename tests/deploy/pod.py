"""A container as a manifest describes it, without a cluster: its own network, a read-only root, no rights, no other
environment, the volumes where they are mounted. Linux namespaces, by util-linux's `unshare`.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.deploy.rendering import ROOT, Manifest

USER = 65532

# Its own view of the file system: everything that is there, read-only, and the volumes; then the command, without
# rights. $1: a folder for the new root; $2: lines of "source target"; then the command. The user is another by name
# only (a user namespace), because the files of this machine's Python may be readable for their owner alone.
ENTER = """
set -eu
root=$1; volumes=$2; shift 2
mount --make-rprivate /
mount -t tmpfs none "$root"
for path in /*; do
    if [ -L "$path" ]; then cp -a "$path" "$root/"
    elif [ -d "$path" ]; then
        mkdir "$root$path"
        mount --rbind "$path" "$root$path"
        case "$path" in /proc | /dev) ;; *) mount -o remount,bind,ro "$root$path" ;; esac
    fi
done
printf '%s' "$volumes" | while read -r source target; do
    umount -l "$root$target" 2>/dev/null || true
    mkdir -p "$root$target" 2>/dev/null || { mount -t tmpfs none "$root$(dirname "$target")"; mkdir "$root$target"; }
    mount --bind "$source" "$root$target"
    mount -o remount,bind,ro "$root$target"
done
ip link set lo up
mkdir "$root/.before"
cd "$root"
pivot_root . .before
umount -l /.before
mount -o remount,ro /
exec unshare --user --map-user=USER --map-group=USER setpriv --no-new-privs "$@"
""".replace("USER", str(USER))


@dataclasses.dataclass(frozen=True)
class Pod:
    """A container that runs, and the kubelet beside it."""

    container: Manifest
    process: "subprocess.Popen[bytes]"
    kubelet: "subprocess.Popen[str]"
    log_path: pathlib.Path

    @property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.container["ports"]}

    def log(self) -> str:
        return self.log_path.read_text()

    def probe(self, name: str) -> str:
        """What a probe of the container has for an answer; "ok" if it passes."""
        return self._ask({"probe": self.container[name], "ports": self.ports})

    def classify(self, image: pathlib.Path, port: int, root: str = "") -> str:
        """The label that a caller gets; `root`: the certificate to trust, for TLS."""
        return self._ask({"classify": str(image), "port": port, "root": root})

    def _ask(self, question: dict[str, Any]) -> str:
        assert self.kubelet.stdin is not None
        assert self.kubelet.stdout is not None
        self.kubelet.stdin.write(json.dumps(question) + "\n")
        self.kubelet.stdin.flush()
        answer: str = json.loads(self.kubelet.stdout.readline())
        return answer


@dataclasses.dataclass(frozen=True)
class Image:
    """What an image adds to a container: its entry point and environment."""

    entry_point: list[str]
    environment: dict[str, str]


@contextlib.contextmanager
def running(
    container: Manifest,
    environment: Mapping[str, str],
    image: Image,
    volumes: Mapping[str, pathlib.Path],
    folder: pathlib.Path,
) -> Iterator[Pod]:
    """Start the container with exactly its command and environment, and end it.

    Args:
        container: of a Pod.
        environment: its variables, ConfigMaps included.
        image: what it runs.
        volumes: mount path → what lies there. They are mounted read-only, as the container wants them.
        folder: for the log and the new root.
    """
    assert {mount["mountPath"] for mount in container.get("volumeMounts", ())} <= volumes.keys()
    require_namespaces()
    # What the image has in /opt/fovea is here in this Python's environment, and the source in the checkout.
    path = {"PATH": f"{pathlib.Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    given = {**image.environment, **path, **environment}
    root = folder / "root"
    root.mkdir()
    mounts = "".join(f"{source} {target}\n" for target, source in volumes.items())
    command = [*container.get("command", image.entry_point), *container.get("args", ())]
    with (folder / "log").open("wb") as log:
        inside = ["env", "-i", *(f"{name}={value}" for name, value in given.items()), *command]
        entering = ["unshare", "-n", "-m", "bash", "-c", ENTER, "enter", str(root), mounts]
        process = subprocess.Popen([*entering, *inside], stderr=log)
    wait_for_network(process)
    kubelet: subprocess.Popen[str] = subprocess.Popen(
        ["nsenter", f"--net=/proc/{process.pid}/ns/net", sys.executable, "-m", "tests.deploy.kubelet"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield Pod(container, process, kubelet, folder / "log")
    finally:
        assert kubelet.stdin is not None
        assert kubelet.stdout is not None
        kubelet.stdin.close()
        kubelet.wait(30)
        kubelet.stdout.close()
        process.kill()
        process.wait(30)


def wait_for_network(process: "subprocess.Popen[bytes]") -> None:
    """Return when the process has a network of its own: until then its kubelet would join this one's."""
    give_up_s = time.monotonic() + 30.0
    its, ours = (pathlib.Path(f"/proc/{one}/ns/net") for one in (process.pid, "self"))
    while its.readlink() == ours.readlink():
        assert time.monotonic() < give_up_s, f"the container is still in network {ours.readlink()}"
        time.sleep(0.005)  # between looks at another process; bounded above


def readable(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """A copy that any user can read, as volumes are."""
    shutil.copytree(source, target)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


def require_namespaces() -> None:
    """Skip where there are none."""
    tried = subprocess.run(["unshare", "-n", "-m", "true"], capture_output=True, text=True, check=False)
    if os.geteuid() != 0 or tried.returncode != 0:
        pytest.skip(f"NOT CHECKED: the manifests' containers, because only root makes namespaces here: {tried.stderr}")
