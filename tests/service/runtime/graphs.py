"""Small ONNX graphs, built by hand: no torch, no export, so that the GPU machine can have them too."""

import pathlib

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIDE, CHANNELS, CLASSES = 16, 3, 5


def pixels(rows: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (rows, SIDE, SIDE, CHANNELS)).astype(np.uint8)


def convnet(path: pathlib.Path, *, batch: int | str = "n", side: int | str = SIDE, half: bool = False) -> pathlib.Path:
    """uint8 [n, 16, 16, 3] "image" → float "scores" [n, 5] and "features" [n, 8, 8, 8]; convolutions in two layers."""
    kind, dtype = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    random = np.random.default_rng(1)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        fan_in = int(np.prod(shape[1:])) or 1
        return numpy_helper.from_array((random.standard_normal(shape) / np.sqrt(fan_in)).astype(dtype), name)

    nodes = [
        helper.make_node("Cast", ["image"], ["cast"], to=kind),
        helper.make_node("Mul", ["cast", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "w1"], ["c1"], name="first", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node(
            "Conv", ["r1", "w2"], ["c2"], name="second", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
        ),
        helper.make_node("Relu", ["c2"], ["half_features"]),
        helper.make_node("GlobalAveragePool", ["half_features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3"], ["half_scores"], transB=1),
        helper.make_node("Cast", ["half_scores"], ["scores"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["half_features"], ["features"], to=TensorProto.FLOAT),
    ]
    features = side // 2 if isinstance(side, int) else "f"
    graph = helper.make_graph(
        nodes,
        "convnet",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, side, side, CHANNELS])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, CLASSES]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, [batch, 8, features, features]),
        ],
        [
            numpy_helper.from_array(np.array(1 / 255, dtype), "scale"),
            weights("w1", 16, CHANNELS, 3, 3),
            weights("w2", 8, 16, 3, 3),
            weights("w3", CLASSES, 8),
        ],
    )
    return save(graph, path)


def one_node(path: pathlib.Path, operator: str, out: list[int | str], **attributes: object) -> pathlib.Path:
    """float "x" [n, 4] → "y", by one operator."""
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], **attributes)],
        operator,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
    )
    return save(graph, path)


def one_row_only(path: pathlib.Path) -> pathlib.Path:
    """float "x" [n, 4] → "y": says that it takes any batch, and reshapes it to one row."""
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "to"], ["y"])],
        "one row",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", 4])],
        [numpy_helper.from_array(np.array([1, 4]), "to")],
    )
    return save(graph, path)


def save(graph: onnx.GraphProto, path: pathlib.Path) -> pathlib.Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
