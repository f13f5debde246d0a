"""A request's parameters: how urgent it is, and until when it is worth an answer.

Path: ModelInferRequest → **parameters** → engine.
"""

import math
from typing import Any, NamedTuple

from protos import inference_pb2
from service import errors

_EMPTY_FINAL_RESPONSE = "triton_enable_empty_final_response"
"""A boolean that stock clients send. It is for decoupled models: where a request has one answer, that is the last."""
_IGNORED = frozenset({"binary_data_output"})
"""Of the HTTP protocol; some clients send it along."""
_SEQUENCE = frozenset({"sequence_id", "sequence_start", "sequence_end"})
_TRACE_CONTEXT = frozenset({"traceparent", "tracestate"})
"""W3C's names; a message of a stream has no metadata of its own. Without tracing they change nothing."""
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
        elif name == _EMPTY_FINAL_RESPONSE:
            _boolean(name, parameter)
        elif name in _SEQUENCE:
            _no_sequence(name, parameter)
        elif name in _TRACE_CONTEXT:
            _string(name, parameter)
        elif name not in _IGNORED:
            reserved = "; names that begin with triton_ are Triton's own" if name.startswith("triton_") else ""
            raise errors.BadRequest(
                f"parameter {name!r} is not supported; known: timeout, priority, traceparent{reserved}", _path(name)
            )
    return Parameters(priority, timeout_us / 1e6 if timeout_us else math.inf)


def trace_context(request: inference_pb2.ModelInferRequest) -> dict[str, str]:
    """Return the trace context in a request's parameters: W3C's names and values; empty without one."""
    told = request.parameters
    return {name: told[name].string_param for name in _TRACE_CONTEXT if name in told}


def _string(name: str, parameter: Any) -> None:
    """Check that a parameter is a string."""
    if parameter.WhichOneof("parameter_choice") != "string_param":
        raise errors.BadRequest(f"parameter {name!r} must be a string, as W3C's trace context has it", _path(name))


def _whole(name: str, parameter: Any, wanted: str) -> int:
    choice = parameter.WhichOneof("parameter_choice")
    value = int(getattr(parameter, choice)) if choice in _INTEGERS else -1
    if value < 0:
        raise errors.BadRequest(f"parameter {name!r} must be {wanted}", _path(name))
    return value


def _boolean(name: str, parameter: Any) -> None:
    if parameter.WhichOneof("parameter_choice") != "bool_param":
        raise errors.BadRequest(f"parameter {name!r} must be a bool", _path(name))


def _no_sequence(name: str, parameter: Any) -> None:
    """Check that a sequence's parameter says that there is none: id 0 or "", neither start nor end."""
    choice = parameter.WhichOneof("parameter_choice")
    if choice is not None and getattr(parameter, choice):
        raise errors.BadRequest(
            f"parameter {name!r}: the models here keep nothing from one request to the next, so there are no "
            "sequences; send the requests without sequence_id, sequence_start and sequence_end",
            _path(name),
        )


def _path(name: str) -> str:
    return errors.path("parameters", name)
