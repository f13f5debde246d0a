"""The class names of a model's outputs.

Path: model's folder → **labels** → lifecycle, wire.replies.
"""

import hashlib
import pathlib

from protos import manifest_pb2, model_config_pb2
from service import errors


def read(
    model: str,
    folder: pathlib.Path,
    config: model_config_pb2.ModelConfig,
    described: manifest_pb2.Manifest | None,
) -> dict[str, list[str]]:
    """Return the labels of each output that has some.

    Raises:
        ModelLoadError: a file cannot be read, or is not the one that the model was exported with.
    """
    return {
        output.name: _read(model, folder, output.label_filename, described)
        for output in config.output
        if output.label_filename
    }


def _read(model: str, folder: pathlib.Path, filename: str, described: manifest_pb2.Manifest | None) -> list[str]:
    if pathlib.PurePath(filename).name != filename:
        raise errors.ModelLoadError(model, f"label_filename {filename!r} must be a plain file name")
    if not (folder / filename).resolve().is_relative_to(folder.resolve()):  # clients are told what is in it
        raise errors.ModelLoadError(model, f"{filename} is a link that leaves {folder}; put the file itself there")
    try:
        content = (folder / filename).read_bytes()
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ModelLoadError(model, f"its labels cannot be read: {error}") from error
    wanted = described.labels_sha256 if described is not None else ""
    if wanted and hashlib.sha256(content).hexdigest() != wanted:
        raise errors.ModelLoadError(
            model, f"{filename} is not the file that the model was exported with; restore it, or export again"
        )
    return text.splitlines()
