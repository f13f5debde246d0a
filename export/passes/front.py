"""Puts the normalisation into the graph, exactly: bytes in, and one subtraction before the first convolution.

(x - offset) * scale becomes Sub(offset), with the scale in the first convolution's weights. Folding the
offset too would be wrong wherever that convolution pads with zeros, because it pads after the
normalisation: on ResNet-18, two of eight images change their class.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export import passes, preprocessing, signature
from export.passes import edges


def taking(layout: str, affine: preprocessing.Affine) -> passes.Pass:
    """Return the pass that makes `layout` the graph's input, with `affine` between it and the network."""

    def front(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
        if layout == signature.FLOAT32_NCHW and affine.is_identity:
            return model, False
        tensor, nodes = signature.INPUT, []
        inner = f"{signature.INPUT}/normalised"
        is_folded = _fold(model, affine.scale)
        edges.rename_uses(model, signature.INPUT, inner)
        if layout == signature.UINT8_NHWC:
            _take_bytes(model)
            # Bytes are transposed before they become floats: a quarter of the memory to move.
            nodes.append(helper.make_node("Transpose", [tensor], ["image/chw"], "image/Transpose", perm=[0, 3, 1, 2]))
            nodes.append(
                helper.make_node("Cast", ["image/chw"], ["image/float"], "image/Cast", to=onnx.TensorProto.FLOAT)
            )
            tensor = "image/float"
        steps = [("Sub", "offset", affine.offset, any(affine.offset))]
        steps.append(("Mul", "scale", affine.scale, not is_folded and any(value != 1 for value in affine.scale)))
        for operator, name, values, is_needed in steps:
            if is_needed:
                model.graph.initializer.append(_per_channel(f"image/{name}", values))
                nodes.append(
                    helper.make_node(operator, [tensor, f"image/{name}"], [f"image/{operator}"], f"image/{operator}")
                )
                tensor = f"image/{operator}"
        for node in (*nodes, *model.graph.node):
            node.input[:] = [tensor if name == inner else name for name in node.input]
        _put_first(model, nodes)
        return model, True

    return front


def _put_first(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    others = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *others])


def _take_bytes(model: onnx.ModelProto) -> None:
    """Make the input uint8 (N, H, W, C) instead of float32 (N, C, H, W)."""
    (value,) = (value for value in model.graph.input if value.name == signature.INPUT)
    tensor = value.type.tensor_type
    tensor.elem_type = onnx.TensorProto.UINT8
    batch, channels, height, width = (_copy(dim) for dim in tensor.shape.dim)
    del tensor.shape.dim[:]
    tensor.shape.dim.extend([batch, height, width, channels])


def _copy(dim: onnx.TensorShapeProto.Dimension) -> onnx.TensorShapeProto.Dimension:
    copied = onnx.TensorShapeProto.Dimension()
    copied.CopyFrom(dim)
    return copied


def _per_channel(name: str, values: tuple[float, ...]) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.float32).reshape(1, -1, 1, 1), name)


def _fold(model: onnx.ModelProto, scale: tuple[float, ...]) -> bool:
    """Multiply the scale into the first convolution, in float64; False if the graph does not begin with one."""
    node = _first_convolution(model)
    if node is None:
        return False
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    values: NDArray[np.float64] = numpy_helper.to_array(weight).astype(np.float64)
    is_grouped = any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
    if is_grouped and len(set(scale)) > 1:
        return False
    factors = np.array(scale[:1] if is_grouped else scale).reshape(1, -1, *[1] * (values.ndim - 2))
    weight.CopyFrom(numpy_helper.from_array((values * factors).astype(np.float32), weight.name))
    return True


def _first_convolution(model: onnx.ModelProto) -> onnx.NodeProto | None:
    """The convolution that alone takes the image, with a weight of its own; padding may stand between."""
    tensor = signature.INPUT
    weights = {initializer.name for initializer in model.graph.initializer}
    while True:
        users = edges.users(model, tensor)
        if len(users) != 1 or any(value.name == tensor for value in model.graph.output):
            return None
        (node,) = users
        if node.op_type == "Pad" and _commutes_with_a_factor(node):
            tensor = node.output[0]
            continue
        is_own = node.op_type == "Conv" and node.input[1] in weights and len(edges.users(model, node.input[1])) == 1
        return node if is_own else None


def _commutes_with_a_factor(pad: onnx.NodeProto) -> bool:
    """Whether padding a multiple is the multiple of the padded: yes where it repeats pixels, or pads zeros."""
    mode = next((attribute.s for attribute in pad.attribute if attribute.name == "mode"), b"constant")
    return mode != b"constant" or len(pad.input) < 3 or not pad.input[2]
