"""The graph's edges, for the passes: who makes a tensor, and renaming one."""

import graphlib

import onnx


def produced(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Return tensor → the node that makes it."""
    return {name: node for node in model.graph.node for name in node.output if name}


def users(model: onnx.ModelProto, tensor: str) -> list[onnx.NodeProto]:
    """Return the nodes that take a tensor."""
    return [node for node in model.graph.node if tensor in node.input]


def rename_uses(model: onnx.ModelProto, old: str, new: str) -> None:
    """Let every node that takes `old` take `new`."""
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def rename(model: onnx.ModelProto, old: str, new: str) -> None:
    """Rename a tensor where it is made, where it is taken, and as an output of the graph."""
    rename_uses(model, old, new)
    for node in model.graph.node:
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*model.graph.input, *model.graph.output):
        if value.name == old:
            value.name = new


def drop_unused(model: onnx.ModelProto) -> bool:
    """Remove nodes and initializers that no output of the graph needs; whether there were any."""
    makers, needed = produced(model), {value.name for value in model.graph.output}
    waiting = list(needed)
    while waiting:
        node = makers.get(waiting.pop())
        for name in node.input if node is not None else ():
            if name and name not in needed:
                needed.add(name)
                waiting.append(name)
    nodes = [node for node in model.graph.node if needed.isdisjoint(node.output)]
    tensors = [tensor for tensor in model.graph.initializer if tensor.name not in needed]
    for node in nodes:
        model.graph.node.remove(node)
    for tensor in tensors:
        model.graph.initializer.remove(tensor)
    return bool(nodes or tensors)


def ranks(model: onnx.ModelProto) -> dict[str, int]:
    """Return tensor → number of dimensions, where the graph says it."""
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    return {value.name: len(value.type.tensor_type.shape.dim) for value in values}


def sort(model: onnx.ModelProto) -> None:
    """Bring the nodes into an order in which every tensor is made before it is taken; else as they were."""
    nodes = list(model.graph.node)
    maker = {name: number for number, node in enumerate(nodes) for name in node.output if name}
    needs = {number: {maker[name] for name in node.input if name in maker} for number, node in enumerate(nodes)}
    order = list(graphlib.TopologicalSorter(needs).static_order())
    del model.graph.node[:]
    model.graph.node.extend(nodes[number] for number in order)
