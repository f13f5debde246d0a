"""How one model is to run, in plain values: what its config.pbtxt and the server's flags ask for.

Path: models.placement → **knobs** → session, instances.
"""

import dataclasses
import enum
from collections.abc import Mapping

from service.runtime import reshape


class GraphLevel(enum.Enum):
    """How far ONNX Runtime rewrites the graph when it loads it."""

    OFF = "off"
    BASIC = "basic"
    EXTENDED = "extended"
    ALL = "all"


@dataclasses.dataclass(frozen=True, slots=True)
class Knobs:
    """The defaults are what runs when nobody asks for anything."""

    instances: int = 0
    """Runs that may be under way at once; 0: chosen by measurement on the CPU, 1 on CUDA."""
    threads: int = 0
    """CPU threads of one run; 0: chosen by measurement."""
    provider_options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The CUDA provider's, on top of Fovea's own."""
    cuda_graphs: bool = False
    """Capture and replay one CUDA graph for every batch size."""
    preferred_rows: tuple[int, ...] = ()
    """The batch sizes to have buckets for on CUDA, ascending; empty: powers of two."""
    graph_level: GraphLevel = GraphLevel.ALL
    runs_branches_in_parallel: bool = False
    """ONNX Runtime's parallel execution mode; `branch_threads` of them, 0: as many as `threads`."""
    branch_threads: int = 0
    uses_arena: bool = True
    """Keep freed CPU memory for the next run."""
    uses_memory_pattern: bool = True
    """Plan the memory of a run from the run before, where shapes repeat."""
    reshapes: Mapping[str, reshape.Reshape] = dataclasses.field(default_factory=dict)
    """Tensor name → the shape it has in requests and in the graph, where they differ."""
