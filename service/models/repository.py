"""The folder of models: which are there, and which version of each is served.

Path: disk → **repository** → lifecycle. Read only.
"""

import dataclasses
import pathlib

from service import errors


@dataclasses.dataclass(frozen=True, slots=True)
class ModelFolder:
    """One model on disk: `version` is the newest numbered folder."""

    name: str
    path: pathlib.Path
    version: str

    @property
    def version_path(self) -> pathlib.Path:
        """The folder with the graph."""
        return self.path / self.version


def scan(repository: pathlib.Path) -> list[ModelFolder]:
    """Return the models of the repository, by name. Names that begin with a dot are passed over.

    Raises:
        RepositoryError: no such folder, or no model in it.
        ModelLoadError: a model folder without a numbered version.
    """
    try:
        paths = sorted(path for path in repository.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise errors.RepositoryError(
            f"model repository {repository} cannot be read ({error.strerror}); name one with --repository, "
            f"or make one: fovea export lenet5 --repository {repository}"
        ) from error
    if not paths:
        raise errors.RepositoryError(
            f"model repository {repository} holds no model; add one: fovea export lenet5 --repository {repository}"
        )
    return [_folder(path) for path in paths]


def _folder(path: pathlib.Path) -> ModelFolder:
    versions = [
        child.name for child in path.iterdir() if child.is_dir() and child.name.isascii() and child.name.isdigit()
    ]
    if not versions:
        raise errors.ModelLoadError(
            path.name, f"{path} has no version folder; put the graph into {path / '1' / 'model.onnx'}"
        )
    return ModelFolder(path.name, path, max(versions, key=int))
