"""Takes out what passes its input through: Identity, Dropout outside training, pooling over 1x1.

AlexNet's adaptive pooling to 6x6 is such a pooling at its own image size.
"""

import onnx

from export.passes import edges

_POOLS = frozenset({"AveragePool", "MaxPool"})


def no_ops(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    """Remove the nodes and join their ends; an output of the graph keeps its name."""
    outputs = {value.name for value in model.graph.output}
    modified = False
    for node in list(model.graph.node):
        if not _does_nothing(node):
            continue
        source, target = node.input[0], node.output[0]
        if target in outputs and (source in outputs or source not in edges.produced(model)):
            continue  # one tensor under two names that are seen from outside needs the node between them
        model.graph.node.remove(node)
        if target in outputs:
            edges.rename(model, source, target)
        else:
            edges.rename_uses(model, target, source)
        modified = True
    return model, modified


def _does_nothing(node: onnx.NodeProto) -> bool:
    if node.op_type == "Identity":
        return True
    if node.op_type == "Dropout":
        return len(node.input) < 3 and len(node.output) == 1
    attributes = {attribute.name: list(attribute.ints) for attribute in node.attribute}
    return (
        node.op_type in _POOLS
        and len(node.output) == 1
        and set(attributes["kernel_shape"]) == {1}
        and set(attributes.get("strides", [1])) == {1}
        and not any(attributes.get("pads", []))
    )
