"""Repositories of one small network in two sets of weights, whose answers can be told apart."""

import dataclasses
import pathlib
import shutil
import time
from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime
import tritonclient.grpc as triton
from google.protobuf import text_format
from numpy.typing import NDArray

from protos import model_config_pb2
from tests.conftest import READY_WITHIN_S

MODEL = "lenet5"
TOLERANCE = 1e-3
CONFIG = "max_batch_size: 8 dynamic_batching {}"


@dataclasses.dataclass(frozen=True)
class Weights:
    """A version folder, and what its graph answers."""

    folder: pathlib.Path
    images: NDArray[np.uint8]
    logits: NDArray[np.float32]

    def fits(self, logits: NDArray[np.float32], index: int) -> bool:
        """Whether these are the answer to one of the images."""
        return bool(np.abs(logits - self.logits[index]).max() < TOLERANCE)


def weights(folder: pathlib.Path, images: NDArray[np.uint8]) -> Weights:
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    return Weights(folder, images, session.run(["logits"], {"image": images})[0])


def lay(
    repository: pathlib.Path, versions: dict[str, Weights], name: str = MODEL, config: str = CONFIG
) -> pathlib.Path:
    """Write a model of these versions; its folder."""
    folder = repository / name
    for version, one in versions.items():
        shutil.copytree(one.folder, folder / version)
    (folder / "config.pbtxt").write_text(config)
    return folder


def put(folder: pathlib.Path, content: bytes) -> None:
    """Put a graph into a version folder, whole, as careful deployers do."""
    folder.mkdir(exist_ok=True)
    (folder / ".new").write_bytes(content)
    (folder / ".new").replace(folder / "model.onnx")


def exchange(folder: pathlib.Path, one: Weights) -> None:
    """Put other weights with their goldens into a version folder."""
    shutil.rmtree(folder / "evidence")
    shutil.copytree(one.folder / "evidence", folder / "evidence")
    put(folder, (one.folder / "model.onnx").read_bytes())


def pixels(images: NDArray[np.uint8]) -> triton.InferInput:
    tensor = triton.InferInput("image", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(np.ascontiguousarray(images))
    return tensor


def states(client: triton.InferenceServerClient, *, ready: bool = False) -> dict[tuple[str, str], tuple[str, str]]:
    request = triton.service_pb2.RepositoryIndexRequest(ready=ready)
    index = client._client_stub.RepositoryIndex(request) if ready else client.get_model_repository_index()
    return {(model.name, model.version): (model.state, model.reason) for model in index.models}


def served(client: triton.InferenceServerClient, both: Sequence[Weights], version: str = "") -> int:
    """Which of the weights answer."""
    result = client.infer(MODEL, [pixels(both[0].images[:1])], model_version=version)
    (which,) = [number for number, one in enumerate(both) if one.fits(result.as_numpy("logits")[0], 0)]
    return which


def until(condition: Callable[[], bool], what: str) -> None:
    """Look at another process again and again until it has come so far."""
    give_up_s = time.monotonic() + READY_WITHIN_S
    while not condition():
        assert time.monotonic() < give_up_s, f"{what} has not come about"
        time.sleep(0.02)  # between looks; bounded above


def config_text(config: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(config, model_config_pb2.ModelConfig())
