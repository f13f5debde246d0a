"""What a load by call hands over instead of what is on disk: a config, and the model's files.

Path: wire.repository → **handed** → control.
"""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator, Mapping

from service import errors


@dataclasses.dataclass(frozen=True, slots=True)
class Handed:
    """What a call handed over.

    `config`: JSON that stands for config.pbtxt; None for what is on disk. `files`: path within the model's
    folder → bytes; they stand for all that is on disk.
    """

    config: str | None = None
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


def check(handed: Handed) -> None:
    """Check that files stay within the model's folder, and come with a config, as in Triton.

    Raises:
        BadRequest: names the file, or what is missing.
    """
    for name in handed.files:
        path = pathlib.PurePosixPath(name)
        if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.parts:
            raise errors.BadRequest(
                f"parameter 'file:{name}': the path must stay within the model's folder; "
                "expected file:<version>/<file>, such as file:1/model.onnx",
                errors.path("parameters", f"file:{name}"),
            )
    if handed.files and handed.config is None:
        raise errors.BadRequest(
            "parameters 'file:...' came without 'config'; hand the config over too, as JSON ({} says nothing)",
            errors.path("parameters", "config"),
        )


@contextlib.contextmanager
def written(name: str, handed: Handed) -> Iterator[pathlib.Path]:
    """Write the files into a repository of their own, which goes away at the end; ONNX Runtime has read them then.

    Raises:
        ModelLoadError: they cannot be written.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix="fovea-load-")
    except OSError as error:
        raise errors.ModelLoadError(
            name,
            f"its files need a folder to be written to: {error.strerror}; mount an empty one at /tmp, or set TMPDIR",
        ) from error
    with made as place:
        try:
            for relative, content in handed.files.items():
                path = pathlib.Path(place, name, *pathlib.PurePosixPath(relative).parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        except OSError as error:
            raise errors.ModelLoadError(name, f"its files cannot be written to {place}: {error.strerror}") from error
        yield pathlib.Path(place)
