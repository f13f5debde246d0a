"""Each pass rewrites what its docstring says, and leaves a graph that computes the same."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from export import passes, preprocessing, runtime, signature, tapped, trace
from export.passes import edges, front, global_average_pool, keep_outputs, name_nodes, no_ops, scores, strip

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 9, 8, 3), np.uint8)


class Small(nn.Module):
    """A padded convolution with its BatchNorm, an identity pooling, a global average, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.pool = nn.AdaptiveAvgPool2d((9, 8))
        self.drop = nn.Dropout()
        self.fc = nn.Linear(4, 5)
        nn.init.uniform_(self.bn.running_mean, -1, 1)
        nn.init.uniform_(self.bn.running_var, 0.5, 2)

    def forward(self, images_nchw: torch.Tensor) -> torch.Tensor:
        maps = self.drop(self.pool(torch.relu(self.bn(self.conv(images_nchw)))))
        return self.fc(maps.mean((2, 3), keepdim=True).flatten(1))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture(scope="module")
def traced(network: nn.Module) -> onnx.ModelProto:
    hooked = tapped.Tapped(network, {"conv": "bn"})
    try:
        return trace.trace(hooked, (3, 9, 8), ["logits", "features:conv"])
    finally:
        hooked.release()


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


def floats() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((3, 3, 9, 8)).astype(np.float32)


def same_outputs(one: onnx.ModelProto, other: onnx.ModelProto, image: np.ndarray) -> None:
    got, wanted = (runtime.Session(model).run({"image": image}) for model in (one, other))
    assert got.keys() == wanted.keys()
    for name in got:
        np.testing.assert_allclose(got[name], wanted[name], rtol=1e-5, atol=1e-6)


def test_the_exporter_has_folded_the_batch_norm(traced: onnx.ModelProto) -> None:
    assert "BatchNormalization" not in passes.operators(traced)


def test_nodes_and_weights_are_named_after_their_modules(traced: onnx.ModelProto) -> None:
    model, modified = name_nodes.name_nodes(copied(traced))
    names = [node.name for node in model.graph.node]
    assert modified
    assert names[0] == "conv/Conv"
    assert names[-1] == "fc/Gemm"
    assert len(set(names)) == len(names)
    assert {"conv.weight", "fc.weight", "fc.bias"} <= {tensor.name for tensor in model.graph.initializer}
    assert not name_nodes.name_nodes(model)[1]
    same_outputs(model, traced, floats())


def test_the_mean_over_the_image_becomes_global_average_pool(traced: onnx.ModelProto) -> None:
    assert "ReduceMean" in passes.operators(traced)
    model, modified = global_average_pool.global_average_pool(copied(traced))
    assert modified
    assert "ReduceMean" not in passes.operators(model)
    assert passes.operators(model)["GlobalAveragePool"] == 1
    same_outputs(model, traced, floats())
    assert not global_average_pool.global_average_pool(model)[1]


@pytest.mark.parametrize(
    ("shape", "axes", "keepdims"),
    [(("n", 3, 4), [-2, -1], 1), (("n", 3, 4, 5), [2, 3], 0), (("n", 3, 4, 5), [1, 2], 1)],
)
def test_other_means_stay(shape: tuple[int | str, ...], axes: list[int], keepdims: int) -> None:
    model = graph([helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=keepdims)], shape, axes=axes)
    assert not global_average_pool.global_average_pool(model)[1]


def test_what_does_nothing_is_taken_out_and_outputs_keep_their_names() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("AveragePool", ["a"], ["b"], kernel_shape=[1, 1]),
        helper.make_node("Dropout", ["b"], ["c"]),
        helper.make_node("Identity", ["c"], ["y"]),
    ]
    model = graph(nodes, ("n", 2, 3, 4))
    small, modified = no_ops.no_ops(copied(model))
    assert modified
    assert passes.operators(small) == {"Relu": 1}
    x = np.random.default_rng(0).standard_normal((2, 2, 3, 4)).astype(np.float32)
    assert np.array_equal(runtime.Session(small).run({"x": x})["y"], np.maximum(x, 0))
    assert not no_ops.no_ops(small)[1]


def test_an_identity_between_input_and_output_stays() -> None:
    model = graph([helper.make_node("Identity", ["x"], ["y"])], ("n", 2))
    assert not no_ops.no_ops(model)[1]


def test_two_outputs_of_one_tensor_keep_their_names() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Identity", ["y"], ["z"])]
    model = graph(nodes, ("n", 2))
    model.graph.output.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None))
    assert not no_ops.no_ops(model)[1]
    assert [value.name for value in model.graph.output] == ["y", "z"]


def test_real_pooling_stays() -> None:
    nodes = [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[1, 1], strides=[2, 2])]
    assert not no_ops.no_ops(graph(nodes, ("n", 2, 3, 4)))[1]


@pytest.mark.parametrize("transform_input", [False, True])
def test_the_front_normalises_exactly_where_the_convolution_pads(
    traced: onnx.ModelProto, network: nn.Module, transform_input: bool
) -> None:
    described = preprocessing.Preprocessing(
        9, 8, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), transform_input=transform_input
    )
    made, modified = front.taking(signature.UINT8_NHWC, described.from_pixels())(copied(traced))
    assert modified
    assert [node.op_type for node in made.graph.node][:4] == ["Transpose", "Cast", "Sub", "Conv"]
    normalised = (IMAGES / 255 - np.array(described.mean)) / np.array(described.std)
    if transform_input:  # as torchvision writes it
        normalised = normalised * (np.array(described.std) / 0.5) + (np.array(described.mean) - 0.5) / 0.5
    with torch.inference_mode():
        wanted = network.double()(torch.from_numpy(normalised.transpose(0, 3, 1, 2))).numpy()
        network.float()
    got = runtime.Session(made).run({"image": IMAGES})["logits"]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-6)


def test_a_float_input_needs_a_front_only_for_transform_input(traced: onnx.ModelProto) -> None:
    plain = preprocessing.imagenet()
    assert not front.taking(signature.FLOAT32_NCHW, plain.from_normalised())(copied(traced))[1]
    second = preprocessing.Preprocessing(9, 8, plain.mean, plain.std, transform_input=True)
    made, _ = front.taking(signature.FLOAT32_NCHW, second.from_normalised())(copied(traced))
    assert [node.op_type for node in made.graph.node][:2] == ["Sub", "Conv"]
    x = floats()
    shifted = x * np.reshape([0.229 / 0.5, 0.224 / 0.5, 0.225 / 0.5], (1, 3, 1, 1)) + np.reshape(
        [(0.485 - 0.5) / 0.5, (0.456 - 0.5) / 0.5, (0.406 - 0.5) / 0.5], (1, 3, 1, 1)
    )
    wanted = runtime.Session(traced).run({"image": shifted.astype(np.float32)})["logits"]
    np.testing.assert_allclose(runtime.Session(made).run({"image": x})["logits"], wanted, rtol=1e-5, atol=1e-6)


def test_a_scale_that_no_convolution_can_take_stays_as_a_factor() -> None:
    nodes = [helper.make_node("Relu", ["image"], ["y"])]
    made, _ = front.taking(signature.UINT8_NHWC, preprocessing.plain((3, 9, 8)).from_pixels())(
        graph(nodes, ("n", 3, 9, 8))
    )
    assert [node.op_type for node in made.graph.node] == ["Transpose", "Cast", "Mul", "Relu"]
    got = runtime.Session(made).run({"image": IMAGES})["y"]
    np.testing.assert_allclose(got, IMAGES.transpose(0, 3, 1, 2) / 255, rtol=1e-6)


def test_outputs_that_nobody_asked_for_stay_inside_by_name(traced: onnx.ModelProto) -> None:
    model, modified = keep_outputs.keeping(["logits"])(copied(traced))
    assert modified
    assert [value.name for value in model.graph.output] == ["logits"]
    assert "features:conv" in edges.produced(model)


def test_what_no_output_needs_is_dropped(traced: onnx.ModelProto) -> None:
    model, _ = keep_outputs.keeping(["features:conv"])(copied(traced))
    assert passes.operators(model) == {"Conv": 1}
    assert not {"fc.weight", "network.fc.weight"} & {tensor.name for tensor in model.graph.initializer}


def test_scores_are_the_softmax_and_its_best(traced: onnx.ModelProto) -> None:
    made, _ = passes.run(
        traced, [scores.softmax, scores.best(2), keep_outputs.keeping(["logits", *signature.top_names(2)])]
    )
    onnx.checker.check_model(made, full_check=True)
    outputs = runtime.Session(made).run({"image": floats()})
    shares = np.exp(outputs["logits"]) / np.exp(outputs["logits"]).sum(1, keepdims=True)
    order = np.argsort(-shares, axis=1)[:, :2]
    assert np.array_equal(outputs["top2_classes"], order)
    np.testing.assert_allclose(outputs["top2_scores"], np.take_along_axis(shares, order, 1), rtol=1e-5)
    assert outputs["top2_classes"].dtype == np.int64


def test_strip_says_whether_it_changed_something(traced: onnx.ModelProto) -> None:
    stripped, modified = strip.strip(copied(traced))
    assert modified
    assert strip.strip(copied(stripped)) == (stripped, False)
    noted = copied(stripped)
    noted.graph.node[0].metadata_props.add(key="stack_trace", value="/home/somebody")
    assert strip.strip(noted) == (stripped, True)


def test_the_effects_of_the_passes_are_reported(traced: onnx.ModelProto) -> None:
    _, effects = passes.run(traced, [no_ops.no_ops, global_average_pool.global_average_pool, no_ops.no_ops])
    assert [effect.name for effect in effects] == ["no_ops", "global_average_pool", "no_ops"]
    assert [effect.modified for effect in effects][1:] == [True, False]
    assert all(effect.what for effect in effects)
    assert effects[0].nodes_before == len(traced.graph.node)


def graph(nodes: list[onnx.NodeProto], shape: tuple[int | str, ...], axes: list[int] | None = None) -> onnx.ModelProto:
    constants = [] if axes is None else [numpy_helper.from_array(np.array(axes, np.int64), "axes")]
    name = nodes[0].input[0]
    x = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    made = helper.make_graph(nodes, "g", [x], [y], constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
