"""Names nodes and weights after the modules that they come from: "layer1.0.conv1/Conv".

The names show in profiles, in reports and in graph viewers, and stages are counted by them.
"""

import ast
import collections

import onnx

ROOT = "network"
"""What `tapped.Tapped` calls the network; cut off from the front of every name."""

_SCOPES = "pkg.torch.onnx.name_scopes"


def name_nodes(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    """Rename by the scopes that the exporter left; nodes without any keep their names."""
    weights = {tensor.name: _cut(tensor.name) for tensor in model.graph.initializer}
    used: collections.Counter[str] = collections.Counter()
    modified = False
    for node in model.graph.node:
        node.input[:] = [weights.get(name, name) for name in node.input]
        path = _path(node)
        if path is None:
            continue
        name = f"{path}/{node.op_type}" if path else node.op_type
        used[name] += 1
        name = f"{name}_{used[name]}" if used[name] > 1 else name
        modified |= node.name != name
        node.name = name
    for tensor in model.graph.initializer:
        modified |= tensor.name != weights[tensor.name]
        tensor.name = weights[tensor.name]
    return model, modified


def _path(node: onnx.NodeProto) -> str | None:
    """The module: where the weight lives, else where the call was made; None if nothing is known."""
    scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), None)
    if scopes is None:
        return None
    if node.op_type in {"Conv", "Gemm", "MatMul"} and len(node.input) > 1 and node.input[1].endswith(".weight"):
        # A convolution with its BatchNorm folded in has the scope of the BatchNorm.
        return node.input[1].removesuffix(".weight")
    parents = ast.literal_eval(scopes)[:-1]
    return _cut(parents[-1]) if parents else ""


def _cut(name: str) -> str:
    return "" if name == ROOT else name.removeprefix(f"{ROOT}.")
