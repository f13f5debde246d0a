"""Adds class scores behind the logits: probabilities, and the best classes with theirs.

They cost nothing beside a network, and a client that asks for them alone receives a few numbers.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export import passes, signature


def softmax(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    """Add `probabilities`, the softmax of `logits` over the classes, as the last output."""
    (logits,) = (value for value in model.graph.output if value.name == signature.LOGITS)
    model.graph.node.append(
        helper.make_node(
            "Softmax", [signature.LOGITS], [signature.PROBABILITIES], signature.PROBABILITIES + "/Softmax", axis=1
        )
    )
    value = model.graph.output.add()
    value.CopyFrom(logits)
    value.name = signature.PROBABILITIES
    return model, True


def best(count: int) -> passes.Pass:
    """Return the pass that adds the `count` best classes by `probabilities`, best first."""

    def top_k(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
        scores, classes = signature.top_names(count)
        k = numpy_helper.from_array(np.array([count], np.int64), f"top{count}/k")
        model.graph.initializer.append(k)
        node = helper.make_node(
            "TopK", [signature.PROBABILITIES, k.name], [scores, classes], f"top{count}/TopK", axis=1
        )
        model.graph.node.append(node)
        for name, kind in ((scores, onnx.TensorProto.FLOAT), (classes, onnx.TensorProto.INT64)):
            model.graph.output.append(helper.make_tensor_value_info(name, kind, [signature.BATCH, count]))
        return model, True

    return top_k
