"""A network with its feature maps let out: what is traced, and what the graph is compared with.

Path: weights → **tapped** → trace, reference.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from export import errors, signature


class Tapped(nn.Module):
    """Calls a network and returns its outputs, then the outputs of some of its submodules, as one flat tuple.

    Mutable state: `_taken`, what the submodules gave in the call under way.
    """

    def __init__(self, network: nn.Module, taps: Mapping[str, str]) -> None:
        """Hook into the submodules.

        Args:
            network: in eval mode.
            taps: stage → dotted path of the submodule, whose last call counts.

        Raises:
            UnknownStage: the network has no such submodule.
        """
        super().__init__()
        self.network = network
        self._taps = tuple(taps)
        self._taken: dict[str, torch.Tensor] = {}
        self._hooks = [_submodule(network, path).register_forward_hook(self._hook(tap)) for tap, path in taps.items()]

    def forward(self, images_nchw: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return (outputs..., feature maps...)."""
        self._taken.clear()
        outputs = named(self.network(images_nchw)).values()
        return (*outputs, *(self._taken.pop(tap) for tap in self._taps))

    def release(self) -> None:
        """Take the hooks out of the network again."""
        for hook in self._hooks:
            hook.remove()

    def _hook(self, tap: str) -> Any:
        def take(module: nn.Module, arguments: Any, output: Any) -> None:
            if not isinstance(output, torch.Tensor):
                raise errors.UnknownStage(tap, f"its module returns a {type(output).__name__}, not one tensor")
            self._taken[tap] = output.clone()  # the next module may work in place

        return take


def observed(network: nn.Module, images_nchw: torch.Tensor) -> dict[str, str]:
    """Return the submodules whose output can be let out: path → the batch norm behind it, or "".

    A submodule that is never called, or does not return one tensor, is left out. A convolution whose batch
    norm follows is one with it in the exported graph: nothing can be seen between them.
    """
    leaves: list[tuple[str, nn.Module]] = []
    ends: dict[str, int] = {}

    def watch(path: str, is_leaf: bool) -> Any:
        def seen(module: nn.Module, arguments: Any, output: Any) -> None:
            if is_leaf:
                leaves.append((path, module))
            if isinstance(output, torch.Tensor) and leaves:
                ends[path] = len(leaves) - 1

        return seen

    modules = [(path, module) for path, module in network.named_modules() if path]
    hooks = [module.register_forward_hook(watch(path, not any(module.children()))) for path, module in modules]
    try:
        with torch.inference_mode():
            network(images_nchw)
    finally:
        for hook in hooks:
            hook.remove()
    return {path: _norm_behind(leaves, end) for path, end in ends.items()}


def _norm_behind(leaves: Sequence[tuple[str, nn.Module]], end: int) -> str:
    if end + 1 == len(leaves) or not isinstance(leaves[end][1], _CONVOLUTIONS):
        return ""
    path, module = leaves[end + 1]
    return path if isinstance(module, _NORMS) else ""


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def named(result: Any) -> dict[str, torch.Tensor]:
    """Return what a network returned by name.

    A mapping or named tuple has names; of a plain sequence they are output_0, output_1…; one tensor is
    `logits` if it is (N, K), else `output`.

    Raises:
        UnsupportedNetwork: something in it is no tensor.
    """
    if isinstance(result, torch.Tensor):
        return {signature.LOGITS if result.ndim == 2 and result.is_floating_point() else "output": result}
    if isinstance(result, Mapping):
        outputs = dict(result)
    elif hasattr(result, "_asdict"):
        outputs = dict(result._asdict())
    elif isinstance(result, Sequence):
        outputs = {f"output_{number}": value for number, value in enumerate(result)}
    else:
        outputs = {"": result}
    wrong = [type(value).__name__ for value in outputs.values() if not isinstance(value, torch.Tensor)]
    if wrong or not outputs:
        raise errors.UnsupportedNetwork(
            f"the network returns {', '.join(wrong) or 'nothing'}; expected a tensor, or a tuple or dict of tensors"
        )
    taken = [name for name in outputs if name == signature.INPUT or str(name).startswith(signature.FEATURES)]
    if taken:
        raise errors.UnsupportedNetwork(
            f"the network names an output {taken[0]!r}, which names something else in every exported graph; "
            "return it under another name"
        )
    return outputs


def _submodule(network: nn.Module, path: str) -> nn.Module:
    try:
        return network.get_submodule(path)
    except AttributeError:
        known = [name for name, _ in network.named_modules() if name]
        raise errors.UnknownStage(path, f"no such stage or submodule{errors.nearest(path, known)}") from None
