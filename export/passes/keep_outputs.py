"""Keeps the outputs that were asked for; other feature maps stay in the graph as named tensors.

Their names, "features:<stage>", let anybody look at them later: `fovea inspect` makes them outputs again.
"""

from collections.abc import Sequence

import onnx

from export import passes
from export.passes import edges


def keeping(wanted: Sequence[str]) -> passes.Pass:
    """Return the pass that keeps the outputs of those names, in that order."""

    def keep_outputs(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
        outputs = {value.name: value for value in model.graph.output}
        kept = [outputs[name] for name in wanted]
        modified = kept != list(model.graph.output)
        del model.graph.output[:]
        model.graph.output.extend(kept)
        return model, edges.drop_unused(model) or modified

    return keep_outputs
