"""A verified model to its folder in the repository: all of it, or nothing.

Path: verify → **bundle** → disk.

    <name>/config.pbtxt  labels.txt  <version>/model.onnx  <version>/evidence/{golden.npz,parity.json}
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import shutil
import tempfile
from typing import Any

import numpy as np
import onnx
from google.protobuf import json_format, text_format
from numpy.typing import NDArray

from export import errors, verify, zoo
from protos import manifest_pb2, model_config_pb2

MANIFEST_KEY = "fovea.manifest"
PLATFORM = "onnxruntime_onnx"


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where the bundle goes."""

    repository: pathlib.Path
    name: str
    version: int
    replace: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Weights:
    """Where the weights came from, for the manifest."""

    source: str
    sha256: str


def check(place: Place) -> None:
    """Refuse early what `write` would refuse late.

    Raises:
        RepositoryError: the version is there already, and `replace` is not set.
    """
    if place.version < 1:
        raise errors.RepositoryError(f"version {place.version} is not a version; expected 1 or more")
    target = place.repository / place.name / str(place.version)
    if target.exists() and not place.replace:
        raise errors.RepositoryError(
            f"{target} exists; pass --replace to replace it, or --version {place.version + 1} to add a version"
        )


def write(
    place: Place,
    model: onnx.ModelProto,
    architecture: zoo.Architecture,
    weights: Weights,
    report: verify.Report,
    batch_max: int,
) -> pathlib.Path:
    """Write the bundle and return the path of model.onnx.

    Raises:
        RepositoryError: it cannot be written; what was there is untouched.
    """
    check(place)
    labels = "".join(f"{index}\n" for index in range(architecture.classes))
    config = _config(place.name, architecture, batch_max)
    manifest = _manifest(architecture, weights, labels)
    try:
        place.repository.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.repository) as folder:
            made = pathlib.Path(folder)
            _write_version(made / "version", model, manifest, report)
            (made / "labels.txt").write_text(labels)
            (made / "config.pbtxt").write_text(text_format.MessageToString(config))
            _put_in_place(made, place)
    except OSError as error:
        raise errors.RepositoryError(f"cannot write below {place.repository}: {error}") from error
    return place.repository / place.name / str(place.version) / "model.onnx"


def _write_version(
    folder: pathlib.Path, model: onnx.ModelProto, manifest: manifest_pb2.Manifest, report: verify.Report
) -> None:
    evidence = folder / "evidence"
    evidence.mkdir(parents=True)
    described = onnx.ModelProto()
    described.CopyFrom(model)
    text = json.dumps(json_format.MessageToDict(manifest), sort_keys=True, separators=(",", ":"))
    described.metadata_props.add(key=MANIFEST_KEY, value=text)
    (folder / "model.onnx").write_bytes(described.SerializeToString(deterministic=True))
    goldens: dict[str, NDArray[Any]] = {f"output.{name}": rows for name, rows in report.golden_outputs.items()}
    goldens |= {f"input.{manifest.image.input}": report.golden_images_nhwc}
    np.savez(evidence / "golden.npz", allow_pickle=False, **goldens)
    figures = {
        "gate": verify.GATE,
        "operators": report.operators,
        "parity": [dataclasses.asdict(row) for row in report.parity],
        "is_batch_invariant": report.is_batch_invariant,
    }
    (evidence / "parity.json").write_text(json.dumps(figures, indent=2) + "\n")


def _put_in_place(made: pathlib.Path, place: Place) -> None:
    """Move the finished parts; the version last, since a version folder is what makes a model."""
    home = place.repository / place.name
    home.mkdir(exist_ok=True)
    for name in ("labels.txt", "config.pbtxt"):
        (made / name).replace(home / name)
    target = home / str(place.version)
    if target.exists():
        target.replace(made / "replaced")
    try:
        (made / "version").replace(target)
    except OSError:
        if (made / "replaced").exists():
            shutil.move(made / "replaced", target)
        raise


def _config(name: str, architecture: zoo.Architecture, batch_max: int) -> model_config_pb2.ModelConfig:
    image = architecture.image
    config = model_config_pb2.ModelConfig(name=name, platform=PLATFORM, max_batch_size=batch_max)
    config.input.add(
        name=image.input,
        data_type=model_config_pb2.TYPE_UINT8,
        dims=[image.height, image.width, len(architecture.mean)],
    )
    for output in ("logits", "probabilities"):
        config.output.add(
            name=output,
            data_type=model_config_pb2.TYPE_FP32,
            dims=[architecture.classes],
            label_filename="labels.txt",
        )
    config.dynamic_batching.SetInParent()
    return config


def _manifest(architecture: zoo.Architecture, weights: Weights, labels: str) -> manifest_pb2.Manifest:
    tools = ("torch", "onnx", "onnxscript", "fovea")
    return manifest_pb2.Manifest(
        architecture=architecture.name,
        weights_source=weights.source,
        weights_sha256=weights.sha256,
        labels_sha256=hashlib.sha256(labels.encode()).hexdigest(),
        precision="fp32",
        image=architecture.image,
        tolerances=[
            manifest_pb2.Tolerance(provider="CPUExecutionProvider", relative=verify.GATE),
            # TF32 is on by default on CUDA: 10 bits of mantissa. Not measured yet.
            manifest_pb2.Tolerance(provider="CUDAExecutionProvider", relative=2e-3),
        ],
        tools={tool: importlib.metadata.version(tool) for tool in tools},
    )
