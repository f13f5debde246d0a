"""Runs an image as Kubernetes would: runc, any user, read-only root, no capability, no new privileges.

Path: images → **container** → client. runc is what Docker and containerd run containers with; here it gets its
orders without them.
"""

import contextlib
import json
import pathlib
import resource
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from deploy.docker.check import steps

NAME = "fovea-images-check"
READY_WITHIN_S = 120
STOPS_WITHIN_S = 60


class Container:
    """A running container. Made by `running`."""

    def __init__(self, runc: list[str], configuration: dict[str, Any], process: "subprocess.Popen[bytes]") -> None:
        self._runc = runc
        self._configuration = configuration
        self._process = process

    def execute(self, *command: str, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a program in the container, as its user and under its rules."""
        variables = [word for name, value in (environment or {}).items() for word in ("--env", f"{name}={value}")]
        arguments = [*self._runc, "exec", *variables, NAME, *command]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)

    def is_healthy(self, environment: dict[str, str] | None = None) -> bool:
        """Run the image's own health check once."""
        kind, *command = self._configuration["Healthcheck"]["Test"]
        if kind != "CMD":
            raise steps.CheckFailed(f"the health check is of kind {kind}, which needs a shell; expected CMD")
        return self.execute(*command, environment=environment).returncode == 0

    def wait_until_healthy(self) -> float:
        """Return the seconds it took.

        Raises:
            CheckFailed: the server ended, or is not ready in time.
        """
        begun = time.monotonic()
        while time.monotonic() - begun < READY_WITHIN_S:
            if self._process.poll() is not None:
                raise steps.CheckFailed(f"the server ended with {self._process.returncode}")
            if self.is_healthy():
                return time.monotonic() - begun
            time.sleep(0.2)
        raise steps.CheckFailed(f"the health check did not succeed within {READY_WITHIN_S} s")

    def health_check_cpu_s(self, times: int = 10) -> float:
        """Return the CPU time of one health check in seconds, runc's own included."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        if not all(self.is_healthy() for _ in range(times)):
            raise steps.CheckFailed("a health check failed while the server was ready")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / times

    def stop(self) -> int:
        """Send SIGTERM and return the exit code.

        Raises:
            CheckFailed: it did not end in time.
        """
        steps.output([*self._runc, "kill", NAME, "TERM"])
        try:
            return self._process.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired as error:
            raise steps.CheckFailed(f"the server has not ended {STOPS_WITHIN_S} s after SIGTERM") from error


@contextlib.contextmanager
def running(
    folder: pathlib.Path,
    root: pathlib.Path,
    configuration: dict[str, Any],
    mounts: dict[str, pathlib.Path],
    user: tuple[int, int],
    environment: dict[str, str],
) -> Iterator[Container]:
    """Start the image's entry point, and remove the container at the end, whatever happened.

    Args:
        folder: for runc's files and `server.log`.
        root: the image's files.
        configuration: what the image says of itself.
        mounts: path in the container → folder, read-only.
        user: UID and GID.
        environment: beside what the image sets.
    """
    runc = ["runc", "--root", str(folder / "runc")]
    bundle = folder / "bundle"
    bundle.mkdir(parents=True, exist_ok=True)
    (bundle / "config.json").unlink(missing_ok=True)
    steps.output([*runc, "spec", "--bundle", str(bundle)])
    written = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(
        json.dumps(specification(written, root, configuration, mounts, user, environment), indent=1)
    )
    remove(folder)
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [*runc, "run", "--bundle", str(bundle), NAME], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    try:
        yield Container(runc, configuration, process)
    finally:
        remove(folder)
        process.wait(10)


def remove(folder: pathlib.Path) -> None:
    """Kill and remove the container, also one that an earlier run left."""
    subprocess.run(
        ["runc", "--root", str(folder / "runc"), "delete", "--force", NAME], capture_output=True, check=False
    )


def specification(
    written: dict[str, Any],
    root: pathlib.Path,
    configuration: dict[str, Any],
    mounts: dict[str, pathlib.Path],
    user: tuple[int, int],
    environment: dict[str, str],
) -> dict[str, Any]:
    """Return `runc spec`'s file for an image; Kubernetes' "restricted" rules, and no network of its own."""
    process = written["process"] | {
        "terminal": False,
        "user": {"uid": user[0], "gid": user[1]},
        "args": [*configuration["Entrypoint"], *configuration["Cmd"]],
        "env": [*configuration["Env"], *(f"{name}={value}" for name, value in environment.items())],
        "cwd": configuration["WorkingDir"] or "/",
        "capabilities": {kind: [] for kind in written["process"]["capabilities"]},
        "noNewPrivileges": True,
    }
    binds = [
        {"destination": path, "type": "bind", "source": str(source), "options": ["rbind", "ro"]}
        for path, source in mounts.items()
    ]
    # The network is the check's own namespace, which has nothing but loopback: the client asks from there.
    namespaces = [one for one in written["linux"]["namespaces"] if one["type"] != "network"]
    return written | {
        "root": {"path": str(root), "readonly": True},
        "process": process,
        "mounts": [*written["mounts"], *binds],
        "linux": written["linux"] | {"namespaces": namespaces},
    }
