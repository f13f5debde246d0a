"""`make bench-export`: exported graphs beside the TorchScript exporter's, PyTorch, and their int8 variants.

Prints a table of medians over interleaved pairs on the CPU provider: ours against the other, and the
ratio. Random weights: the arithmetic is the same. Needs nothing but the packages; takes about ten minutes.
"""

import dataclasses
import io
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import rich.console
import rich.progress
import rich.table
import torch

from export import latency, options, passes, photos, pipeline, precision, runtime, signature, sources, subject

PAIRS = 24
CALIBRATION_IMAGES = 32


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two ways to compute the same; `other` is what ours is compared with."""

    what: str
    ours: Callable[[], object]
    other: Callable[[], object]


def main() -> int:
    """Measure every pair and print the table."""
    table = rich.table.Table("what", "ours ms", "other ms", "other / ours: median", "fastest", box=None)
    console = rich.console.Console(width=120)
    for pair in rich.progress.track(list(_pairs()), "pairs", console=console):
        ours, other = _measured(pair)
        ratios = [two / one for one, two in zip(ours, other, strict=True)]
        table.add_row(
            *(pair.what, f"{statistics.median(ours) * 1e3:.1f}", f"{statistics.median(other) * 1e3:.1f}"),
            *(f"{statistics.median(ratios):.3f}", f"{min(other) / min(ours):.3f}"),
        )
    console.print(f"{PAIRS} interleaved pairs each; {latency.machine()}; torch {torch.__version__}")
    console.print(table)
    return 0


def _pairs() -> Iterator[Pair]:
    for name in ("resnet18", "resnet50", "googlenet", "alexnet"):
        floats, model, source = _exported(name, signature.FLOAT32_NCHW)
        other, eager = source.reference.before()
        if name == "resnet50":
            script = _torchscript(source)
            print(f"resnet50, float32-nchw: {_nodes(model)} nodes when optimized; TorchScript's {_nodes(script)}")  # noqa: T201
            yield _against(f"{name} b1: TorchScript exporter", model, script, floats, 1)
        one = {"image": floats["image"][:1]}
        session = runtime.Session(model)
        yield Pair(f"{name} b1: {other}", lambda s=session, i=one: s.run(i), lambda e=eager, i=one: e(i))
    for name in ("resnet18", "resnet50"):
        pixels, model, _ = _exported(name, signature.UINT8_NHWC)
        if name == "resnet50":
            print(f"resnet50, uint8-nhwc: {_nodes(model)} nodes when optimized")  # noqa: T201
        quantised = precision.to_int8(model, pixels)
        for batch in (1, 8):
            yield _against(f"{name} b{batch}: int8 against fp32", quantised, model, pixels, batch)


def _exported(name: str, layout: str) -> tuple[runtime.Arrays, onnx.ModelProto, subject.Source]:
    chosen = options.Options(weights="random", layout_asked=layout)
    source = sources.find(name, chosen)
    model, _ = passes.run(source.graph, pipeline.passes_for(source, chosen, pipeline.output_names(source, chosen)))
    images_nhwc = photos.real((224, 224, 3), CALIBRATION_IMAGES)
    if layout == signature.UINT8_NHWC:
        return {"image": images_nhwc}, model, source
    return {"image": np.ascontiguousarray(images_nhwc.transpose(0, 3, 1, 2).astype(np.float32) / 64 - 2)}, model, source


def _torchscript(source: subject.Source) -> onnx.ModelProto:
    network = source.facts.network
    assert network is not None, "it comes from the zoo"
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is the old exporter
        axes = {"image": {0: "batch"}, "logits": {0: "batch"}}
        torch.onnx.export(
            network, (torch.zeros(2, 3, 224, 224),), buffer, dynamo=False, opset_version=20,
            input_names=["image"], output_names=["logits"], dynamic_axes=axes,
        )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


def _against(what: str, ours: onnx.ModelProto, other: onnx.ModelProto, rows: runtime.Arrays, batch: int) -> Pair:
    inputs = {name: array[:batch] for name, array in rows.items()}
    first, second = runtime.Session(ours), runtime.Session(other)
    return Pair(what, lambda: first.run(inputs), lambda: second.run(inputs))


def _measured(pair: Pair) -> tuple[list[float], list[float]]:
    """Times of both, in turn, the one that begins changing from pair to pair."""
    ours: list[float] = []
    other: list[float] = []
    for number in range(-2, PAIRS):
        both = [(ours, pair.ours), (other, pair.other)]
        for times, run in both if number % 2 else reversed(both):
            started_s = time.perf_counter()
            run()
            if number >= 0:
                times.append(time.perf_counter() - started_s)
    return ours, other


def _nodes(model: onnx.ModelProto) -> int:
    return len(runtime.optimized(model).graph.node)


if __name__ == "__main__":
    sys.exit(main())
