"""A file from the network, fetched once: resumed where it broke off, verified, and kept.

Path: published → **download** → transfer; the file → checkpoint.

Only a whole and verified file gets its name, so whatever has its name is whole. `NAME.lock` keeps a second
process waiting while it arrives.
"""

import contextlib
import errno
import hashlib
import os
import pathlib
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence

import filelock

from export import errors
from export.weights import transfer

TIMEOUT_S = 30.0
PAUSES_S = (1.0, 4.0, 16.0)

Progress = Callable[[str], contextlib.AbstractContextManager[transfer.Report]]
"""Shows a text, and how far it is, until it is left."""


def cache_folder(environment: Mapping[str, str] = os.environ) -> pathlib.Path:
    """Return where files are kept: $FOVEA_CACHE, else $XDG_CACHE_HOME/fovea/weights, else ~/.cache/fovea/weights."""
    if environment.get("FOVEA_CACHE"):
        return pathlib.Path(environment["FOVEA_CACHE"])
    home = environment.get("XDG_CACHE_HOME")
    return (pathlib.Path(home) if home else pathlib.Path.home() / ".cache") / "fovea" / "weights"


@contextlib.contextmanager
def bar(text: str) -> Iterator[transfer.Report]:
    """Show a progress bar on the standard error output."""
    from rich import console, markup, progress  # noqa: PLC0415 - only for people

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True)) as shown:
        task = shown.add_task(markup.escape(text), total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def fetch(
    url: str,
    cache: pathlib.Path,
    progress: Progress = bar,
    pauses_s: Sequence[float] = PAUSES_S,
    timeout_s: float = TIMEOUT_S,
) -> pathlib.Path:
    """Return the path of the file in the cache; download it if it is not there.

    Args:
        url: an https address; plain http is for this machine alone. Eight or more hexadecimal digits
            before the suffix of the name (`name-0123abcd.pth`), or a fragment `#sha256=...`, are how the
            file's SHA-256 begins.
        cache: the folder; made if need be. A file whose name has no digits gets a folder of its own, as
            names alone are not unique.
        progress: shows what is going on.
        pauses_s: how long to wait before each further attempt, once the first has failed.
        timeout_s: the longest silence of the server.

    Raises:
        DownloadError: the file cannot be had, is not what it should be, or cannot be kept.
    """
    target = _target(url, cache, timeout_s)
    try:
        if target.path.exists():
            _refuse_changed(target)
        else:
            target.path.parent.mkdir(parents=True, exist_ok=True)
            with _alone(target, progress):
                if not target.path.exists():  # another process may have been faster
                    _receive(target, progress, pauses_s)
    except OSError as error:
        raise errors.DownloadError(target.url, _trouble_with_disk(error, target)) from error
    return target.path


def _target(url: str, cache: pathlib.Path, timeout_s: float) -> transfer.Target:
    transfer.refuse_unsafe(url)
    plain, fragment = urllib.parse.urldefrag(url)
    name = pathlib.PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(plain).path)).name
    if not name or name.startswith("."):
        raise errors.DownloadError(url, "the address names no file")
    stated = re.fullmatch(r"sha256=([0-9a-fA-F]{8,64})", fragment)
    if fragment and not stated:
        raise errors.DownloadError(
            url, f"#{fragment} says nothing here; expected #sha256= and 8 to 64 hexadecimal digits"
        )
    named = re.search(r"-([0-9a-f]{8,64})\.[a-z]+$", name)
    own = pathlib.Path() if named else pathlib.Path(hashlib.sha256(plain.encode()).hexdigest()[:12])
    sha256 = stated[1].lower() if stated else named[1] if named else ""
    return transfer.Target(plain, cache / own / name, sha256, timeout_s)


@contextlib.contextmanager
def _alone(target: transfer.Target, progress: Progress) -> Iterator[None]:
    """Hold the file's lock; say so if another process has it."""
    lock = filelock.FileLock(target.path.with_name(f"{target.path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        with progress(f"waiting for another process that downloads {target.path.name}"):
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _receive(target: transfer.Target, progress: Progress, pauses_s: Sequence[float]) -> None:
    """Attempt it until it is here, or there are no pauses left; then verify it and give it its name."""
    with progress(f"downloading {target.path.name}") as report:
        for pause_s in pauses_s:
            try:
                transfer.attempt(target, report)
                break
            except errors.DownloadError as error:
                if not error.may_pass:
                    raise
                time.sleep(pause_s)
        else:
            transfer.attempt(target, report)
    found = _digest(target.part)
    if not found.startswith(target.sha256):
        target.forget()
        found = found[: len(target.sha256)]
        raise errors.DownloadError(target.url, f"its SHA-256 begins with {found}, expected {target.sha256}; deleted it")
    target.part.replace(target.path)
    target.tag.unlink(missing_ok=True)


def _refuse_changed(target: transfer.Target) -> None:
    if not _digest(target.path).startswith(target.sha256):
        raise errors.DownloadError(target.url, f"{target.path} is not that file any more; delete it, and run again")


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _trouble_with_disk(error: OSError, target: transfer.Target) -> str:
    remedy = "or set FOVEA_CACHE to a folder elsewhere"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"there is no room in {target.path.parent} ({error.strerror}); make some, {remedy}"
    where = error.filename or target.path.parent
    return f"{where} cannot be used ({error.strerror}); see to it, {remedy}"
