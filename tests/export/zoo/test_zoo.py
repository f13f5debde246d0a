"""Every entry of the zoo keeps what it says: parameters, costs, stages, sizes, plain operators."""

import collections
import subprocess
import sys
from collections.abc import Mapping

import pytest
import torch
from torch import nn

from export import errors, tapped, trace, zoo
from export.zoo import lenet

CLASSIFIERS = [architecture.name for architecture in zoo.ZOO.values() if architecture.classes]
IMAGENET_RESNET = {"layer1": (56, 56), "layer2": (28, 28), "layer3": (14, 14), "layer4": (7, 7), "avgpool": (1, 1)}
LENET = {"c1": (6, 28, 28), "s2": (6, 14, 14), "c3": (16, 10, 10), "s4": (16, 5, 5), "c5": (120, 1, 1), "f6": (84,)}


def resnet(*maps: int) -> Mapping[str, tuple[int, ...]]:
    sized = zip(IMAGENET_RESNET.items(), (*maps, maps[-1]), strict=True)
    return {"stem": (64, 56, 56)} | {stage: (count, *size_hw) for (stage, size_hw), count in sized}


# As the papers' tables and figures have them, without the batch.
STAGES: dict[str, Mapping[str, tuple[int, ...]]] = {
    "lenet5": LENET,
    "lenet5-1998": LENET,
    "alexnet": {
        "conv1": (64, 55, 55),
        "pool1": (64, 27, 27),
        "conv2": (192, 27, 27),
        "pool2": (192, 13, 13),
        "conv3": (384, 13, 13),
        "conv4": (256, 13, 13),
        "conv5": (256, 13, 13),
        "pool5": (256, 6, 6),
        "fc6": (4096,),
        "fc7": (4096,),
    },
    "alexnet-2012": {
        "conv1": (96, 55, 55),
        "norm1": (96, 55, 55),
        "pool1": (96, 27, 27),
        "conv2": (256, 27, 27),
        "norm2": (256, 27, 27),
        "pool2": (256, 13, 13),
        "conv3": (384, 13, 13),
        "conv4": (384, 13, 13),
        "conv5": (256, 13, 13),
        "pool5": (256, 6, 6),
        "fc6": (4096,),
        "fc7": (4096,),
    },
    "googlenet": {
        "conv1": (64, 112, 112),
        "maxpool1": (64, 56, 56),
        "conv2": (64, 56, 56),
        "conv3": (192, 56, 56),
        "maxpool2": (192, 28, 28),
        "inception3a": (256, 28, 28),
        "inception3b": (480, 28, 28),
        "maxpool3": (480, 14, 14),
        "inception4a": (512, 14, 14),
        "inception4b": (512, 14, 14),
        "inception4c": (512, 14, 14),
        "inception4d": (528, 14, 14),
        "inception4e": (832, 14, 14),
        "maxpool4": (832, 7, 7),
        "inception5a": (832, 7, 7),
        "inception5b": (1024, 7, 7),
        "avgpool": (1024, 1, 1),
    },
    "resnet18": resnet(64, 128, 256, 512),
    "resnet34": resnet(64, 128, 256, 512),
    "resnet50": resnet(256, 512, 1024, 2048),
    "resnet101": resnet(256, 512, 1024, 2048),
    "resnet152": resnet(256, 512, 1024, 2048),
    "resnet-digits": {
        "stem": (16, 32, 32),
        "layer1": (16, 32, 32),
        "layer2": (32, 16, 16),
        "layer3": (64, 8, 8),
        "avgpool": (64, 1, 1),
    },
}

CONVOLUTIONS = {
    "lenet5": 3,
    "lenet5-1998": 3,
    "alexnet": 5,
    "alexnet-2012": 5,
    "googlenet": 57,
    "resnet18": 20,
    "resnet34": 36,
    "resnet50": 53,
    "resnet101": 104,
    "resnet152": 155,
    "resnet-digits": 9,
}
DEEP = ("googlenet", "resnet34", "resnet50", "resnet101", "resnet152")
EXPORTED = [pytest.param(name, marks=pytest.mark.slow if name in DEEP else ()) for name in CONVOLUTIONS]


def shapeless(name: str, classes: int) -> nn.Module:
    """The network without the memory for its weights, which knows only shapes."""
    with torch.device("meta"):
        return zoo.find(name).build(classes).eval()


def shape_chw(name: str) -> tuple[int, int, int]:
    described = zoo.find(name).preprocessing
    return described.channels, described.height, described.width


def run(network: nn.Module, name: str) -> torch.Tensor:
    logits: torch.Tensor = network(torch.empty((2, *shape_chw(name)), device="meta"))
    return logits


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_parameters_are_as_many_as_published(name: str) -> None:
    architecture = zoo.find(name)
    assert architecture.published is not None
    network = shapeless(name, architecture.classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == architecture.published.parameters


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_macs_of_convolutions_and_linear_layers_are_as_published(name: str) -> None:
    architecture = zoo.find(name)
    network = shapeless(name, architecture.classes)
    macs: list[int] = []

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        inputs = layer.weight[0].numel() if isinstance(layer, nn.Conv2d | nn.Linear) else 6 * 5 * 5
        macs.append(output[0].numel() * inputs)

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | lenet.SparseConvolution):
            layer.register_forward_hook(count)
    run(network, name)
    assert architecture.published is not None
    assert sum(macs) == architecture.published.macs


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_stages_have_the_shapes_of_the_paper_and_come_in_their_order(name: str) -> None:
    architecture = zoo.find(name)
    network = shapeless(name, architecture.classes)
    shapes: dict[str, tuple[int, ...]] = {}

    def remember(stage: str, output: torch.Tensor) -> None:
        shapes[stage] = tuple(output.shape[1:])

    for stage, path in architecture.stages.items():
        network.get_submodule(path).register_forward_hook(lambda *call, stage=stage: remember(stage, call[2]))
    run(network, name)
    assert list(shapes.items()) == list(STAGES[name].items())


@pytest.mark.parametrize("name", sorted(set(CLASSIFIERS) - {"lenet5-1998"}))
def test_the_number_of_classes_is_free(name: str) -> None:
    assert run(shapeless(name, 7), name).shape == (2, 7)


def test_the_lenet_of_1998_has_ten_classes_or_none() -> None:
    assert run(shapeless("lenet5-1998", 10), "lenet5-1998").shape == (2, 10)
    with pytest.raises(errors.UnsupportedClasses, match=r"cannot have 7 classes, only 10.*take lenet5"):
        zoo.find("lenet5-1998").build(7)


def test_every_size_is_taken_by_those_that_say_so() -> None:
    for name in CLASSIFIERS:
        if zoo.find(name).takes_other_sizes:
            images_nchw = torch.empty((1, shape_chw(name)[0], 97, 131), device="meta")
            assert shapeless(name, 10)(images_nchw).shape == (1, 10)


@pytest.mark.parametrize("name", EXPORTED)
def test_the_graph_has_plain_operators_and_one_node_per_convolution(name: str) -> None:
    network = zoo.find(name).build(10).eval()
    model = trace.trace(tapped.Tapped(network, {}), shape_chw(name), ["logits"])
    operators = collections.Counter(node.op_type for node in model.graph.node)
    assert operators["Conv"] == CONVOLUTIONS[name]
    assert "MatMul" not in operators  # LeNet's C3: the product that makes its weight is computed already
    assert not operators.keys() & {"BatchNormalization", "Dropout", "If", "Loop", "Gather", "Range", "Shape", "LRN"}
    assert {node.domain for node in model.graph.node} == {""}


def test_the_zoo_is_listed_without_torch() -> None:
    program = "import sys; from export import zoo; print(len(zoo.ZOO) > 0, 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "False"]
