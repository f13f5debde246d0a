"""Tensors whose shape in requests is another than the graph's: `reshape` of config.pbtxt.

Path: models.placement → **reshape** → session, which shows the shapes of requests, and runs the graph's.

The numbers are the same in the same order, so nothing is copied.
Source: https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md#reshape
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Reshape:
    """The shape of a tensor in requests, and in the graph; -1 where a request chooses, in the same order in both."""

    wire: Shape
    graph: Shape

    @property
    def fits(self) -> bool:
        """Whether every tensor of the one shape can have the other."""
        both = (self.wire, self.graph)
        free = {shape.count(-1) for shape in both}
        return len(free) == 1 and len({math.prod(size for size in shape if size != -1) for shape in both}) == 1

    def in_graph(self, wire: Shape) -> Shape:
        """Return a request's shape as the graph has it."""
        return _moved(wire, self.wire, self.graph)

    def on_wire(self, graph: Shape) -> Shape:
        """Return a shape that the graph has, as answers have it."""
        return _moved(graph, self.graph, self.wire)


def into_graph(
    reshapes: Mapping[str, Reshape], inputs: Mapping[str, NDArray[np.generic]]
) -> dict[str, NDArray[np.generic]]:
    """Return inputs in the graph's shapes: views."""
    return {
        name: array.reshape(reshapes[name].in_graph(array.shape)) if name in reshapes else array
        for name, array in inputs.items()
    }


def onto_wire(reshapes: Mapping[str, Reshape], name: str, output: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return an output in the shape of answers: a view."""
    return output.reshape(reshapes[name].on_wire(output.shape)) if name in reshapes else output


def _moved(shape: Shape, there: Shape, here: Shape) -> Shape:
    free = iter([size for size, said in zip(shape, there, strict=True) if said == -1])
    return tuple(next(free) if said == -1 else said for said in here)
