"""Named tensors become a network's weights: every name, every shape, every kind of number, or none.

Path: checkpoint → **fitting** → weights.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import nn

from export import errors

LISTED = 7
"""How many problems of each sort are listed."""
WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before each name."""

_State = Mapping[str, torch.Tensor]


def fit(
    network: nn.Module, state: _State, source: str, classes: int = 0, ignored: Collection[str] = ()
) -> tuple[str, ...]:
    """Give the network its weights. Either all of them fit, or nothing is changed.

    What may differ: all names begin with the same wrapper's prefix; the counters `num_batches_tracked`,
    which old files lack and nothing is computed from; the precision of floating-point numbers.

    Args:
        network: its floating-point tensors are float32.
        state: the tensors by name.
        source: where they come from, for errors.
        classes: how many the network was built for with --classes; 0 if it was not.
        ignored: names that are dropped if the network does not want them.

    Returns:
        The other floating-point types of the file, such as "float16", that were made float32.

    Raises:
        WeightsMismatch: lists what is missing, unexpected, or of the wrong shape or kind.
        WeightsError: a number is not finite.
    """
    wanted = network.state_dict()
    state = _completed(_unwrapped(state, wanted), wanted, ignored)
    problems = [*_names(state, wanted), *_shapes(state, wanted), *_kinds(state, wanted)]
    if problems:
        raise errors.WeightsMismatch(source, problems, _head(state, wanted, classes))
    fitting = {name: tensor.to(wanted[name].dtype) for name, tensor in state.items()}
    _refuse_non_finite(fitting, source)
    network.load_state_dict(fitting, strict=True)
    return tuple(sorted({_kind(state[name]) for name in state if state[name].dtype != wanted[name].dtype}))


def _unwrapped(state: _State, wanted: _State) -> _State:
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in state) and not all(name.startswith(prefix) for name in wanted):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _completed(state: _State, wanted: _State, ignored: Collection[str]) -> _State:
    """Return the state without what is ignored, and with the counters that old files lack."""
    counters = {
        name: wanted[name]
        for name in wanted.keys() - state.keys()
        if name.endswith("num_batches_tracked") and name.replace("num_batches_tracked", "running_mean") in state
    }
    return {name: state[name] for name in state if name in wanted or name not in ignored} | counters


def _names(state: _State, wanted: _State) -> list[str]:
    missing, unexpected = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    shown = []
    for name in missing[:LISTED]:
        near = difflib.get_close_matches(name, unexpected, n=1, cutoff=0.4)
        shown.append(f"missing: {name}" + (f" (the file has {near[0]})" if near else ""))
    shown += [f"unexpected: {name}" for name in unexpected[:LISTED]]
    return shown + _rest(missing, "missing") + _rest(unexpected, "unexpected")


def _rest(problems: Sequence[str], what: str) -> list[str]:
    return [f"and {len(problems) - LISTED} more {what}"] if len(problems) > LISTED else []


def _shapes(state: _State, wanted: _State) -> list[str]:
    problems = [
        f"wrong shape: {name} is {tuple(state[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in _misshapen(state, wanted)
    ]
    return problems[:LISTED] + _rest(problems, "of the wrong shape")


def _misshapen(state: _State, wanted: _State) -> list[str]:
    return [name for name in sorted(wanted.keys() & state.keys()) if state[name].shape != wanted[name].shape]


def _kinds(state: _State, wanted: _State) -> list[str]:
    problems = [
        f"wrong kind: {name} is {_kind(state[name])}, expected {_kind(wanted[name])}"
        for name in sorted(wanted.keys() & state.keys())
        if not _is_plain(state[name])
        or (
            state[name].dtype != wanted[name].dtype
            and not (state[name].is_floating_point() and wanted[name].is_floating_point())
        )
    ]
    return problems[:LISTED] + _rest(problems, "of the wrong kind")


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether it holds its numbers: a tensor without values, sparse or quantised, is not copied as it is."""
    return tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_quantized


def _kind(tensor: torch.Tensor) -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_meta:
        return f"{name} without values"
    return name if tensor.layout == torch.strided else f"{name}, {str(tensor.layout).removeprefix('torch.')}"


def _head(state: _State, wanted: _State, classes: int) -> str:
    """Return what to do if all is well but the number of classes, else ""."""
    pairs = [(state[name].shape, wanted[name].shape) for name in _misshapen(state, wanted)]
    sizes = {(has[:1], wants[:1]) for has, wants in pairs if has and wants and has[1:] == wants[1:]}
    if wanted.keys() != state.keys() or len(sizes) != 1 or not all(has[1:] == wants[1:] for has, wants in pairs):
        return ""
    (has,), (wants,) = sizes.pop()
    remedy = f"pass --classes {has}" if wants == classes else f"build the network for {has}, not {wants}"
    return f"only the last layer differs: the file has {has} classes; {remedy}"


def _refuse_non_finite(state: _State, source: str) -> None:
    for name in sorted(state):
        if not torch.isfinite(state[name]).all():
            raise errors.WeightsError(
                f"weights {source} hold numbers that are not finite, first in {name}; "
                "the training diverged, or the file is damaged: use an earlier checkpoint"
            )
