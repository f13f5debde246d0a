"""Which stage of the network a node belongs to.

Path: passes (name_nodes) → **stages** → costs.

1. The stage with the longest path that the node's module lies below: "layer1.0.conv1/Conv" is in layer1.
2. A node below none of them belongs to the stage that it leads to, the first one whose feature maps come
   after it: ResNet's conv1 is in the stem, which is called after its last module, maxpool.
3. What leads to no stage any more is the head.
"""

from collections.abc import Mapping, Sequence

import onnx

from export import signature

HEAD = "head"
WHOLE = "network"
"""The one stage of a network that has none."""


def of_nodes(model: onnx.ModelProto, stages: Mapping[str, str]) -> Sequence[str]:
    """Return the stage of each node, in order.

    Args:
        model: the graph; its nodes in topological order, named "<module path>/<operator>".
        stages: name → dotted path of the module, in the order of the data.
    """
    if not stages:
        return [WHOLE] * len(model.graph.node)
    ends = {signature.FEATURES + name: name for name in stages}
    return [
        of_path(path(node), stages) or behind for node, behind in zip(model.graph.node, _next(model, ends), strict=True)
    ]


def of_path(module: str, stages: Mapping[str, str]) -> str:
    """Return the stage that a module lies below; "" if in none (case 1)."""
    above = [name for name, prefix in stages.items() if module == prefix or module.startswith(f"{prefix}.")]
    return max(above, key=lambda name: len(stages[name]), default="")


def path(node: onnx.NodeProto) -> str:
    """Return the dotted path of the module that a node comes from; "" for the network itself."""
    return node.name.rpartition("/")[0]


def _next(model: onnx.ModelProto, ends: Mapping[str, str]) -> list[str]:
    """For each node, the stage that it leads to (case 2), or the head (case 3).

    `ends` are the stages' feature maps: tensor → stage.
    """
    made = [[ends[name] for name in node.output if name in ends] for node in model.graph.node]
    behind: dict[str, int] = {}  # tensor → position of the node that makes the nearest feature maps behind it
    found = []
    for position in reversed(range(len(made))):
        node = model.graph.node[position]
        reached = [position] if made[position] else [behind[name] for name in node.output if name in behind]
        found.append(made[min(reached)][0] if reached else HEAD)
        # What leads to feature maps belongs to their stage, not to those behind.
        for name in node.input if reached else ():
            behind[name] = min(*reached, behind.get(name, len(made)))
    return found[::-1]
