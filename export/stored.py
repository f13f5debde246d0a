"""A model of the repository, read back: its graph, manifest, evidence and labels, and an image as it takes it.

Path: disk → **stored** → inspect_cli.
"""

import dataclasses
import json
import pathlib
import types
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from google.protobuf import json_format, message, text_format
from numpy.typing import NDArray

from export import errors, evidence, manifest, photos, preprocessing, runtime, signature, trials
from protos import manifest_pb2, model_config_pb2


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """One version of one model."""

    folder: pathlib.Path
    """Of the version."""
    model: onnx.ModelProto
    manifest: manifest_pb2.Manifest
    evidence: evidence.Evidence
    labels: tuple[str, ...]
    """Of its classes; empty without any."""


def read(repository: pathlib.Path, name: str, version: int | None = None) -> Stored:
    """Return a model of the repository; the highest version, unless one is named.

    Raises:
        RepositoryError: no such model or version, one that Fovea did not export, or files that cannot be read.
    """
    folder = _version(repository, name, version)
    report = folder / "evidence" / "report.json"
    if not report.is_file():
        raise errors.RepositoryError(
            f"{folder} was exported by something else: it has no evidence/report.json; "
            "export the model with `fovea export`, which also takes an .onnx file"
        )
    try:
        model = onnx.load(folder / "model.onnx")
        found = _built(evidence.Evidence, json.loads(report.read_text(encoding="utf-8")))
        labels = _labels(folder.parent)
        described = _manifest(model)
    except (OSError, UnicodeDecodeError) as error:
        raise errors.RepositoryError(f"{folder} cannot be read: {error}; export the model again") from error
    except (ValueError, TypeError, message.DecodeError, json_format.ParseError, text_format.ParseError) as error:
        raise errors.RepositoryError(
            f"{folder} is damaged, or of another version of Fovea: {error}; export the model again"
        ) from error
    return Stored(folder, model, described, found, labels)


def as_input(stored: Stored, path: pathlib.Path) -> tuple[runtime.Arrays, NDArray[np.uint8]]:
    """Return an image file as the model's input, one row, and as a person sees it, (H, W, C) uint8.

    Raises:
        ImageError: no image that can be read, or a model that takes none.
    """
    described, layout = _preprocessing(stored)
    spec = described.spec(signature.INPUT)
    if stored.manifest.HasField("image"):
        spec = stored.manifest.image
    row_hwc = photos.fit(photos.read(path), spec)
    inputs = trials.as_input(row_hwc[None], described, layout)
    return inputs, row_hwc[..., ::-1] if spec.color == manifest_pb2.COLOR_BGR else row_hwc


def _preprocessing(stored: Stored) -> tuple[preprocessing.Preprocessing, str]:
    """What the manifest and the graph's input say, and the layout; sides that are free are 0."""
    normalization = stored.manifest.normalization
    value = next((value for value in stored.model.graph.input if value.name == signature.INPUT), None)
    if value is None or not normalization.mean:
        raise errors.ImageError(
            f"{stored.evidence.identity.name} takes no image: its manifest does not say how one becomes its input; "
            "leave out --image"
        )
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    is_bytes = value.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    height, width = dims[1:3] if is_bytes else dims[2:4]
    described = preprocessing.Preprocessing(
        height,
        width,
        tuple(normalization.mean),
        tuple(normalization.std),
        manifest_pb2.COLOR_GRAY if len(normalization.mean) == 1 else manifest_pb2.COLOR_RGB,
        transform_input=normalization.transform_input,
    )
    return described, signature.UINT8_NHWC if is_bytes else signature.FLOAT32_NCHW


def _version(repository: pathlib.Path, name: str, version: int | None) -> pathlib.Path:
    """The folder of the version."""
    if not repository.is_dir():
        raise errors.RepositoryError(f"{repository} is no folder; name the repository with --repository")
    names = sorted(path.name for path in repository.iterdir() if _numbers(path))
    if name not in names:
        known = f"it has {', '.join(names)}" if names else "it is empty"
        raise errors.RepositoryError(f"no model {name!r} in {repository}{errors.nearest(name, names)}; {known}")
    numbers = _numbers(repository / name)
    if version is not None and version not in numbers:
        raise errors.RepositoryError(
            f"{repository / name} has no version {version}; it has {', '.join(map(str, numbers))}"
        )
    return repository / name / str(version or numbers[-1])


def _numbers(folder: pathlib.Path) -> list[int]:
    """The versions in the folder of a model, in order; none if it is no such folder."""
    if not folder.is_dir() or folder.name.startswith("."):
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())


def _manifest(model: onnx.ModelProto) -> manifest_pb2.Manifest:
    text = next((entry.value for entry in model.metadata_props if entry.key == manifest.KEY), "{}")
    return json_format.Parse(text, manifest_pb2.Manifest())


def _labels(home: pathlib.Path) -> tuple[str, ...]:
    """The labels that config.pbtxt names for an output."""
    path = home / "config.pbtxt"
    if not path.is_file():
        return ()
    config = text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    names = [output.label_filename for output in config.output if output.label_filename]
    return tuple((home / names[0]).read_text(encoding="utf-8").splitlines()) if names else ()


def _built(kind: Any, value: Any) -> Any:
    """Return what `dataclasses.asdict` and JSON made `value` of.

    1. A dataclass from its fields; one that is missing takes its default, or is a TypeError.
    2. A tuple of one kind from a list.
    3. X | None.
    4. Everything else, numbers, strings and mappings of them, as it is.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        make, hints = typing.cast(Any, kind), typing.get_type_hints(kind)
        if not isinstance(value, Mapping) or not value.keys() <= hints.keys():
            raise TypeError(f"{value!r:.80} is no {make.__name__}")
        return make(**{name: _built(hints[name], part) for name, part in value.items()})
    if origin is tuple:
        return tuple(_built(arguments[0], part) for part in value)
    if origin is types.UnionType and types.NoneType in arguments and value is not None:
        return _built(next(argument for argument in arguments if argument is not types.NoneType), value)
    return value
