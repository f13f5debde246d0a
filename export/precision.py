"""Variants of a verified fp32 graph in lower precision: fp16 for CUDA, int8 for the CPU.

Path: verify → **precision** → bundle. Beside `runtime` the only importer of onnxruntime here: its
converters are well kept and measured (see below); what they need around them is ours.

fp16 is made of the optimised graph, with BatchNorm folded in fp32 already. Inputs and outputs keep their
types, and so does the normalisation: 255 - mean has no exact fp16.

int8 is static, QDQ, weights per channel in seven bits (`reduce_range`): without VNNI, x86 adds products of
8-bit numbers in 16 bits, which saturates and cost a digit network 3.6 points. The layer that makes the
logits stays in fp32: it is a thousandth of the work, and 256 levels are few for a thousand classes.
"""

import contextlib
import dataclasses
import io
import logging
import pathlib
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export import evidence, runtime, signature, verify
from export.passes import edges, strip

FP32, FP16, INT8 = "fp32", "fp16", "int8"
CUDA = "CUDAExecutionProvider"


@dataclasses.dataclass(frozen=True, slots=True)
class Precision:
    """Where a precision belongs, and how far its goldens may be off there: provider → relative tolerance."""

    name: str
    suffix: str
    """Of the model's name."""
    tolerances: dict[str, float]
    gate: float
    """How far the variant may be from fp32; a variant is judged by agreement first."""
    top1_min: float
    """Share of images that should keep their best class; the report warns below it. No gate: the images may be
    few, and a network that is unsure of them changes its mind easily."""


PRECISIONS = {
    precision.name: precision
    for precision in (
        # TF32 is on by default on CUDA: 10 bits of mantissa. Not measured yet.
        Precision(FP32, "", {runtime.CPU: verify.GATE, CUDA: 2e-3}, verify.GATE, 1.0),
        # On the CPU fp16 is fp32 between casts: only ever slower. Not measured on CUDA yet.
        Precision(FP16, "-fp16", {CUDA: 1e-2}, 5e-3, 0.99),
        # Requantisation may round to the neighbouring level on another CPU family.
        Precision(INT8, "-int8", {runtime.CPU: 2e-2}, 0.5, 0.9),
    )
}

_BATCH = 8
_QUANTIZED = ("Conv", "Gemm", "MatMul", "Add", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Relu")


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with fp16 inside; inputs, outputs and the normalisation keep their types."""
    from onnxruntime.transformers import float16  # noqa: PLC0415 - slow to load, and used only here

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    kept = [node.name for node in model.graph.node if node.name.startswith(f"{signature.INPUT}/")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells of every weight below the smallest fp16 number
        converted = float16.convert_float_to_float16(copied, keep_io_types=True, node_block_list=kept)
    _join_casts(converted)
    edges.sort(converted)  # its casts stand at the end
    return strip.strip(converted)[0]


def to_int8(model: onnx.ModelProto, calibration: runtime.Arrays) -> onnx.ModelProto:
    """Return the graph quantised to int8 with the ranges that its tensors have on the calibration rows.

    Args:
        model: the verified fp32 graph.
        calibration: input → (N, ...), at least one row; a few hundred are enough.
    """
    from onnxruntime import quantization  # noqa: PLC0415 - slow to load, and used only here

    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = pathlib.Path(folder) / "int8.onnx"
        copied = onnx.ModelProto()
        copied.CopyFrom(model)
        quantization.quantize_static(
            copied,
            path,
            _Reader(calibration),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTIZED),
            nodes_to_exclude=_last_layer(model),
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return strip.strip(onnx.load(path))[0]


def agreement(
    exact: onnx.ModelProto, variant: onnx.ModelProto, inputs: runtime.Arrays, source: str, calibration_images: int
) -> evidence.Agreement:
    """Return how a variant compares with the fp32 graph, run on the CPU.

    Args:
        exact: the fp32 graph.
        variant: the same in lower precision.
        inputs: name → (N, ...).
        source: where the inputs come from, for people.
        calibration_images: for the record.
    """
    answers = [_run(runtime.Session(model), inputs) for model in (exact, variant)]
    worst, sums, count = 0.0, 0.0, 0
    for name, wanted in answers[0].items():
        if wanted.dtype != np.float32:
            continue  # classes: they are compared as the best class
        got = answers[1][name]
        worst = max(worst, verify.distance(got, wanted))
        sums += float(np.abs(got - wanted).sum()) / max(1.0, float(np.abs(wanted).max()))
        count += wanted.size
    rows = len(next(iter(inputs.values())))
    best = [answer[signature.LOGITS].argmax(1) for answer in answers] if signature.LOGITS in answers[0] else None
    top1 = None if best is None else float((best[0] == best[1]).mean())
    return evidence.Agreement(rows, source, top1, worst, sums / max(1, count), calibration_images)


def violations(precision: Precision, found: evidence.Agreement) -> list[str]:
    """Return in what a variant differs too much from fp32; empty if in nothing."""
    if found.worst <= precision.gate:
        return []
    return [f"{precision.name} is off by {found.worst:.2e} from fp32 (allowed {precision.gate:.0e})"]


def warnings_of(precision: Precision, found: evidence.Agreement) -> tuple[str, ...]:
    """Return what a person must know before serving a variant; empty if nothing."""
    if found.top1 is None or found.top1 >= precision.top1_min:
        return ()
    return (
        f"WARNING: {precision.name} keeps the best class of only {found.top1:.1%} of {found.images} {found.inputs} "
        f"(expected {precision.top1_min:.0%}): measure its accuracy before serving it, or calibrate with more images.",
    )


class _Reader:
    """Feeds the calibration rows, a few at a time. What onnxruntime.quantization takes for a data reader."""

    def __init__(self, inputs: runtime.Arrays) -> None:
        self._batches = _in_batches(inputs)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the next batch, or None at the end."""
        return next(self._batches, None)


def _in_batches(inputs: runtime.Arrays) -> Iterator[dict[str, NDArray[Any]]]:
    rows = len(next(iter(inputs.values())))
    for first in range(0, rows, _BATCH):
        yield {name: np.ascontiguousarray(array[first : first + _BATCH]) for name, array in inputs.items()}


def _run(session: runtime.Session, inputs: runtime.Arrays) -> dict[str, NDArray[Any]]:
    parts = [session.run(batch) for batch in _in_batches(inputs)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _join_casts(model: onnx.ModelProto) -> None:
    """Let what is cast to fp16 and at once back take the tensor as it was: between two nodes that stay fp32."""
    makers = edges.produced(model)

    def is_cast(node: onnx.NodeProto | None, kind: int) -> bool:
        return node is not None and node.op_type == "Cast" and node.attribute[0].i == kind

    for node in list(model.graph.node):
        before = makers.get(node.input[0]) if node.input else None
        if is_cast(node, onnx.TensorProto.FLOAT) and before is not None and is_cast(before, onnx.TensorProto.FLOAT16):
            edges.rename_uses(model, node.output[0], before.input[0])
    edges.drop_unused(model)


def _last_layer(model: onnx.ModelProto) -> Sequence[str]:
    """The node that makes the logits, if there is one."""
    node = edges.produced(model).get(signature.LOGITS)
    return [node.name] if node is not None else []


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser recommends its own preprocessing on the root logger, and prints progress."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
