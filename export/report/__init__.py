"""The evidence as a page for people: one HTML file that needs nothing else.

Path: evidence, inspection → **report** → bundle. Formats and decides; `report.html.j2` holds the page.
"""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from importlib import resources

import jinja2

from export import evidence
from export.report import canvas, charts

_CAPTIONS = {
    "top5": "The best classes of one image, with their probabilities.",
    "responses": "What the filters answer to one image. Colour scales are shared by maps of one kind.",
    "features": "What comes out of each stage for one image: the strongest feature maps.",
    "filters": "The kernels of the first convolution.",
    "costs": "Multiply-accumulates and parameters of each stage. An outline shows what the stage would cost if its "
    "larger kernels worked on all maps directly, without the 1x1 convolutions that reduce and expand them.",
    "latency": "Median times, measured in turn.",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What the evidence comes to, in one sentence and one of explanation."""

    is_good: bool
    sentence: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """A picture inside the page; `width_px` is what it is shown at where there is room."""

    name: str
    caption: str
    uri: str
    width_px: int


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """The worst over the batches that one output was compared at, with one kind and size of inputs."""

    output: str
    inputs: str
    shape: tuple[int, ...]
    batches: tuple[int, ...]
    float32: float
    float64: float | None
    same_top1: bool | None


@dataclasses.dataclass(frozen=True, slots=True)
class Timing:
    """A latency beside the first one of the same batch."""

    row: evidence.Latency
    ratio: float
    """How many times as long it takes."""


def page(found: evidence.Evidence, pictures: Mapping[str, bytes]) -> str:
    """Return the page, with its style and pictures in it.

    Args:
        found: the evidence.
        pictures: name → PNG, in the order to show them.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "distance": distance,
        "count": lambda number: f"{number:,}",
        "short": charts.short,
        "time": charts.milliseconds,
        "memory": memory,
        "shape": shape,
    }
    text = resources.files("export.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render(
        found=found,
        verdict=verdict(found),
        operators=operators(found.operators),
        fused=fused(found.operators),
        comparisons=comparisons(found.parity),
        timings=timings(found.latency),
        macs_direct=sum(stage.macs_direct for stage in found.costs.stages),
        pictures=[_picture(name, png) for name, png in pictures.items()],
    )


def verdict(found: evidence.Evidence) -> Verdict:
    """Return whether the graph computes what it should: the worst of all comparisons against the gate.

    A variant in lower precision is held against the fp32 graph, everything else against what it came from.
    """
    if found.agreement is not None:
        return _verdict_of_variant(found, found.agreement)
    if not found.parity:
        return Verdict(False, "Not compared with anything", "There is no reference for this graph.")
    differences = [value for row in found.parity for value in (row.float32, row.float64) if value is not None]
    worst = max(differences)
    is_good = worst <= found.gate and all(row.same_top1 is not False for row in found.parity)
    has_float64 = any(row.float64 is not None for row in found.parity)
    reference = "its source, in float32 and float64" if has_float64 else "its source, in float32"
    wrong = "" if is_good or worst > found.gate else "; the best class differs somewhere"
    return Verdict(
        is_good,
        f"{_word(is_good)}: off by at most {distance(worst)}, {distance(found.gate, 0)} is allowed",
        f"The worst of {len(found.parity)} comparisons with {reference}, relative to the largest value{wrong}.",
    )


def _verdict_of_variant(found: evidence.Evidence, agreement: evidence.Agreement) -> Verdict:
    top1 = "" if agreement.top1 is None else f", best class equal in {agreement.top1:.1%}"
    is_good = agreement.worst <= found.gate
    return Verdict(
        is_good,
        f"{_word(is_good)}: off by at most {distance(agreement.worst)} from fp32{top1}",
        f"{found.identity.precision} beside the fp32 graph on {agreement.images} {agreement.inputs}; "
        f"{distance(found.gate, 0)} is allowed, relative to the largest value.",
    )


def _word(is_good: bool) -> str:
    return "Verified" if is_good else "Not verified"


def operators(found: evidence.Operators) -> list[tuple[str, int, int, int]]:
    """Return (operator, times as traced, as exported, as optimized), the most frequent first."""
    names = dict.fromkeys((*found.traced, *found.exported, *found.optimized))
    counts = (found.traced, found.exported, found.optimized)
    return [(name, *(count.get(name, 0) for count in counts)) for name in names]  # type: ignore[misc]  # three of them


def fused(found: evidence.Operators) -> str:
    """Return what ONNX Runtime made of the graph, in a sentence."""
    names = dict.fromkeys((*found.exported, *found.optimized))
    change = {name: found.optimized.get(name, 0) - found.exported.get(name, 0) for name in names}
    gone = [f"{-by} {name}" for name, by in change.items() if by < 0]
    new = [f"{by} {name}" for name, by in change.items() if by > 0]
    before, after = sum(found.exported.values()), sum(found.optimized.values())
    parts = [f"On the CPU, ONNX Runtime runs {after} nodes for these {before}"]
    parts += [f"fused or folded: {', '.join(gone)}"] if gone else []
    parts += [f"added: {', '.join(new)}"] if new else []
    return "; ".join(parts) + "."


def comparisons(parity: Sequence[evidence.Parity]) -> list[Comparison]:
    """Return the comparisons with their batches taken together."""
    groups: dict[tuple[str, str, tuple[int, ...]], list[evidence.Parity]] = {}
    for row in parity:
        groups.setdefault((row.output, row.inputs, row.shape), []).append(row)
    return [
        Comparison(
            *key,
            batches=tuple(sorted(row.batch for row in rows)),
            float32=max(row.float32 for row in rows),
            float64=max((row.float64 for row in rows if row.float64 is not None), default=None),
            same_top1=all(row.same_top1 for row in rows) if rows[0].same_top1 is not None else None,
        )
        for key, rows in groups.items()
    ]


def timings(latency: Sequence[evidence.Latency]) -> list[Timing]:
    """Return each latency with its ratio to the first of the same batch."""
    first: dict[int, float] = {}
    for row in latency:
        first.setdefault(row.batch, row.median_s)
    return [Timing(row, row.median_s / first[row.batch]) for row in latency]


def distance(value: float, digits: int = 1) -> str:
    """Return a small number for people, with that many digits behind the point: 2.1e-6; 0 for nothing."""
    if value == 0:
        return "0"
    mantissa, has_exponent, exponent = f"{value:.{digits}e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if has_exponent else mantissa  # "inf" has none


def memory(size_bytes: int) -> str:
    """Return a size for people, in powers of ten: 102.2 MB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.1f} {name}"
    return f"{size_bytes} bytes"


def shape(dims: Sequence[int | str]) -> str:
    """Return a shape for people: batch x 3 x 224 x 224; "one number" for a scalar."""
    return " x ".join(map(str, dims)) or "one number"


def _picture(name: str, png: bytes) -> Picture:
    width = int.from_bytes(png[16:20])  # in the header chunk, which comes first
    uri = "data:image/png;base64," + base64.b64encode(png).decode()
    return Picture(name, _CAPTIONS.get(name, name), uri, width // canvas.PIXEL_RATIO)
