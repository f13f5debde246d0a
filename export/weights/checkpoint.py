"""A file of weights becomes named tensors. Nothing in it is ever run.

Path: weights, download → **checkpoint** → fitting.
"""

import pathlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping

import safetensors
import safetensors.torch
import torch

from export import errors

NESTED = ("state_dict", "model")
"""Where training scripts put the state dict, if it is not the file's whole content."""

_SAVE_AGAIN = "save just the tensors, with torch.save(model.state_dict(), 'weights.pth'), and pass that"
_HEADS = {
    b"<": "it is a web page, not weights; open it to see what the server had to say, and download it again",
    b"version https://git-lfs": "it is a Git LFS pointer to the file, not the file; run `git lfs pull`",
}


def read(path: pathlib.Path) -> dict[str, torch.Tensor]:
    """Return the tensors by name, on the CPU, as they are in the file.

    Args:
        path: a .safetensors file, or what torch.save wrote: names → tensors, plainly or under "state_dict"
            or "model".

    Raises:
        WeightsError: it cannot be read, would have to run code to be read, or holds something else.
    """
    _refuse_what_is_no_checkpoint(path)
    try:
        content = _load_safetensors(path) if path.suffix == ".safetensors" else _load(path)
    except errors.WeightsError:
        raise
    except Exception as error:  # what a damaged pickle may raise has no bounds
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise _unreadable(path, f"it is damaged or not whole ({reason}); download or copy it again") from error
    return _state_dict(path, content)


def _unreadable(path: pathlib.Path, reason: str) -> errors.WeightsError:
    return errors.WeightsError(f"weights {path} cannot be read: {reason}")


def _refuse_what_is_no_checkpoint(path: pathlib.Path) -> None:
    """Explain what is often found in the place of a checkpoint."""
    try:
        if path.is_dir():
            raise _unreadable(path, "it is a folder; name the file in it")
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise _unreadable(path, f"{error.strerror}; expected a .pth, .pt or .safetensors file") from error
    if not head:
        raise _unreadable(path, "it is empty; download or copy it again")
    if path.suffix == ".safetensors" and head[8:9] == b"{":
        return  # its first eight bytes are a number, and may look like anything
    for start, what in _HEADS.items():
        if head.lstrip().startswith(start):
            raise _unreadable(path, what)


def _load_safetensors(path: pathlib.Path) -> object:
    return safetensors.torch.load_file(path, device="cpu")


def _load(path: pathlib.Path) -> object:
    if zipfile.is_zipfile(path):
        _refuse_programs(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # on pickles of other versions; they are read, or refused
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            # PyTorch's advice is to allow the code, in many lines; the name of what wants to run says more.
            wanted = re.search(r"GLOBAL ([\w.]+) (?:was not|whose module)", str(error))
            if wanted is None:
                raise _unreadable(
                    path, "it is damaged, or not a file of PyTorch's; download or copy it again"
                ) from error
            raise _unreadable(
                path, f"it holds more than tensors, and would run {wanted[1]}, which is refused; {_SAVE_AGAIN}"
            ) from error


def _refuse_programs(path: pathlib.Path) -> None:
    """Explain PyTorch's other archives: they hold a program with its weights."""
    with zipfile.ZipFile(path) as archive:
        members = {pathlib.PurePosixPath(name).name for name in archive.namelist()}
    if "constants.pkl" in members:
        raise _unreadable(path, f"it is a TorchScript archive, which is a program; where it was made, {_SAVE_AGAIN}")
    if "data.pkl" not in members:
        raise _unreadable(path, f"it is an archive that torch.save did not write; where it was made, {_SAVE_AGAIN}")


def _state_dict(path: pathlib.Path, content: object) -> dict[str, torch.Tensor]:
    for key in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    expected = "expected names and tensors, plainly or under 'state_dict' or 'model'"
    if not isinstance(content, Mapping):
        raise errors.WeightsError(f"weights {path} hold no state dict but a {type(content).__name__}; {expected}")
    if not content:
        raise errors.WeightsError(f"weights {path} hold no state dict: there is nothing in it; {expected}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            keys = ", ".join(repr(key) for key in list(content)[:8])
            raise errors.WeightsError(
                f"weights {path} hold no state dict: {name!r} is a {type(value).__name__}, among {keys}; {expected}"
            )
    return dict(content)
