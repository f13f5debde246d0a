"""A graph's inputs and outputs, as requests have them.

Path: ONNX Runtime's arguments → **tensors** → session, and whoever describes or checks requests.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from service import datatypes, errors
from service.runtime import reshape

_SERVED = ", ".join(dict.fromkeys(datatype.ort for datatype in datatypes.ALL))


def specs(
    model: str, role: str, arguments: Iterable[Any], reshaped: Mapping[str, reshape.Reshape]
) -> tuple[datatypes.TensorSpec, ...]:
    """Describe a graph's inputs or outputs as requests have them.

    Args:
        model: its name.
        role: "input" or "output".
        arguments: as ONNX Runtime tells them.
        reshaped: what the config reshapes, by name.

    Raises:
        ModelLoadError: a type that the protocol cannot carry, or a reshape that does not fit.
    """
    described = (_spec(model, role, argument) for argument in arguments)
    return tuple(_reshaped(model, spec, reshaped[spec.name]) if spec.name in reshaped else spec for spec in described)


def _reshaped(model: str, spec: datatypes.TensorSpec, wanted: reshape.Reshape) -> datatypes.TensorSpec:
    """The tensor as requests have it."""
    said = wanted.graph
    fits = len(said) == len(spec.shape) and all(a == b or -1 in {a, b} for a, b in zip(said, spec.shape, strict=True))
    if spec.shape and not fits:
        raise errors.ModelLoadError(
            model, f"config.pbtxt reshapes {spec.name!r} to {list(said)}; the graph has {list(spec.shape)}"
        )
    return dataclasses.replace(spec, shape=wanted.wire)


def _spec(model: str, role: str, argument: Any, *, is_optional: bool = False) -> datatypes.TensorSpec:
    datatype = datatypes.BY_ORT.get(argument.type)
    if datatype is None:
        raise errors.ModelLoadError(
            model,
            f"{role} {argument.name!r} has type {argument.type}, which the protocol cannot carry; "
            f"export the model with tensors of {_SERVED}",
        )
    shape = tuple(size if isinstance(size, int) else -1 for size in argument.shape)
    axis = argument.shape[0] if shape and isinstance(argument.shape[0], str) else ""
    return datatypes.TensorSpec(argument.name, datatype, shape, axis, is_optional)


def optional(arguments: Iterable[Any]) -> tuple[datatypes.TensorSpec, ...]:
    """Describe inputs that the graph has values for: those of a type that is served; the others keep their values."""
    served = [argument for argument in arguments if argument.type in datatypes.BY_ORT]
    return tuple(_spec("", "input", argument, is_optional=True) for argument in served)
