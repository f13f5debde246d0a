"""What one image costs: parameters, multiply-accumulates (MACs) and memory, in all and for each stage.

Path: passes → shapes, stages → **costs** → evidence.

MACs are those of convolutions and matrix products; a bias, an activation and pooling count nothing.
Formulas, for one image:

    Conv            (elements of the output) * (C_in / groups) * (kernel height * kernel width)
    ConvTranspose   (elements of the input) * (C_out / groups) * (kernel height * kernel width)
    Gemm, MatMul    (elements of the output) * (terms of each sum)
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import onnx

from export import evidence, signature
from export.costs import reductions, shapes, stages
from export.passes import edges

Shapes = Mapping[str, shapes.Tensor]

_LEARNED = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "Add": (0, 1),
    "Mul": (0, 1),
    "PRelu": (1,),
    "BatchNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
}
"""Operator → inputs where a constant is a parameter. Running means and variances are none."""

_WITHOUT_FORMULA = frozenset(
    {"Attention", "ConvInteger", "DeformConv", "Einsum", "GRU", "If", "Loop", "LSTM"}
    | {"MatMulInteger", "QLinearConv", "QLinearMatMul", "RNN", "Scan"}
)
"""Operators that multiply and accumulate, or may hold some that do, in a way that is not counted here."""


def analyse(
    model: onnx.ModelProto,
    stage_paths: Mapping[str, str],
    image_shape: tuple[int, int] | None = None,
    parameters: Mapping[str, int] | None = None,
) -> evidence.Costs:
    """Return the costs of one image (of one run, if the graph's batch is fixed).

    Args:
        model: the exported graph; nodes named "<module path>/<operator>", feature maps "features:<stage>".
        stage_paths: stage → dotted path of its module, in the order of the data; may be empty.
        image_shape: height and width, in pixels, of a graph that takes any.
        parameters: name → elements, of the network before anything was folded. Without, they are counted on
            the graph: a BatchNorm that went into its convolution leaves a bias behind where two were.
    """
    sized = shapes.of_one_image(model, image_shape)
    places = stages.of_nodes(model, stage_paths)
    macs = [_macs(node, sized) for node in model.graph.node]
    direct = reductions.macs_direct(model, sized, macs)
    if parameters is None:
        counted = _parameters_of_graph(model, places, sized)
    else:
        counted = _parameters_of_network(model, places, stage_paths, parameters)
    names = [*(stage_paths or [stages.WHOLE]), *([stages.HEAD] if _has_head(places, macs, counted) else [])]
    return evidence.Costs(
        parameters=sum(counted.values()),
        macs=sum(macs),
        weight_bytes=sum(sized[tensor.name].size_bytes for tensor in model.graph.initializer),
        activation_bytes=_activation_bytes(model, sized),
        stages=tuple(
            evidence.StageCost(
                name=name,
                shape=_output_shape(model, places, name, sized),
                parameters=counted.get(name, 0),
                macs=_of_stage(name, places, macs),
                macs_direct=_of_stage(name, places, direct),
            )
            for name in names
        ),
        uncounted=tuple(_uncounted(model, sized)),
    )


def _of_stage(name: str, places: Sequence[str], numbers: Sequence[int]) -> int:
    return sum(number for place, number in zip(places, numbers, strict=True) if place == name)


def _has_head(places: Sequence[str], macs: Sequence[int], parameters: Mapping[str, int]) -> bool:
    """Whether the head is worth a line: a softmax alone is not."""
    return bool(_of_stage(stages.HEAD, places, macs) or parameters.get(stages.HEAD))


def _output_shape(model: onnx.ModelProto, places: Sequence[str], stage: str, sized: Shapes) -> tuple[int, ...]:
    """Without the batch. Of the feature maps, or else of what the last node of the stage makes."""
    outputs = [node.output[0] for node, place in zip(model.graph.node, places, strict=True) if place == stage]
    for name in (signature.FEATURES + stage, *reversed(outputs)):
        if name in sized:
            return sized[name].shape[1:]
    return ()


# --- multiply-accumulates


def _macs(node: onnx.NodeProto, sized: Shapes) -> int:
    formula = _FORMULAS.get(node.op_type)
    if formula is None or not _is_known((*node.input[:2], node.output[0]), sized):
        return 0
    return formula(node, sized)


def _is_known(names: Iterable[str], sized: Shapes) -> bool:
    return all(name in sized for name in names)


def _convolution(node: onnx.NodeProto, sized: Shapes) -> int:
    return sized[node.output[0]].elements * math.prod(sized[node.input[1]].shape[1:])


def _transposed(node: onnx.NodeProto, sized: Shapes) -> int:
    return sized[node.input[0]].elements * math.prod(sized[node.input[1]].shape[1:])


def _gemm(node: onnx.NodeProto, sized: Shapes) -> int:
    is_transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return sized[node.output[0]].elements * sized[node.input[0]].shape[0 if is_transposed else 1]


def _product(node: onnx.NodeProto, sized: Shapes) -> int:
    return sized[node.output[0]].elements * sized[node.input[0]].shape[-1]


_FORMULAS: dict[str, Callable[[onnx.NodeProto, Shapes], int]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "Gemm": _gemm,
    "MatMul": _product,
}


def _uncounted(model: onnx.ModelProto, sized: Shapes) -> Iterable[str]:
    """Yield the nodes whose cost is not in the figures: no formula, or a size that only a run can tell."""
    for node in model.graph.node:
        if node.op_type in _WITHOUT_FORMULA or not _is_known(filter(None, node.output), sized):
            yield node.name or node.op_type


# --- parameters


def _parameters_of_graph(model: onnx.ModelProto, places: Sequence[str], sized: Shapes) -> dict[str, int]:
    """Stage → elements of the constants that weigh or shift. Scalars and the image's normalisation are none."""
    constants = {tensor.name for tensor in model.graph.initializer if not tensor.name.startswith(f"{signature.INPUT}/")}
    makers, counted, seen = edges.produced(model), dict[str, int](), set[str]()
    for node, place in zip(model.graph.node, places, strict=True):
        for position in _LEARNED.get(node.op_type, ()):
            name = _constant(node.input[position], makers) if position < len(node.input) else ""
            if name in constants - seen and sized[name].shape:
                seen.add(name)
                counted[place] = counted.get(place, 0) + sized[name].elements
    return counted


def _constant(name: str, makers: Mapping[str, onnx.NodeProto]) -> str:
    """The stored tensor that a weight comes from: int8 and fp16 weights may be converted on their way."""
    while name in makers and makers[name].op_type in {"DequantizeLinear", "Cast"}:
        name = makers[name].input[0]
    return name


def _parameters_of_network(
    model: onnx.ModelProto, places: Sequence[str], stage_paths: Mapping[str, str], parameters: Mapping[str, int]
) -> dict[str, int]:
    """Stage → elements. A module that is no node any more is where the one before it is: bn1 where conv1 is."""
    of_path = {stages.path(node): place for node, place in zip(model.graph.node, places, strict=True)}
    counted: dict[str, int] = {}
    stage = places[0] if len(places) else stages.HEAD
    for name, elements in parameters.items():
        module = name.rpartition(".")[0]
        stage = stages.of_path(module, stage_paths) or of_path.get(module, stage)
        counted[stage] = counted.get(stage, 0) + elements
    return counted


# --- memory


def _activation_bytes(model: onnx.ModelProto, sized: Shapes) -> int:
    """The peak of the node order: inputs live throughout, outputs from their node on, the rest until last taken."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name for value in model.graph.input} - constants
    kept = constants | inputs | {value.name for value in model.graph.output}
    last_use = {name: number for number, node in enumerate(model.graph.node) for name in node.input}
    alive = most = sum(_size(name, sized) for name in inputs)
    for number, node in enumerate(model.graph.node):
        made = [name for name in node.output if name]
        alive += sum(_size(name, sized) for name in made)
        most = max(most, alive)
        dead = {name for name in (*node.input, *made) if name and last_use.get(name, number) == number} - kept
        alive -= sum(_size(name, sized) for name in dead)
    return most


def _size(name: str, sized: Shapes) -> int:
    return sized[name].size_bytes if name in sized else 0
