"""Proof that a graph is what it must be, before anybody sees it. The export's only user of onnxruntime.

Path: passes → **verify** → bundle.

The gate for fp32 on the CPU is max|difference| <= 1e-5 * max(1, max|reference|), against PyTorch in
float32 and in float64. At full optimisation the CPU provider computes a row alone and among others
to the same bits; this is checked too, since dynamic batching relies on it.
"""

import collections
import dataclasses
import os
from collections.abc import Sequence

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from export import errors, serving, trace, zoo

# As in service/runtime/session.py: no usage reports to ONNX Runtime's maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

GATE = 1e-5
BATCHES = (1, 2, 7)

FORBIDDEN = frozenset(
    # Training; what a badly traced layout leaves behind; what makes shapes depend on values.
    {"BatchNormalization", "Dropout", "Gather", "GatherND", "GatherElements", "Range", "Expand", "Shape"}
    | {"If", "Loop", "Scan", "NonZero"}
)


@dataclasses.dataclass(frozen=True, slots=True)
class Parity:
    """How far the graph is off at one batch size; differences are relative to max(1, max|reference|)."""

    batch: int
    inputs: str
    float32: float
    float64: float
    same_top1: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """The figures of a verification. Golden inputs and outputs are the graph's own, verified ones."""

    operators: dict[str, int]
    parity: list[Parity]
    is_batch_invariant: bool
    golden_images_nhwc: NDArray[np.uint8]
    golden_outputs: dict[str, NDArray[np.float32]]


def verify(
    model: onnx.ModelProto,
    network: nn.Module,
    architecture: zoo.Architecture,
    real_nhwc: NDArray[np.uint8],
    batch_max: int,
) -> Report:
    """Check the graph against the network.

    Args:
        model: the graph.
        network: what it must compute.
        architecture: its normalisation.
        real_nhwc: real images of the model's size, uint8; at least one.
        batch_max: the largest batch that will be served.

    Raises:
        VerificationError: with every violation and its figures.
    """
    onnx.checker.check_model(model, full_check=True)
    violations = structure(model)
    session = _session(model)
    noise_nhwc = np.random.default_rng(0).integers(0, 256, (batch_max, *real_nhwc.shape[1:]), np.uint8)
    parity = []
    for batch in sorted({*BATCHES, batch_max}):
        for name, images_nhwc in (("noise", noise_nhwc), ("real", real_nhwc)):
            rows = np.resize(images_nhwc, (batch, *images_nhwc.shape[1:]))
            parity.append(_parity(session, network, architecture, rows, name))
    violations += [_violation(row) for row in parity if _is_off(row)]
    is_batch_invariant = _is_batch_invariant(session, real_nhwc[: min(8, batch_max)])
    if not is_batch_invariant:
        violations.append("a row computed alone differs from the same row in a batch")
    if violations:
        raise errors.VerificationError(violations)
    golden = real_nhwc[:4]
    return Report(operators(model), parity, is_batch_invariant, golden, _run(session, golden))


def operators(model: onnx.ModelProto) -> dict[str, int]:
    """Return how often each operator occurs, most frequent first."""
    return dict(collections.Counter(node.op_type for node in model.graph.node).most_common())


def structure(model: onnx.ModelProto) -> list[str]:
    """Return what is wrong with opset, operators or signature; empty if nothing."""
    violations = []
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": trace.OPSET}:
        violations.append(f"opsets {opsets}; expected only the plain one, {trace.OPSET}")
    found = sorted(FORBIDDEN & operators(model).keys())
    if found:
        violations.append(f"operators that a served graph must not have: {', '.join(found)}")
    names = ([value.name for value in model.graph.input], [value.name for value in model.graph.output])
    if names != ([trace.INPUT], list(trace.OUTPUTS)):
        violations.append(f"inputs and outputs {names}; expected {trace.INPUT!r} and {trace.OUTPUTS}")
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.shape.dim[0].dim_param != "batch":
            violations.append(f"the first dimension of {value.name!r} is not the dynamic 'batch'")
    return violations


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.disable_fallback()
    return session


def _run(session: onnxruntime.InferenceSession, images_nhwc: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    outputs = session.run(list(trace.OUTPUTS), {trace.INPUT: np.ascontiguousarray(images_nhwc)})
    return dict(zip(trace.OUTPUTS, outputs, strict=True))


def _parity(
    session: onnxruntime.InferenceSession,
    network: nn.Module,
    architecture: zoo.Architecture,
    images_nhwc: NDArray[np.uint8],
    name: str,
) -> Parity:
    outputs = _run(session, images_nhwc)
    distances, best = [], []
    for dtype in (torch.float32, torch.float64):
        with torch.inference_mode():
            wanted = serving.Reference(network, architecture, dtype)(torch.from_numpy(images_nhwc))
        references = [tensor.numpy() for tensor in wanted]
        distances.append(max(map(_distance, outputs.values(), references)))
        best.append(references[0].argmax(1))
    same_top1 = bool((outputs["logits"].argmax(1) == best[0]).all())
    return Parity(len(images_nhwc), name, distances[0], distances[1], same_top1)


def _distance(got: NDArray[np.float32], wanted: NDArray[np.floating]) -> float:
    scale = max(1.0, float(np.abs(wanted).max()))
    return float(np.abs(got.astype(np.float64) - wanted.astype(np.float64)).max()) / scale


def _is_off(parity: Parity) -> bool:
    return not (parity.float32 <= GATE and parity.float64 <= GATE and parity.same_top1)


def _violation(parity: Parity) -> str:
    return (
        f"batch {parity.batch} of {parity.inputs}: off by {parity.float32:.2e} from PyTorch, {parity.float64:.2e} "
        f"from float64 (allowed {GATE:.0e}); top-1 {'equal' if parity.same_top1 else 'differs'}"
    )


def _is_batch_invariant(session: onnxruntime.InferenceSession, images_nhwc: NDArray[np.uint8]) -> bool:
    together = _run(session, images_nhwc)
    alone: Sequence[dict[str, NDArray[np.float32]]] = [
        _run(session, images_nhwc[row : row + 1]) for row in range(len(images_nhwc))
    ]
    return all(
        np.array_equal(together[name][row], answer[name][0]) for row, answer in enumerate(alone) for name in together
    )
