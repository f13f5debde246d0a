"""The images, built with buildah into a store of their own.

Path: bases → **images** → contents, container.
"""

import json
import pathlib
import subprocess
from typing import Any

from deploy.docker.check import steps

BUILD_LIMIT_S = 3600


class Images:
    """A store of images below one folder. Mutable state: the store; one process at a time."""

    def __init__(self, folder: pathlib.Path, driver: str) -> None:
        """Open the store.

        Args:
            folder: where layers are kept between runs.
            driver: `overlay`, or `vfs`, which works everywhere and copies every layer.
        """
        self._folder = folder
        store = ["--root", f"{folder}/store-{driver}", "--runroot", f"{folder}/run", "--storage-driver", driver]
        self._buildah = ["buildah", *store]

    def take_base(self, file: pathlib.Path) -> str:
        """Return the name of an image that holds exactly one tar file."""
        name = f"localhost/{file.stem}:latest"
        if self._exists(name):
            return name
        with steps.step(f"import {file.name}"):
            container = self._output("from", "scratch").strip()
            self._output("add", "--quiet", container, str(file), "/", limit_s=300)
            self._output("commit", "--quiet", "--rm", container, name, limit_s=300)
        return name

    def build(self, name: str, root: pathlib.Path, arguments: dict[str, str]) -> None:
        """Build deploy/docker/Dockerfile; layers that nothing changed are taken from the last time.

        Raises:
            CheckFailed: it cannot be built.
        """
        # Docker's format, because OCI's has no health check.
        options = ["build", "--isolation", "chroot", "--layers", "--pull-never", "--format", "docker", "--tag", name]
        for key, value in arguments.items():
            options += ["--build-arg", f"{key}={value}"]
        log = self._folder / f"build-{_file_name(name)}.log"
        with steps.step(f"build {name}: {' '.join(f'{key}={value}' for key, value in arguments.items())}"):
            dockerfile = str(root / "deploy/docker/Dockerfile")
            steps.logged([*self._buildah, *options, "--file", dockerfile, str(root)], log, BUILD_LIMIT_S)

    def configuration(self, name: str) -> dict[str, Any]:
        """Return what the image says of itself: Env, Entrypoint, Cmd, User, Labels, Healthcheck, ..."""
        found: dict[str, Any] = json.loads(self._output("inspect", "--type", "image", name))["Docker"]["config"]
        return found

    def mount(self, name: str) -> pathlib.Path:
        """Return a folder with the image's files. It is gone with this process' mounts."""
        container = self._output("from", "--pull-never", name).strip()
        return pathlib.Path(self._output("mount", container).strip())

    def compressed_bytes(self, name: str) -> list[int]:
        """Return the sizes of the layers as a registry would hold them."""
        folder = self._folder / f"oci-{_file_name(name)}"
        subprocess.run(["rm", "-rf", str(folder)], check=True)
        self._output("push", "--quiet", "--format", "oci", name, f"oci:{folder}:check", limit_s=1800)
        index = json.loads((folder / "index.json").read_text())
        digest = index["manifests"][0]["digest"].partition(":")[2]
        layers = json.loads((folder / "blobs/sha256" / digest).read_text())["layers"]
        subprocess.run(["rm", "-rf", str(folder)], check=True)
        return [layer["size"] for layer in layers]

    def remove_containers(self) -> None:
        """Remove what a run that was killed left, and what this one made."""
        self._output("rm", "--all", limit_s=300)

    def _exists(self, name: str) -> bool:
        found = subprocess.run([*self._buildah, "inspect", "--type", "image", name], capture_output=True, check=False)
        return found.returncode == 0

    def _output(self, *arguments: str, limit_s: float = 120) -> str:
        return steps.output([*self._buildah, *arguments], limit_s)


def choose_driver(folder: pathlib.Path) -> str:
    """Return `overlay` if it can be mounted here, else `vfs`."""
    parts = {name: folder / "overlay-probe" / name for name in ("lower", "upper", "work", "all")}
    for path in parts.values():
        path.mkdir(parents=True, exist_ok=True)
    layers = f"lowerdir={parts['lower']},upperdir={parts['upper']},workdir={parts['work']}"
    mount = ["mount", "-t", "overlay", "overlay", "-o", layers, str(parts["all"])]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        return "vfs"
    subprocess.run(["umount", str(parts["all"])], check=True)
    return "overlay"


def _file_name(image: str) -> str:
    return image.removeprefix("localhost/").replace("/", "-").replace(":", "-")
