"""What can be seen of a graph: pictures of its weights, of what it makes of an image, and of its figures.

Path: pipeline, inspect_cli → **inspection** → figures, charts → report, disk.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export import evidence, runtime, signature
from export.passes import edges
from export.report import charts, figures

BEST = 5
"""How many of the best classes are shown."""

_WAVE_BINS = 512
"""Of the Fourier transform that a wavelength is read from: 8 pixels are bin 64."""


def pictures(
    model: onnx.ModelProto, found: evidence.Evidence, labels: Sequence[str], inputs: runtime.Arrays
) -> dict[str, bytes]:
    """Return name → PNG of all there is to see, in the order in which one would look at it.

    Args:
        model: the exported graph.
        found: its evidence.
        labels: of its classes; may be empty.
        inputs: one row; of a graph that takes images, an image.
    """
    seen = {}
    if signature.INPUT in inputs and inputs[signature.INPUT].ndim == 4 and inputs[signature.INPUT].shape[0] == 1:
        seen = of_image(model, found, labels, inputs, as_picture(inputs[signature.INPUT][0]))
    return seen | of_graph(model, found)


def of_graph(model: onnx.ModelProto, found: evidence.Evidence) -> dict[str, bytes]:
    """Return what needs no image: `filters` of the first convolution, `costs` of the stages, `latency`, if any."""
    seen = {}
    weights = first_kernels(model)
    if weights is not None:
        seen["filters"] = figures.filter_grid(weights)
    if len(found.costs.stages) > 1:
        seen["costs"] = charts.cost_bars(found.costs)
    if found.latency:
        seen["latency"] = charts.latency_bars(found.latency)
    return seen


def of_image(
    model: onnx.ModelProto,
    found: evidence.Evidence,
    labels: Sequence[str],
    inputs: runtime.Arrays,
    image_hwc: NDArray[np.uint8],
) -> dict[str, bytes]:
    """Return what the graph makes of an image: `top5` of a classifier, `responses` of filters, `features`.

    Args:
        model: the exported graph.
        found: its evidence.
        labels: of its classes; may be empty.
        inputs: the image as the graph takes it, one row.
        image_hwc: the image as a person sees it, (H, W, 1) or (H, W, 3).
    """
    stages = [stage.name for stage in found.costs.stages]
    answers = run_with_features(model, inputs, stages)
    seen = {}
    best = best_classes(answers, labels)
    if best:
        seen["top5"] = figures.best_classes(image_hwc, best)
    panels = responses(answers, first_kernels(model))
    if panels:
        seen["responses"] = figures.responses(image_hwc, panels)
    maps = {
        name.removeprefix(signature.FEATURES): values
        for name, values in answers.items()
        if name.startswith(signature.FEATURES)
    }
    if maps:
        seen["features"] = figures.feature_maps(maps)
    return seen


def as_picture(row: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a row of an image input as a person sees it, (H, W, C): normalised floats are stretched to 0..255."""
    if row.dtype == np.uint8:
        return row
    image_hwc = np.moveaxis(row.astype(np.float64), 0, -1)
    low, high = image_hwc.min(), image_hwc.max()
    stretched: NDArray[np.uint8] = ((image_hwc - low) / ((high - low) or 1.0) * 255).round().astype(np.uint8)
    return stretched


def run_with_features(
    model: onnx.ModelProto, inputs: runtime.Arrays, stages: Iterable[str]
) -> dict[str, NDArray[np.float32]]:
    """Return the answers to one row, without the batch: the floating outputs, and the feature maps of the stages.

    Feature maps that are no outputs are made so in a copy; stages without any are left out.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    outputs = [value.name for value in model.graph.output]
    made = edges.produced(model)
    wanted = [signature.FEATURES + stage for stage in stages]
    copied.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in wanted if name in made and name not in outputs
    )
    answers = runtime.Session(copied).run(inputs)
    kept = [*(name for name in outputs if name not in wanted), *(name for name in wanted if name in answers)]
    return {
        name: answers[name][0].astype(np.float32) for name in kept if np.issubdtype(answers[name].dtype, np.floating)
    }


def best_classes(answers: Mapping[str, NDArray[np.float32]], labels: Sequence[str]) -> list[tuple[str, float]]:
    """Return the best classes with their probabilities, best first; none if the answers are no class scores."""
    shares = answers.get(signature.PROBABILITIES)
    if shares is None and signature.LOGITS in answers:
        powers = np.exp(answers[signature.LOGITS].astype(np.float64) - answers[signature.LOGITS].max())
        shares = (powers / powers.sum()).astype(np.float32)
    if shares is None or shares.ndim != 1:
        return []
    named = labels if len(labels) == len(shares) else [str(number) for number in range(len(shares))]
    best = np.argsort(-shares, kind="stable")[:BEST]
    return [(named[number], float(shares[number])) for number in best]


# --- weights


def first_kernels(model: onnx.ModelProto) -> NDArray[np.float32] | None:
    """Return the weight of the first convolution, (O, I, H, W); None without one.

    Of a graph that takes bytes, it holds the scale of the normalisation as well: a factor for each channel.
    """
    for node in model.graph.node:
        if node.op_type == "Conv":
            weight = _constant(model, node.input[1])
            if weight is not None and weight.ndim == 4:
                return weight
    return None


def _constant(model: onnx.ModelProto, name: str) -> NDArray[np.float32] | None:
    """The value of a tensor that is stored, or made of stored ones by one node, as int8 weights are."""
    maker = edges.produced(model).get(name)
    needed = {name} if maker is None else set(filter(None, maker.input))
    stored = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    if len(stored) != len(needed):
        return None
    if maker is None:
        return numpy_helper.to_array(stored[0]).astype(np.float32)
    graph = helper.make_graph([maker], "constant", [], [onnx.ValueInfoProto(name=name)], stored)
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return runtime.Session(part).run({})[name].astype(np.float32)


# --- filters


def responses(
    answers: Mapping[str, NDArray[np.float32]], kernels_oihw: NDArray[np.float32] | None
) -> dict[str, NDArray[np.float32]]:
    """Return caption → map, (H, W), of a bank of filters; nothing for other graphs.

    Of a gradient: all three. Of quadrature pairs: the pair that answers most strongly, then the energy of each.
    """
    if {"gx", "gy", "magnitude"} <= answers.keys():
        return {name: answers[name][0] for name in ("gx", "gy", "magnitude")}
    if not {"even", "odd", "energy"} <= answers.keys():
        return {}
    energy_chw = answers["energy"]
    names = _waves(kernels_oihw, len(energy_chw))
    best = int(np.square(energy_chw).mean((1, 2)).argmax())
    panels = {f"{part}, {names[best]}": answers[part][best] for part in ("even", "odd")}
    panels["energy of this pair"] = energy_chw[best]  # beside its pair, and again in its place among the others
    return panels | {f"energy, {name}": map_hw for name, map_hw in zip(names, energy_chw, strict=True)}


def _waves(kernels_oihw: NDArray[np.float32] | None, count: int) -> list[str]:
    """What each quadrature pair answers to: wavelength and direction of its odd kernel, or just its number."""
    if kernels_oihw is None or kernels_oihw.shape[:2] != (2 * count, 1):
        return [str(number) for number in range(count)]
    return ["{:.2g} px, {:.0f}°".format(*wave(kernel_hw)) for kernel_hw in kernels_oihw[count:, 0]]


def wave(kernel_hw: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Return the wavelength, in pixels, that a kernel answers to most, and its direction in degrees, 0 to 180.

    Read from the peak of the kernel's Fourier transform. The direction is from x towards y, which points down.
    """
    strength = np.abs(np.fft.fft2(kernel_hw, (_WAVE_BINS, _WAVE_BINS)))[:, : _WAVE_BINS // 2]
    row, column = np.unravel_index(int(strength.argmax()), strength.shape)
    along_y, along_x = np.fft.fftfreq(_WAVE_BINS)[row], np.fft.fftfreq(_WAVE_BINS)[column]
    return float(1 / np.hypot(along_x, along_y)), float(np.degrees(np.arctan2(along_y, along_x))) % 180
