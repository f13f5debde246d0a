"""Verified models to their folders in the repository: all of them, or nothing.

Path: pipeline → **bundle** → disk.

    <name>/config.pbtxt  labels.txt  <version>/model.onnx  <version>/evidence/{golden.npz,report.json,report.html}
"""

import contextlib
import dataclasses
import io
import json
import pathlib
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from google.protobuf import text_format

from export import errors, evidence, manifest, runtime
from protos import model_config_pb2

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a model goes."""

    name: str
    version: int


@dataclasses.dataclass(frozen=True, slots=True)
class Goldens:
    """A few inputs and the graph's own, verified outputs for them."""

    inputs: runtime.Arrays
    outputs: runtime.Arrays


@dataclasses.dataclass(frozen=True, slots=True)
class Bundle:
    """All that is written for one version of one model."""

    place: Place
    content: bytes
    """Of model.onnx."""
    config: model_config_pb2.ModelConfig
    labels: Sequence[str]
    goldens: Goldens
    evidence: evidence.Evidence
    page: str
    """The report for people, HTML."""


class Staging:
    """A transaction on a repository: `add` bundles, then `commit`; without commit it is as it was before.

    Mutable state: the hidden folder inside the repository in which bundles wait, and what has been added.
    """

    def __init__(self, repository: pathlib.Path, *, replace: bool = False) -> None:
        self._repository = repository
        self._replace = replace
        self._made_folders: list[pathlib.Path] = []
        self._folder = repository / f".fovea-{secrets.token_hex(8)}"
        self._added: list[Place] = []

    def __enter__(self) -> Self:
        """Make the hidden folder; early, so that an unwritable repository is found before any work.

        Raises:
            RepositoryError: the repository cannot be written.
        """
        try:
            with _explained(self._repository):
                missing = [path for path in (self._repository, *self._repository.parents) if not path.exists()]
                for path in reversed(missing):
                    self._made_folders.append(path)  # first: an interrupt may come between any two lines
                    path.mkdir()
                self._folder.mkdir(mode=0o700)
        except BaseException:
            self._clean()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the hidden folder, and the folders that were made for nothing."""
        self._clean()

    def _clean(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        for path in reversed(self._made_folders):
            with contextlib.suppress(OSError):  # there is something in it now
                path.rmdir()

    def check(self, place: Place) -> None:
        """Refuse before the work what `commit` would refuse after it.

        Raises:
            RepositoryError: the version is there already, and is not to be replaced; or the name is no name.
        """
        if not _NAME.fullmatch(place.name):
            raise errors.RepositoryError(
                f"{place.name!r} cannot be a model's name; letters, digits, '_', '-' and '.', not first a dot, can be"
            )
        target = self._repository / place.name / str(place.version)
        if target.exists() and not self._replace:
            raise errors.RepositoryError(
                f"{target} exists; pass --replace to replace it, or --version {place.version + 1} to add a version"
            )

    def add(self, bundle: Bundle) -> None:
        """Write a bundle into the hidden folder.

        Raises:
            RepositoryError: it cannot be written, or contradicts the versions that stay.
        """
        self.check(bundle.place)
        home = self._folder / bundle.place.name
        config = _config(self._repository / bundle.place.name, bundle)
        with _explained(self._repository):
            _write_version(home / str(bundle.place.version), bundle)
            if config is not None:
                (home / "config.pbtxt").write_text(config)
            if bundle.labels:
                (home / manifest.LABELS).write_text(manifest.labels_text(bundle.labels))
        self._added.append(bundle.place)

    def commit(self) -> list[pathlib.Path]:
        """Move everything into place, or, when that fails or is interrupted, nothing; the paths of the graphs.

        Raises:
            RepositoryError: a folder cannot be moved; what was there is back.
        """
        undo: list[Callable[[], object]] = []
        try:
            with _explained(self._repository):
                for place in self._added:
                    self._move(place, undo)
        except BaseException:  # Ctrl-C too
            for take_back in reversed(undo):
                take_back()
            raise
        return [self._repository / place.name / str(place.version) / "model.onnx" for place in self._added]

    def _move(self, place: Place, undo: list[Callable[[], object]]) -> None:
        """Move one model's parts; the version last, since a version folder is what makes a model."""
        home = self._repository / place.name
        if not home.exists():
            home.mkdir()
            undo.append(home.rmdir)
        parts = [name for name in ("config.pbtxt", manifest.LABELS) if (self._folder / place.name / name).exists()]
        for name in (*parts, str(place.version)):
            target, aside = home / name, self._folder / place.name / f"{name}.replaced"
            if target.is_dir() and name != str(place.version):
                raise IsADirectoryError(21, f"{target} is a folder, where a file belongs")
            if target.exists():
                target.rename(aside)
                undo.append(lambda target=target, aside=aside: aside.rename(target))  # type: ignore[misc]  # bound now
            (self._folder / place.name / name).rename(target)
            undo.append(lambda target=target, made=self._folder / place.name / name: target.rename(made))  # type: ignore[misc]  # bound now


def _write_version(folder: pathlib.Path, bundle: Bundle) -> None:
    proof = folder / "evidence"
    proof.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(bundle.content)
    goldens = {f"input.{name}": rows for name, rows in bundle.goldens.inputs.items()}
    goldens |= {f"output.{name}": rows for name, rows in bundle.goldens.outputs.items()}
    archive = io.BytesIO()
    np.savez_compressed(archive, allow_pickle=False, **goldens)
    (proof / "golden.npz").write_bytes(archive.getvalue())
    (proof / "report.json").write_text(json.dumps(dataclasses.asdict(bundle.evidence), indent=2) + "\n")
    (proof / "report.html").write_text(bundle.page)


def _config(home: pathlib.Path, bundle: Bundle) -> str | None:
    """Return the config.pbtxt to write; None keeps the one that is there, which may have been tuned by hand.

    It is kept while it describes the same tensors, and at most the batch that was verified; otherwise these are
    brought up to date and the rest is kept. Other versions of the model share it and labels.txt, so what would
    change them under those versions is refused.
    """
    others = [
        folder.name
        for folder in (home.iterdir() if home.is_dir() else ())
        if folder.is_dir() and folder.name.isdigit() and folder.name != str(bundle.place.version)
    ]
    there = _read_config(home / "config.pbtxt")
    if there is None and not others:
        return text_format.MessageToString(bundle.config)
    agrees = there is None or _describes_the_same(there, bundle.config)
    labels = _read(home / manifest.LABELS)
    if others and not (agrees and labels == manifest.labels_text(bundle.labels).encode()):
        raise errors.RepositoryError(
            f"version {', '.join(sorted(others, key=int))} of {bundle.place.name!r} has other "
            f"{'labels' if agrees else 'tensors or a larger batch'}, and all versions of a model share "
            f"config.pbtxt and {manifest.LABELS}; choose another name with --name"
        )
    if there is None:
        return text_format.MessageToString(bundle.config)
    return None if agrees else text_format.MessageToString(_merged(there, bundle.config))


def _read_config(path: pathlib.Path) -> model_config_pb2.ModelConfig | None:
    """Return the config that is there; None if there is none, or nothing that can be read as one."""
    there = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(_read(path), there)
    except text_format.ParseError as error:
        raise errors.RepositoryError(
            f"{path} cannot be read: {error}; mend it or remove it, then export again"
        ) from error
    return there if there.ListFields() else None


def _read(path: pathlib.Path) -> bytes:
    """Return a file's content; nothing if it is not there."""
    with _explained(path.parent):
        return path.read_bytes() if path.exists() else b""


def _describes_the_same(there: model_config_pb2.ModelConfig, config: model_config_pb2.ModelConfig) -> bool:
    """Whether a config, perhaps tuned by hand to a smaller batch, still fits."""
    has_batch = config.max_batch_size > 0
    fits = 0 < there.max_batch_size <= config.max_batch_size if has_batch else there.max_batch_size == 0
    return fits and all(list(getattr(there, field)) == list(getattr(config, field)) for field in ("input", "output"))


def _merged(there: model_config_pb2.ModelConfig, config: model_config_pb2.ModelConfig) -> model_config_pb2.ModelConfig:
    """Return the new tensors and batch, with everything else that somebody has set."""
    merged = model_config_pb2.ModelConfig()
    merged.CopyFrom(there)
    for field in ("input", "output"):
        merged.ClearField(field)
        getattr(merged, field).extend(getattr(config, field))
    merged.name, merged.platform, merged.max_batch_size = config.name, config.platform, config.max_batch_size
    if not config.max_batch_size:
        merged.ClearField("dynamic_batching")
    return merged


@contextlib.contextmanager
def _explained(repository: pathlib.Path) -> Iterator[None]:
    """Explain what the file system refuses."""
    try:
        yield
    except OSError as error:
        raise errors.RepositoryError(
            f"cannot write below {repository}: {error.strerror or error}; nothing was changed. Free space or rights "
            "there, or name another folder with --repository"
        ) from error
