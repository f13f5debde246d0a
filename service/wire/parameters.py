"""A request's parameters: how urgent it is, and until when it is worth an answer.

Path: ModelInferRequest → **parameters** → engine.
"""

import math
from typing import Any, NamedTuple

from protos import inference_pb2
from service import errors

# Sent by stock clients with every request; they change nothing for models with one response each.
_IGNORED = frozenset({"triton_enable_empty_final_response", "binary_data_output"})
_INTEGERS = frozenset({"int64_param", "uint64_param"})


class Parameters(NamedTuple):
    """What a request says about how urgent it is."""

    priority: int
    """1 for first, 0 for the model's default."""
    timeout_s: float
    """How long it may wait; infinity, if it does not say."""


NONE = Parameters(0, math.inf)
"""What a request without parameters says."""


def read(request: inference_pb2.ModelInferRequest | None) -> Parameters:
    """Return what a request's parameters say; its `timeout` is microseconds, 0 for none. None: it has none.

    Raises:
        BadRequest: a value of the wrong kind, or a parameter that is not supported.
    """
    if request is None:
        return NONE
    timeout_us, priority = 0, 0
    for name, parameter in request.parameters.items():
        if name == "timeout":
            timeout_us = _whole(name, parameter, "an int64 of microseconds, at least 0")
        elif name == "priority":
            priority = _whole(name, parameter, "a uint64, 0 for the model's default, 1 for first")
        elif name not in _IGNORED:
            raise errors.BadRequest(f"parameter {name!r} is not supported; known: timeout, priority")
    return Parameters(priority, timeout_us / 1e6 if timeout_us else math.inf)


def _whole(name: str, parameter: Any, wanted: str) -> int:
    choice = parameter.WhichOneof("parameter_choice")
    value = int(getattr(parameter, choice)) if choice in _INTEGERS else -1
    if value < 0:
        raise errors.BadRequest(f"parameter {name!r} must be {wanted}")
    return value
