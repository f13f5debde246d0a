"""Integer divisions that could end the process, made safe before ONNX Runtime sees the graph.

Path: the graph's file → **division** → session.

ONNX Runtime 1.31 divides with the processor's instruction, which traps when the smallest int32 or int64 is divided by
-1: SIGFPE, and the process is gone with every request in it. (By zero it raises an error by itself, and int8 and int16
wrap around.) Here a divisor of -1 becomes 1, and the quotient's sign is changed afterwards; so the smallest
number divided by -1 is itself, as in NumPy, with the remainder 0, and all other answers are what they were.

Cases:
1. Files in which no Div or Mod stands are not even parsed.
2. A divisor that is a constant without -1 is safe.
3. Of a type that is known and neither int32 nor int64 the division is safe: it stays as it is.
4. int32 and int64 get constants of their type.
5. Where the type is not known (in a function, or from a loop's body), the constants take the divisor's
   type when the graph runs, and unsigned types, which have no -1, are told apart by -1 < 1.
"""

import collections
import pathlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from google.protobuf import message as protobuf_message

from protos import graph_pb2
from service import errors

_DOMAINS = frozenset({"", "ai.onnx"})
_FLOAT, _INT32, _INT64, _BOOL = 1, 6, 7, 9
"""Of onnx.TensorProto.DataType."""
_UNSAFE = frozenset({_INT32, _INT64})
_ATTRIBUTE_TENSOR = 4
"""Of onnx.AttributeProto.AttributeType."""
_WHERE_SINCE, _CAST_LIKE_SINCE = 9, 15
"""Opsets."""
_MARKS = (b'"\x03Div', b'"\x03Mod')
"""How a node's op_type stands in a file: field 4, 3 bytes long."""
_MARK_BYTES = 5
_PIECE_BYTES = 2**20
_AS_FIRST = frozenset({
    "AveragePool", "Celu", "ConvTranspose", "Cos", "DepthToSpace", "Elu", "Erf", "Exp", "GlobalAveragePool",
    "GlobalLpPool", "GlobalMaxPool", "GroupNormalization", "Gelu", "HardSigmoid", "HardSwish", "Hardmax",
    "InstanceNormalization", "LRN", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization", "LpPool",
    "MaxPool", "MeanVarianceNormalization", "Mish", "PRelu", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceSumSquare", "Selu", "Sin", "Softplus", "Softsign", "SpaceToDepth", "ThresholdedRelu",
    "Abs", "Add", "BatchNormalization", "Ceil", "Clip", "Concat", "Conv", "CumSum", "Div", "Dropout", "Expand",
    "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Gemm", "Identity", "MatMul", "Max", "Mean", "Min",
    "Mod", "Mul", "Neg", "Pad", "Pow", "Range", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "Relu", "Reshape", "Resize", "Round", "ScatterElements", "ScatterND", "Sigmoid", "Sign", "Slice", "Softmax",
    "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze",
})  # fmt: skip
"""Operators whose first output has the type of their first input."""
_ALIKE = frozenset(
    {"Add", "Clip", "Concat", "Conv", "Gemm", "MatMul", "Max", "Mean", "Min", "Mul", "PRelu", "Sub", "Sum"}
)
"""Those of them whose inputs all have that type."""
_INT64S = frozenset({"ArgMax", "ArgMin", "NonZero", "Shape", "Size"})
_BOOLS = frozenset({
    "And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor",
})  # fmt: skip


class _Constants(NamedTuple):
    """Names of -1 and 1 in the divisor's type, and the nodes that make them."""

    minus: str
    plus: str
    nodes: list[graph_pb2.Node]


class _Scope(NamedTuple):
    """What is known of the names that can be seen, those of the graphs around included.

    `types`: element types, 0 where it is not known. `constants`: None for what is none.
    """

    types: collections.ChainMap[str, int]
    constants: collections.ChainMap[str, Sequence[int] | None]

    def within(self) -> "_Scope":
        return _Scope(self.types.new_child(), self.constants.new_child())


def _nothing() -> _Scope:
    return _Scope(collections.ChainMap(), collections.ChainMap())


def made_safe(model: str, path: pathlib.Path) -> bytes | None:
    """Return the graph with all integer divisions safe; None, if they are, or if the file is no graph.

    Raises:
        ModelLoadError: one cannot be made safe.
    """
    try:
        if not _may_divide(path):  # case 1
            return None
        parsed = graph_pb2.Model.FromString(path.read_bytes())
    except (OSError, ValueError, protobuf_message.DecodeError):
        return None  # ONNX Runtime will say what is wrong with it
    guard = _Guard(model)
    guard.graph(parsed.graph, _nothing(), _opset(parsed.opset_import))
    for function in parsed.functions:
        guard.nodes(function.node, _nothing(), _opset(function.opset_import))
    serialized: bytes = parsed.SerializeToString()
    return serialized if guard.guarded else None


def _may_divide(path: pathlib.Path) -> bool:
    """Whether a division's name is in the file. Read in pieces: mapped, a file that shrinks ends the process."""
    before = b""
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            read = before + piece
            if any(mark in read for mark in _MARKS):
                return True
            before = piece[-_MARK_BYTES:]
    return False


class _Guard:
    """Walks graphs, and replaces unsafe divisions. Mutable state: how many; names are made from it."""

    def __init__(self, model: str) -> None:
        self._model = model
        self.guarded = 0

    def graph(self, graph: graph_pb2.Graph, scope: _Scope, opset: int) -> None:
        """Make a graph safe, in its scope."""
        for value in (*graph.input, *graph.value_info, *graph.output):
            scope.types[value.name] = value.type.tensor_type.elem_type or scope.types.maps[0].get(value.name, 0)
        for tensor in graph.initializer:
            scope.types[tensor.name] = tensor.data_type
            scope.constants[tensor.name] = _integers(tensor)
        for value in graph.input:  # a request may bring other values than the initializer's
            scope.constants[value.name] = None
        self.nodes(graph.node, scope, opset)

    def nodes(self, nodes, scope: _Scope, opset: int) -> None:  # type: ignore[no-untyped-def]  # a repeated field, which has no public type
        """Make nodes safe, which stand in the order in which they run."""
        safe: list[graph_pb2.Node] = []
        for node in nodes:
            for attribute in node.attribute:
                for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                    self.graph(graph, scope.within(), opset)
            _learn(node, scope)
            safe += self._guarded(node, scope, opset) if _is_unsafe(node, scope) else [node]
        if len(safe) != len(nodes):
            copies = [graph_pb2.Node.FromString(node.SerializeToString()) for node in safe]
            del nodes[:]
            nodes.extend(copies)

    def _guarded(self, node: graph_pb2.Node, scope: _Scope, opset: int) -> Iterator[graph_pb2.Node]:
        """The nodes that stand for a division: the divisor is made safe, and a quotient's sign put right."""
        self.guarded += 1
        kind = _type(node, scope)
        if opset < (_WHERE_SINCE if kind else _CAST_LIKE_SINCE):
            raise errors.ModelLoadError(self._model, _too_old(node, kind, opset))
        prefix = f"fovea_division_{self.guarded}_"
        made = _known(prefix, kind) if kind else _like(prefix, node)
        yield from made.nodes
        divisor, is_minus = node.input[1], f"{prefix}is_minus"
        yield _node("Equal", [divisor, made.minus], is_minus)
        if not kind:  # case 5: of an unsigned type minus is its largest number
            is_signed, both = f"{prefix}is_signed", f"{prefix}both"
            yield _node("Less", [made.minus, made.plus], is_signed)
            yield _node("And", [is_minus, is_signed], both)
            is_minus = both
        yield _node("Where", [is_minus, made.plus, divisor], f"{prefix}divisor")
        answer = graph_pb2.Node.FromString(node.SerializeToString())
        answer.input[1] = f"{prefix}divisor"
        if node.op_type == "Mod":
            yield answer
            return
        answer.output[0] = f"{prefix}quotient"
        yield answer
        yield _node("Where", [is_minus, made.minus, made.plus], f"{prefix}sign")
        yield _node("Mul", [answer.output[0], f"{prefix}sign"], node.output[0])


def _too_old(node: graph_pb2.Node, kind: int, opset: int) -> str:
    wanted = _WHERE_SINCE if kind else _CAST_LIKE_SINCE
    hint = "" if kind else f", or give {node.input[1]!r} a value_info (onnx.shape_inference)"
    return (
        f"its division {node.name or node.output[0]!r} could end the server with integers, and cannot be made safe in "
        f"opset {opset}; convert it to opset {wanted} or newer (onnx.version_converter){hint}"
    )


def _is_unsafe(node: graph_pb2.Node, scope: _Scope) -> bool:
    if node.op_type not in {"Div", "Mod"} or node.domain not in _DOMAINS or len(node.input) != 2:
        return False
    if any(attribute.name == "fmod" and attribute.i for attribute in node.attribute):
        return False  # computed in floating point
    kind, values = _type(node, scope), scope.constants.get(node.input[1])
    return (not kind or kind in _UNSAFE) and (values is None or -1 in values)  # cases 2 and 3


def _type(node: graph_pb2.Node, scope: _Scope) -> int:
    """The type of a division, which is that of its operands and of its answer; 0: not known."""
    return next((scope.types[name] for name in (*node.input, *node.output) if scope.types.get(name)), 0)


def _learn(node: graph_pb2.Node, scope: _Scope) -> None:
    """Note what a node says of its outputs. A name that was known outside of this scope is another one here."""
    said = {attribute.name: attribute for attribute in node.attribute if not attribute.ref_attr_name}
    for name in node.output:
        scope.types.maps[0].setdefault(name, 0)
        scope.constants[name] = None
    if node.domain not in _DOMAINS or not node.output:
        return
    kind, values = 0, None
    if node.op_type == "Constant":
        kind, values = _constant(said)
    elif node.op_type == "Cast":
        kind = said["to"].i if "to" in said else 0
    elif node.op_type == "ConstantOfShape":
        kind = said["value"].t.data_type if "value" in said else _FLOAT
    elif node.op_type in _INT64S or node.op_type in _BOOLS:
        kind = _INT64 if node.op_type in _INT64S else _BOOL
    elif node.op_type in {"CastLike", "Where"} and len(node.input) > 1:
        kind = scope.types.get(node.input[1], 0)
    elif node.op_type in _AS_FIRST and node.input:
        telling = node.input if node.op_type in _ALIKE else node.input[:1]
        kind = next((scope.types[name] for name in telling if scope.types.get(name)), 0)
    if kind:
        scope.types[node.output[0]] = kind
    scope.constants[node.output[0]] = values


def _constant(said: "dict[str, graph_pb2.Attribute]") -> tuple[int, Sequence[int] | None]:
    """Type and values of a Constant."""
    if "value" in said:
        return said["value"].t.data_type, _integers(said["value"].t)
    if "value_int" in said:
        return _INT64, [said["value_int"].i]
    if "value_ints" in said:
        return _INT64, list(said["value_ints"].ints)
    return (_FLOAT if "value_float" in said or "value_floats" in said else 0), None


def _integers(tensor: graph_pb2.Tensor) -> Sequence[int] | None:
    """The values of an int32 or int64 tensor; None of another, or if they are in another file."""
    if tensor.data_type not in _UNSAFE or tensor.data_location:
        return None
    if not tensor.HasField("raw_data"):
        return list(tensor.int32_data if tensor.data_type == _INT32 else tensor.int64_data)
    code, size = ("i", 4) if tensor.data_type == _INT32 else ("q", 8)
    count = len(tensor.raw_data) // size
    return struct.unpack(f"<{count}{code}", tensor.raw_data[: count * size])


def _like(prefix: str, node: graph_pb2.Node) -> _Constants:
    """Constants of the type that the divisor will have (case 5)."""
    made = _known(prefix, _INT64)
    likes = [_node("CastLike", [name, node.input[1]], f"{name}_like") for name in (made.minus, made.plus)]
    return _Constants(likes[0].output[0], likes[1].output[0], [*made.nodes, *likes])


def _known(prefix: str, kind: int) -> _Constants:
    """Constants of int32 or int64 (case 4)."""
    nodes, names = [], []
    for label, value in (("minus", -1), ("plus", 1)):
        names.append(f"{prefix}{label}")
        made = _node("Constant", [], names[-1])
        scalar = graph_pb2.Tensor(data_type=kind, raw_data=struct.pack("<i" if kind == _INT32 else "<q", value))
        made.attribute.add(name="value", type=_ATTRIBUTE_TENSOR, t=scalar)
        nodes.append(made)
    return _Constants(names[0], names[1], nodes)


def _node(operator: str, inputs: Iterable[str], output: str) -> graph_pb2.Node:
    return graph_pb2.Node(op_type=operator, input=list(inputs), output=[output], name=output)


def _opset(imports: Iterable[graph_pb2.OperatorSet]) -> int:
    return max((one.version for one in imports if one.domain in _DOMAINS), default=0)
