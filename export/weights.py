"""Weights for a network: from a file, trained now, or random. Strict: every key, every shape.

Path: zoo → **weights** → serving.
"""

import difflib
import hashlib
import pathlib
import pickle
from collections.abc import Mapping

import torch
from torch import nn

from export import digits, errors, zoo


def load(architecture: zoo.Architecture, source: str, seed: int = 0) -> nn.Module:
    """Return the network with its weights, in eval mode.

    Args:
        architecture: which network.
        source: "random" (seeded), "digits" (trained now, lenet5 only), or the path of a .pt/.pth file
            with a state dict, plain or under "state_dict" or "model".
        seed: for "random" and "digits".

    Raises:
        WeightsError: the file cannot be read, or its keys or shapes do not fit.
    """
    if source == "digits":
        if architecture.name != "lenet5":
            raise errors.WeightsError(f"weights 'digits' are for lenet5, not {architecture.name}; name a file")
        return digits.train_with_bar(digits.Recipe(seed=seed))
    torch.manual_seed(seed)
    network = architecture.build(architecture.classes)
    if source != "random":
        state = _read(pathlib.Path(source))
        _check(state, network.state_dict(), source)
        network.load_state_dict(state, strict=True)
    return network.eval()


def sha256(network: nn.Module) -> str:
    """Return the SHA-256 over names, dtypes, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(path: pathlib.Path) -> Mapping[str, torch.Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise errors.WeightsError(
            f"weights {path} cannot be read: {reason}; expected 'random', 'digits' or a .pt/.pth file with a state dict"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise errors.WeightsError(f"weights {path} hold no state dict: expected a mapping of names to tensors")
    return content


def _check(state: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], source: str) -> None:
    problems = []
    for name in sorted(wanted.keys() - state.keys()):
        near = difflib.get_close_matches(name, state.keys() - wanted.keys(), n=1, cutoff=0.4)
        problems.append(f"missing: {name}" + (f" (the file has {near[0]})" if near else ""))
    problems += [f"unexpected: {name}" for name in sorted(state.keys() - wanted.keys())]
    problems += [
        f"wrong shape: {name} is {tuple(state[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & state.keys())
        if state[name].shape != wanted[name].shape
    ]
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        raise errors.WeightsError(f"weights {source} do not fit the network:{listed}")
