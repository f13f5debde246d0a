"""The shape and type of every tensor of a graph, for one image.

Path: passes → **shapes** → costs.
"""

import dataclasses
import math
from collections.abc import Mapping

import onnx
from onnx import helper

_WEIGHT_ELEMENTS_MIN = 64
"""From here on a constant is a weight: only its shape matters. Smaller ones may be shapes themselves."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor whose size is known."""

    shape: tuple[int, ...]
    datatype: int
    """One of onnx.TensorProto.DataType."""

    @property
    def elements(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """How much memory."""
        if self.datatype == onnx.TensorProto.STRING:
            return 0  # nobody knows before it runs
        return int(self.elements * helper.tensor_dtype_to_np_dtype(self.datatype).itemsize)


def of_one_image(model: onnx.ModelProto, image_shape: tuple[int, int] | None = None) -> Mapping[str, Tensor]:
    """Return name → tensor for every input, constant and result whose shape can be known before a run.

    Args:
        model: the graph. A free first dimension of an input becomes 1; a fixed one stays.
        image_shape: height and width, in pixels, where the input's are free.
    """
    light = _without_weights(model)
    for value in light.graph.input:
        _fix(value, image_shape)
    # The shapes that outputs were declared with would stand against those of one image.
    for value in light.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    known = {tensor.name: Tensor(tuple(tensor.dims), tensor.data_type) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shape = _shape(value)
        if shape is not None:
            known[value.name] = Tensor(shape, value.type.tensor_type.elem_type)
    return known


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with its weights as inputs: without copying hundreds of megabytes."""
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    graph, constants = model.graph, {tensor.name for tensor in model.graph.initializer}
    light.graph.name = "light"
    light.graph.node.extend(graph.node)
    light.graph.output.extend(graph.output)
    light.graph.input.extend(value for value in graph.input if value.name not in constants)
    for tensor in graph.initializer:
        if math.prod(tensor.dims) < _WEIGHT_ELEMENTS_MIN:
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return light


def _fix(value: onnx.ValueInfoProto, image_shape: tuple[int, int] | None) -> None:
    """Make the batch 1, and the height and width, in this order in either layout, those of the image."""
    dims = value.type.tensor_type.shape.dim
    if dims and not dims[0].HasField("dim_value"):
        dims[0].dim_value = 1
    free = [dim for dim in dims if not dim.HasField("dim_value")]
    if image_shape is not None and len(dims) == 4 and len(free) == 2:
        for dim, size_px in zip(free, image_shape, strict=True):
            dim.dim_value = size_px


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        return None
    return tuple(dim.dim_value for dim in tensor.shape.dim)
