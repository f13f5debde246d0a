"""Rewrites of the traced graph: small files, each model → (model, modified).

Path: trace → **passes** → precision, verify.

A pass may edit the model that it is given: `run` starts with a copy. The order is that of a list made
by `pipeline`; each pass leaves a graph that computes the same, unless its docstring says otherwise.
"""

import collections
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence

import onnx

from export import evidence

Pass = Callable[[onnx.ModelProto], tuple[onnx.ModelProto, bool]]


def run(model: onnx.ModelProto, passes: Sequence[Pass]) -> tuple[onnx.ModelProto, list[evidence.PassEffect]]:
    """Return the rewritten model and what each pass did to it."""
    current = onnx.ModelProto()
    current.CopyFrom(model)
    effects = []
    for apply in passes:
        nodes_before = len(current.graph.node)
        current, modified = apply(current)
        effects.append(
            evidence.PassEffect(
                name=apply.__name__,
                what=_first_line(apply),
                nodes_before=nodes_before,
                nodes_after=len(current.graph.node),
                modified=modified,
            )
        )
    return current, effects


def operators(model: onnx.ModelProto) -> Mapping[str, int]:
    """Return how often each operator occurs, most frequent first."""
    return dict(collections.Counter(node.op_type for node in model.graph.node).most_common())


def _first_line(apply: Pass) -> str:
    module = sys.modules[apply.__module__]
    return (inspect.getdoc(module) or "").partition("\n")[0]
