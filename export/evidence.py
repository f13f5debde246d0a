"""What an export knows of its result: every figure of the report, as plain data.

Path: verify, costs, latency → **evidence** → bundle, report. `dataclasses.asdict` of an `Evidence` is
`1/evidence/report.json`; `report` makes the page of it.
"""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of the graph; dimensions are numbers or names such as "batch"."""

    name: str
    datatype: str
    shape: tuple[int | str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """What was exported, from what, with what."""

    name: str
    version: int
    architecture: str
    """Such as "resnet50", or where the user's network or graph came from."""
    precision: str
    providers: tuple[str, ...]
    weights_source: str
    weights_sha256: str
    graph_sha256: str
    graph_bytes: int
    opset: int
    tools: Mapping[str, str]
    preprocessing: str
    """How an image becomes the input, for people."""


@dataclasses.dataclass(frozen=True, slots=True)
class PassEffect:
    """What one pass did: nodes before and after."""

    name: str
    what: str
    """The first line of the pass's module: what it is for."""
    nodes_before: int
    nodes_after: int
    modified: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Operators:
    """How often each operator occurs, most frequent first, along the graph's way."""

    traced: Mapping[str, int]
    """As the exporter gave it; for an .onnx file, as it was."""
    exported: Mapping[str, int]
    """After the passes: what is in the file."""
    optimized: Mapping[str, int]
    """What ONNX Runtime makes of it on the CPU at full optimisation."""
    passes: tuple[PassEffect, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class StageCost:
    """One stage of the network, for one image.

    `macs_direct` is what the stage would cost if its kxk convolutions worked on all channels directly,
    without the 1x1 convolutions that reduce and expand around them; equal to `macs` where there are none.
    """

    name: str
    shape: tuple[int | str, ...]
    """Of the stage's output, without the batch."""
    parameters: int
    macs: int
    macs_direct: int


@dataclasses.dataclass(frozen=True, slots=True)
class Costs:
    """What one image costs, counted on the exported graph."""

    parameters: int
    macs: int
    weight_bytes: int
    activation_bytes: int
    """The most that is alive at once between two nodes, for one image, inputs and outputs included."""
    stages: tuple[StageCost, ...]
    uncounted: tuple[str, ...] = ()
    """Nodes that the figures leave out: of operators without a formula, or of a size that only a run can tell."""


@dataclasses.dataclass(frozen=True, slots=True)
class Parity:
    """How far one output is off at one batch size; differences are max|difference| / max(1, max|reference|).

    `float64` is None where no reference in float64 exists (a graph that came as an .onnx file).
    `same_top1` is None for an output that is no class scores.
    """

    output: str
    inputs: str
    """"noise" or "real"."""
    batch: int
    shape: tuple[int, ...]
    """Of one image as the graph takes it."""
    float32: float
    float64: float | None
    same_top1: bool | None


@dataclasses.dataclass(frozen=True, slots=True)
class Agreement:
    """How a variant in lower precision compares with the fp32 graph, on `images` images."""

    images: int
    inputs: str
    top1: float | None
    """Share of images with the same best class; None for what is no classifier."""
    worst: float
    """max|difference| / max(1, max|fp32|) over the outputs."""
    mean: float
    """mean|difference| / max(1, max|fp32|)."""
    calibration_images: int
    """How many images the int8 ranges came from; 0 for fp16."""


@dataclasses.dataclass(frozen=True, slots=True)
class Latency:
    """Median and fastest times of one way to run a batch, measured in turn with the others."""

    what: str
    """"ONNX Runtime", "PyTorch eager", "ONNX Runtime, fp32"."""
    batch: int
    rounds: int
    median_s: float
    fastest_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """All of it."""

    identity: Identity
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: Operators
    costs: Costs
    gate: float
    """What a difference may be at most: 1e-5 for fp32."""
    parity: tuple[Parity, ...]
    is_batch_invariant: bool | None
    """None for a graph without a batch dimension, and for a variant that is not for the CPU."""
    latency: tuple[Latency, ...]
    machine: str
    """CPU and threads that the latencies were measured with."""
    agreement: Agreement | None = None
    notes: tuple[str, ...] = ()
    """What a reader must know: what was left out, and why."""
