"""What all tests share: a model trained for seconds, its repository, and real servers on free ports."""

import contextlib
import dataclasses
import io
import pathlib
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from export import bundle, digits, options, pipeline, reference, signature, sources, zoo

FOVEA = str(pathlib.Path(sys.executable).with_name("fovea"))
READY_WITHIN_S = 180.0


@dataclasses.dataclass(frozen=True)
class Exported:
    """A small trained LeNet-5 and what the export made of it."""

    network: torch.nn.Module
    bundle: bundle.Bundle
    repository: pathlib.Path
    weights_path: pathlib.Path

    def logits(self, images_nhwc: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What PyTorch says."""
        described = zoo.find("lenet5").preprocessing
        pytorch = reference.TorchReference(self.network, ("logits",), {}, described, signature.UINT8_NHWC)
        return pytorch.run({"image": images_nhwc}, np.float32)["logits"]


@dataclasses.dataclass(frozen=True)
class RunningServer:
    """A real `fovea serve` process."""

    process: "subprocess.Popen[bytes]"
    address: str
    http: str
    log_path: pathlib.Path

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.http + path) as response:
            return response.read().decode()

    def log(self) -> str:
        return self.log_path.read_text()


@pytest.fixture(scope="session")
def network() -> torch.nn.Module:
    return digits.train(digits.Recipe(epochs=5))


@pytest.fixture(scope="session")
def exported(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    path = tmp_path_factory.mktemp("weights") / "lenet5.pth"
    torch.save(network.state_dict(), path)
    repository = tmp_path_factory.mktemp("repository")
    (made,) = export("lenet5", repository, options.Options(weights=str(path), outputs=("probabilities",)))
    return Exported(network, made, repository, path)


def export(target: str, repository: pathlib.Path, chosen: options.Options, name: str = "") -> list[bundle.Bundle]:
    """Export as the command does, without its output; what was written."""
    with bundle.Staging(repository) as staging:
        source = sources.find(target, chosen)
        labels = tuple(map(str, range(source.facts.classes)))
        place = bundle.Place(name or source.facts.name, 1)
        made = pipeline.export(source, place, chosen, labels, lambda step: contextlib.nullcontext())
        for one in made:
            staging.add(one)
        staging.commit()
    return made


@pytest.fixture(scope="session")
def held_out() -> digits.Digits:
    return digits.load()[1]


@pytest.fixture(scope="session")
def pngs(held_out: digits.Digits) -> list[bytes]:
    return [encoded(image[:, :, 0], "PNG") for image in held_out.images_nhwc]


def encoded(pixels: NDArray[np.generic], file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    return buffer.getvalue()


@contextlib.contextmanager
def running(repository: pathlib.Path, log_path: pathlib.Path, *flags: str) -> Iterator[RunningServer]:
    """Start `fovea serve` on free ports, wait until it is ready, and end it."""
    command = [FOVEA, "serve", "--repository", str(repository), "--grpc-port", "0", "--metrics-port", "0", *flags]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        yield _wait_until_ready(process, log_path)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(30)


def _wait_until_ready(process: "subprocess.Popen[bytes]", log_path: pathlib.Path) -> RunningServer:
    give_up_s = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < give_up_s and process.poll() is None:
        ready = re.search(r"ready: gRPC on (\S+:\d+), metrics on (http://\S+)/metrics", log_path.read_text())
        if ready:
            return RunningServer(process, ready[1], ready[2], log_path)
        time.sleep(0.02)  # between looks at another process's log; bounded above
    raise AssertionError(f"the server did not become ready:\n{log_path.read_text()}")


@pytest.fixture(scope="session")
def server(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for all tests that only talk to it; 1 MiB messages, so that the limit can be met."""
    log_path = tmp_path_factory.mktemp("server") / "log"
    with running(exported.repository, log_path, "--message-bytes-max", "1048576") as started:
        yield started
