"""Rewrites of the traced graph, run in the order of `PASSES`: each model → (model, modified)."""

from collections.abc import Callable

import onnx

from export.passes import strip

Pass = Callable[[onnx.ModelProto], tuple[onnx.ModelProto, bool]]

PASSES: tuple[tuple[str, Pass], ...] = (("strip", strip.strip),)


def run(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """Return the rewritten model and the names of the passes that changed something."""
    changed = []
    for name, apply in PASSES:
        model, modified = apply(model)
        if modified:
            changed.append(name)
    return model, changed
