"""What 1x1 convolutions save: the cost of the same kxk convolutions without them.

Path: shapes → **reductions** → costs.

GoogLeNet (Szegedy et al. 2015, section 4) puts a 1x1 convolution with fewer maps before an expensive one;
ResNet's bottleneck (He et al. 2016, figure 5) puts another behind it, which restores the number:

1. A 1x1 convolution that has fewer maps than it sees, and whose maps only one kxk convolution sees, is a
   reduction: without it, the kxk convolution would see all that it sees.
2. A 1x1 convolution that has more maps than it sees, and alone sees those of a convolution as in 1, is an
   expansion: without it, the kxk convolution would make all its maps itself.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import onnx

from export.costs import shapes

_BETWEEN = frozenset({"Relu", "Clip", "BatchNormalization", "Cast", "QuantizeLinear", "DequantizeLinear"})
"""What may stand between two convolutions that belong together: it leaves the number of maps."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Convolution:
    position: int
    maps_seen: int
    maps_made: int
    is_pointwise: bool


def macs_direct(model: onnx.ModelProto, sized: Mapping[str, shapes.Tensor], macs: Sequence[int]) -> list[int]:
    """Return the MACs of each node if there were neither reductions nor expansions; these then cost nothing."""
    convolutions = _convolutions(model, sized)
    users = _users(model)
    behind = {first: _behind(first, users, convolutions) for first in convolutions}
    direct = list(macs)
    for first, reduction in convolutions.items():
        second = behind[first]
        is_reduction = reduction.is_pointwise and reduction.maps_made < reduction.maps_seen
        if second is None or not is_reduction or convolutions[second].is_pointwise:
            continue
        direct[reduction.position] = 0  # case 1
        work, maps_made = convolutions[second], convolutions[second].maps_made
        third = behind[second]
        if third is not None and convolutions[third].is_pointwise and convolutions[third].maps_made > maps_made:
            direct[convolutions[third].position] = 0  # case 2
            maps_made = convolutions[third].maps_made
        factor, divisor = reduction.maps_seen * maps_made, work.maps_seen * work.maps_made
        direct[work.position] = macs[work.position] * factor // divisor
    return direct


def _convolutions(model: onnx.ModelProto, sized: Mapping[str, shapes.Tensor]) -> dict[str, _Convolution]:
    """Output → convolution, of those whose weight has a known size."""
    found = {}
    for position, node in enumerate(model.graph.node):
        if node.op_type == "Conv" and node.input[1] in sized:
            groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
            made, seen, *kernel = sized[node.input[1]].shape
            found[node.output[0]] = _Convolution(position, seen * groups, made, set(kernel) == {1})
    return found


def _users(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """Tensor → the nodes that take it."""
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    return users


def _behind(
    tensor: str, users: Mapping[str, Sequence[onnx.NodeProto]], convolutions: Mapping[str, _Convolution]
) -> str | None:
    """The output of the convolution that alone sees these maps."""
    while len(takers := users.get(tensor, ())) == 1 and takers[0].input[0] == tensor:
        tensor = takers[0].output[0]
        if tensor in convolutions:
            return tensor
        if takers[0].op_type not in _BETWEEN:
            return None
    return None
