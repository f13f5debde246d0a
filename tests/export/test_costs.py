"""Costs are counted by hand here, or are the literature's."""

import math
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from export import costs, evidence, passes, signature, tapped, trace, weights, zoo
from export.costs import shapes, stages
from export.passes import front, global_average_pool, keep_outputs, name_nodes, no_ops, strip


def graph(
    nodes: Sequence[onnx.NodeProto],
    weights_of: dict[str, tuple[int, ...]],
    image: tuple[int | str, ...],
    output: str = "y",
    kind: int = onnx.TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A graph with an input "image", and weights of ones."""
    values = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights_of.items()]
    inputs = [helper.make_tensor_value_info("image", kind, list(image))]
    outputs = [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)]
    made = helper.make_graph(list(nodes), "test", inputs, outputs, values)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def conv(module: str, taken: str, made: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node("Conv", [taken, f"{module}.weight"], [made], f"{module}/Conv", **attributes)


def relu(taken: str, made: str, module: str = "") -> onnx.NodeProto:
    return helper.make_node("Relu", [taken], [made], f"{module}/Relu" if module else "Relu")


def traced(name: str) -> tuple[onnx.ModelProto, dict[str, int]]:
    """A network of the zoo as it is exported, and its own parameters."""
    architecture = zoo.find(name)
    network = weights.load(architecture, "random", architecture.classes, 0).network
    described = architecture.preprocessing
    module = tapped.Tapped(network, architecture.stages)
    outputs = [*architecture.outputs, *(signature.FEATURES + stage for stage in architecture.stages)]
    shape_chw = (described.channels, described.height, described.width)
    model = trace.trace(module, shape_chw, outputs)
    module.release()
    rewrites = [name_nodes.name_nodes, no_ops.no_ops, global_average_pool.global_average_pool]
    rewrites += [
        keep_outputs.keeping(architecture.outputs),
        front.taking(signature.UINT8_NHWC, described.from_pixels()),
    ]
    parameters = {name: parameter.numel() for name, parameter in network.named_parameters()}
    return passes.run(model, [*rewrites, strip.strip])[0], parameters


@pytest.fixture(scope="module")
def lenet5() -> tuple[onnx.ModelProto, dict[str, int]]:
    return traced("lenet5")


def by_name(found: evidence.Costs) -> dict[str, evidence.StageCost]:
    return {stage.name: stage for stage in found.stages}


# --- known answers


def test_lenet5_costs_what_the_paper_counts(lenet5: tuple[onnx.ModelProto, dict[str, int]]) -> None:
    model, parameters = lenet5
    found = costs.analyse(model, zoo.find("lenet5").stages, None, parameters)
    assert (found.parameters, found.macs) == (61_706, 416_520)
    assert {stage.name: (stage.shape, stage.parameters, stage.macs) for stage in found.stages} == {
        "c1": ((6, 28, 28), 156, 28 * 28 * 6 * 25),
        "s2": ((6, 14, 14), 0, 0),
        "c3": ((16, 10, 10), 2_416, 10 * 10 * 16 * 6 * 25),
        "s4": ((16, 5, 5), 0, 0),
        "c5": ((120, 1, 1), 48_120, 120 * 16 * 25),
        "f6": ((84,), 10_164, 120 * 84),
        "head": ((10,), 850, 84 * 10),
    }
    assert all(stage.macs_direct == stage.macs for stage in found.stages)
    assert found.uncounted == ()


def test_the_graph_alone_has_the_same_parameters_where_nothing_was_folded(
    lenet5: tuple[onnx.ModelProto, dict[str, int]],
) -> None:
    model, parameters = lenet5
    names = zoo.find("lenet5").stages
    assert costs.analyse(model, names) == costs.analyse(model, names, None, parameters)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet-2012", "googlenet", "resnet18", "resnet50"])
def test_networks_cost_what_is_published(name: str) -> None:
    architecture = zoo.find(name)
    assert architecture.published is not None
    model, parameters = traced(name)
    found = costs.analyse(model, architecture.stages, None, parameters)
    assert (found.parameters, found.macs) == (architecture.published.parameters, architecture.published.macs)
    assert sum(stage.macs for stage in found.stages) == found.macs
    assert sum(stage.parameters for stage in found.stages) == found.parameters


@pytest.mark.parametrize(
    ("node", "weight", "image", "macs"),
    [
        # 8x8 output, 6 maps, each a sum over 3x3 and 4 maps; with 2 groups over 2.
        (helper.make_node("Conv", ["image", "w"], ["y"], pads=[1] * 4), (6, 4, 3, 3), (1, 4, 8, 8), 64 * 6 * 9 * 4),
        (helper.make_node("Conv", ["image", "w"], ["y"], group=2), (6, 2, 1, 1), (1, 4, 8, 8), 64 * 6 * 2),
        # A transposed convolution multiplies each input with each weight of its map.
        (
            helper.make_node("ConvTranspose", ["image", "w"], ["y"], strides=[2, 2]),
            (4, 6, 2, 2),
            (1, 4, 8, 8),
            256 * 24,
        ),
        (helper.make_node("Gemm", ["image", "w"], ["y"], transB=1), (7, 5), (1, 5), 35),
        (helper.make_node("Gemm", ["image", "w"], ["y"], transA=1), (5, 7), (5, 1), 35),
        (helper.make_node("MatMul", ["image", "w"], ["y"]), (5, 7), (1, 3, 5), 3 * 5 * 7),
    ],
    ids=["conv", "groups", "transposed", "gemm", "gemm of the transposed", "matmul"],
)
def test_each_operator_by_its_formula(
    node: onnx.NodeProto, weight: tuple[int, ...], image: tuple[int, ...], macs: int
) -> None:
    found = costs.analyse(graph([node], {"w": weight}, image), {})
    assert (found.macs, found.parameters) == (macs, math.prod(weight))
    assert [stage.name for stage in found.stages] == [stages.WHOLE]


# --- 1x1 convolutions


def test_a_bottleneck_without_its_1x1_would_work_on_all_maps() -> None:
    nodes = [
        conv("a", "image", "1"),
        relu("1", "2"),
        conv("b", "2", "3", pads=[1] * 4),
        relu("3", "4"),
        conv("c", "4", "5"),
        helper.make_node("Add", ["5", "image"], ["y"], "Add"),
    ]
    kernels = {"a.weight": (64, 256, 1, 1), "b.weight": (64, 64, 3, 3), "c.weight": (256, 64, 1, 1)}
    (stage,) = costs.analyse(graph(nodes, kernels, ("batch", 256, 8, 8)), {}).stages
    assert stage.macs == 64 * (256 * 64 + 9 * 64 * 64 + 64 * 256)
    assert stage.macs_direct == 64 * 9 * 256 * 256


def test_an_inception_branch_without_its_reduction_would_see_all_maps() -> None:
    nodes = [conv("a", "image", "1"), relu("1", "2"), conv("b", "2", "y", pads=[2] * 4)]
    kernels = {"a.weight": (16, 192, 1, 1), "b.weight": (32, 16, 5, 5)}
    paths = {"reduce": "a", "work": "b"}
    found = by_name(costs.analyse(graph(nodes, kernels, ("batch", 192, 28, 28)), paths))
    assert (found["reduce"].macs, found["reduce"].macs_direct) == (784 * 192 * 16, 0)
    assert (found["work"].macs, found["work"].macs_direct) == (784 * 25 * 16 * 32, 784 * 25 * 192 * 32)


@pytest.mark.parametrize(
    ("first", "second", "is_shared"),
    [
        ((64, 64, 1, 1), (64, 64, 3, 3), False),
        ((16, 64, 1, 1), (64, 16, 1, 1), False),
        ((16, 64, 3, 3), (64, 16, 3, 3), False),
        ((16, 64, 1, 1), (64, 16, 3, 3), True),
    ],
    ids=["it reduces nothing", "nothing larger follows", "it is no 1x1", "others see its maps too"],
)
def test_what_is_no_reduction_saves_nothing(first: tuple[int, ...], second: tuple[int, ...], is_shared: bool) -> None:
    nodes = [conv("a", "image", "1"), conv("b", "1", "y")]
    if is_shared:
        nodes.append(relu("1", "z"))
    (stage,) = costs.analyse(graph(nodes, {"a.weight": first, "b.weight": second}, (1, 64, 8, 8)), {}).stages
    assert stage.macs_direct == stage.macs > 0


# --- stages


def test_a_node_is_in_the_deepest_stage_above_it_or_in_the_next_or_in_the_head() -> None:
    nodes = [
        conv("conv1", "image", "1"),
        relu("1", "features:stem", "act"),
        conv("layer1.0.conv", "features:stem", "2"),
        conv("layer1.1.conv", "2", "features:layer1"),
        conv("layer10.conv", "features:layer1", "features:layer10"),
        conv("last", "features:layer10", "y"),
    ]
    kernels = {node.input[1]: (4, 4, 1, 1) for node in nodes if node.op_type == "Conv"}
    paths = {"stem": "act", "layer1": "layer1", "inner": "layer1.0", "layer10": "layer10"}
    model = graph(nodes, kernels, (1, 4, 8, 8))
    assert stages.of_nodes(model, paths) == ["stem", "stem", "inner", "layer1", "layer10", "head"]
    assert [stage.name for stage in costs.analyse(model, paths).stages] == [*paths, stages.HEAD]


def test_a_head_without_costs_is_no_stage() -> None:
    nodes = [conv("a", "image", "features:a"), helper.make_node("Softmax", ["features:a"], ["y"], "Softmax")]
    found = costs.analyse(graph(nodes, {"a.weight": (4, 4, 1, 1)}, (1, 4, 8, 8)), {"a": "a"})
    assert [stage.name for stage in found.stages] == ["a"]


def test_parameters_of_a_folded_norm_are_where_its_convolution_is() -> None:
    nodes = [conv("conv1", "image", "1"), relu("1", "features:stem", "relu"), conv("fc", "features:stem", "y")]
    model = graph(nodes, {"conv1.weight": (4, 4, 1, 1), "fc.weight": (2, 4, 1, 1)}, (1, 4, 8, 8))
    parameters = {"conv1.weight": 16, "bn1.weight": 4, "bn1.bias": 4, "fc.weight": 8}
    found = costs.analyse(model, {"stem": "relu"}, None, parameters)
    assert found.parameters == 32
    assert {stage.name: stage.parameters for stage in found.stages} == {"stem": 24, "head": 8}


def test_the_normalisation_of_the_image_and_scalars_are_no_parameters() -> None:
    nodes = [
        helper.make_node("Add", ["image", "image/offset"], ["1"]),
        helper.make_node("Mul", ["1", "two"], ["2"]),
        helper.make_node("Add", ["2", "bias"], ["3"]),
        helper.make_node("Add", ["3", "bias"], ["y"]),
    ]
    model = graph(nodes, {"image/offset": (1, 4, 1, 1), "two": (), "bias": (4, 1, 1)}, (1, 4, 8, 8))
    assert costs.analyse(model, {}).parameters == 4  # used twice, it is one


# --- sizes


def test_a_graph_for_any_size_is_counted_at_the_size_that_is_named() -> None:
    nodes = [
        helper.make_node("Transpose", ["image"], ["1"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["1"], ["2"], to=onnx.TensorProto.FLOAT),
        conv("a", "2", "y"),
    ]
    image = ("batch", "height", "width", 3)
    model = graph(nodes, {"a.weight": (8, 3, 1, 1)}, image, kind=onnx.TensorProto.UINT8)
    assert costs.analyse(model, {}, (10, 20)).macs == 10 * 20 * 8 * 3
    assert costs.analyse(model, {}, (10, 20)).stages[0].shape == (8, 10, 20)
    unknown = costs.analyse(model, {})
    assert (unknown.macs, unknown.uncounted) == (0, ("Transpose", "Cast", "a/Conv"))


def test_what_has_no_formula_is_named() -> None:
    node = helper.make_node("Einsum", ["image", "w"], ["y"], "mix", equation="ij,jk->ik")
    assert costs.analyse(graph([node], {"w": (4, 4)}, (1, 4)), {}).uncounted == ("mix",)


def test_activations_are_the_most_that_lives_at_once() -> None:
    # Bytes: image 256, a 1024 (4 maps), b 1024, c 256 (one map). b is made while image and a live.
    nodes = [conv("a", "image", "a"), relu("a", "b"), conv("c", "b", "y")]
    model = graph(nodes, {"a.weight": (4, 1, 1, 1), "c.weight": (1, 4, 1, 1)}, ("batch", 1, 8, 8))
    found = costs.analyse(model, {})
    assert found.activation_bytes == 256 + 1024 + 1024
    assert found.weight_bytes == 4 * 8


def test_an_output_lives_until_the_end() -> None:
    nodes = [conv("a", "image", "features:a"), conv("b", "features:a", "1"), conv("c", "1", "y")]
    kernels = {"a.weight": (4, 1, 1, 1), "b.weight": (1, 4, 1, 1), "c.weight": (4, 1, 1, 1)}
    model = graph(nodes, kernels, (1, 1, 8, 8))
    alone = costs.analyse(model, {}).activation_bytes
    model.graph.output.append(helper.make_tensor_value_info("features:a", onnx.TensorProto.FLOAT, None))
    assert (alone, costs.analyse(model, {}).activation_bytes) == (256 + 1024 + 256, 256 + 1024 + 256 + 1024)


def test_shapes_are_those_of_one_image() -> None:
    model = graph([relu("image", "y")], {}, ("batch", 3, 8, 8))
    assert shapes.of_one_image(model)["y"] == shapes.Tensor((1, 3, 8, 8), onnx.TensorProto.FLOAT)
    assert shapes.of_one_image(model)["y"].size_bytes == 768
