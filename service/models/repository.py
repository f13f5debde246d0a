"""The folder of models: which are there, in which versions, and whether they have changed.

Path: disk → **repository** → lifecycle, control. Read only.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping

from service import errors

Fingerprint = tuple[tuple[str, int, int, int], ...]
"""Of the files of a folder: name, modification time in ns, size in bytes, inode."""

_DEPTH = 2
"""How deep below a version's folder files count: a model may be a folder, with folders of weights in it."""
_EVIDENCE = "evidence"
"""Checked against the graph when it is loaded; a change of it alone is no other model."""


@dataclasses.dataclass(frozen=True, slots=True)
class ModelFolder:
    """One version of a model on disk."""

    name: str
    path: pathlib.Path
    version: str

    @property
    def version_path(self) -> pathlib.Path:
        """The folder with the graph."""
        return self.path / self.version


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """What one look at a model's folder has seen: the files that all versions share, and those of each."""

    name: str
    path: pathlib.Path
    shared: Fingerprint
    versions: Mapping[str, Fingerprint]

    def content(self, version: str) -> tuple[Fingerprint, Fingerprint]:
        """Return what differs if a version has to be loaded again."""
        return self.shared, self.versions[version]

    def folder(self, version: str) -> ModelFolder:
        """Return one of the versions."""
        return ModelFolder(self.name, self.path, version)


def look(repository: pathlib.Path, name: str) -> Look:
    """Look at one model.

    Raises:
        NotInRepository: it has no folder there.
        ModelLoadError: its folder cannot be read, or has no version.
    """
    path = repository / name
    if not _is_model(path, name):
        raise errors.NotInRepository(name, str(repository), _names_or_none(repository))
    seen = _look(path)
    if not seen.versions and name.isdigit() and (path / "model.onnx").exists():
        raise errors.ModelLoadError(
            name, f"{repository} is the folder of one model, not a repository of models; name the folder above it"
        )
    if not seen.versions:
        raise errors.ModelLoadError(name, f"{path} has no version folder; put the graph into {path}/1/model.onnx")
    return seen


def is_name(name: str) -> bool:
    """Return whether a model may be called so: a folder's name, not hidden, and no path to elsewhere."""
    is_plain = bool(name) and pathlib.PurePath(name).name == name and "\0" not in name
    return is_plain and not name.startswith(".") and name != "lost+found"  # which every fresh ext4 volume has


def glance(repository: pathlib.Path, name: str) -> Look | None:
    """Look at one model, even if it has no version yet; None if it has no folder that can be read."""
    path = repository / name
    try:
        return _look(path) if _is_model(path, name) else None
    except errors.ModelLoadError:
        return None


def look_at_all(repository: pathlib.Path) -> dict[str, Look | errors.ModelLoadError]:
    """Look at every model, also at those without a version, and say of the others why they cannot be read now.

    What bears a model's name and is no folder cannot be read either: a file, or a link to what is not there, such as
    a mount that was lost. What goes away is not there.

    Raises:
        RepositoryError: the repository cannot be read.
    """
    seen: dict[str, Look | errors.ModelLoadError] = {}
    try:
        paths = sorted(path for path in repository.iterdir() if is_name(path.name))
    except OSError as error:
        raise _unreadable(repository, error) from error
    for path in paths:
        try:
            seen[path.name] = _look(path)
        except errors.ModelLoadError as error:
            if path.is_symlink() or not isinstance(error.__cause__, FileNotFoundError):
                seen[path.name] = error
    return seen


def names(repository: pathlib.Path) -> list[str]:
    """Return the names of the models' folders, sorted. Names that begin with a dot are passed over.

    Raises:
        RepositoryError: the repository cannot be read.
    """
    try:
        return sorted(path.name for path in repository.iterdir() if _is_model(path, path.name))
    except OSError as error:
        raise _unreadable(repository, error) from error


def require_models(repository: pathlib.Path) -> list[str]:
    """Return the names of the models, at least one.

    Raises:
        RepositoryError: no such folder, or no model in it.
    """
    found = names(repository)
    if not found:
        raise errors.RepositoryError(
            f"model repository {repository} holds no model; add one: fovea export lenet5 --repository {repository}"
        )
    return found


def scan(repository: pathlib.Path) -> list[ModelFolder]:
    """Return the newest version of every model, by name.

    Raises:
        RepositoryError: no such folder, or no model in it.
        ModelLoadError: a model folder without a numbered version.
    """
    seen = [look(repository, name) for name in require_models(repository)]
    return [one.folder(max(one.versions, key=int)) for one in seen]


def _unreadable(repository: pathlib.Path, error: OSError) -> errors.RepositoryError:
    return errors.RepositoryError(
        f"model repository {repository} cannot be read ({error.strerror}); name one with --repository, "
        f"or make one: fovea export lenet5 --repository {repository}"
    )


def _names_or_none(repository: pathlib.Path) -> list[str]:
    try:
        return names(repository)
    except errors.RepositoryError:
        return []


def _is_model(path: pathlib.Path, name: str) -> bool:
    """Whether it is a folder right below the repository."""
    return is_name(name) and path.is_dir()


def _look(path: pathlib.Path) -> Look:
    try:
        with os.scandir(path) as entries:
            versions = {entry.name: _files(entry.path, deep=True) for entry in entries if _is_version(entry)}
        return Look(path.name, path, _files(path), versions)
    except OSError as error:
        raise errors.ModelLoadError(path.name, f"{path} cannot be read: {error.strerror}") from error


def _is_version(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a numbered folder. As in Triton, a leading zero makes it none."""
    return entry.name.isascii() and entry.name.isdigit() and not entry.name.startswith("0") and entry.is_dir()


def _files(folder: str | pathlib.Path, *, deep: bool = False) -> Fingerprint:
    return tuple(sorted(_stamps(folder, "", _DEPTH if deep else 0)))


def _stamps(folder: str | pathlib.Path, within: str, depth: int) -> Iterator[tuple[str, int, int, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_file():
                stat = pathlib.Path(entry.path).stat()  # through links: what they point to may be replaced
                yield within + entry.name, stat.st_mtime_ns, stat.st_size, stat.st_ino
            elif depth and entry.name != _EVIDENCE and entry.is_dir():
                yield from _stamps(entry.path, f"{within}{entry.name}/", depth - 1)
