"""Pictures in SVG: lines over time, a histogram, a curve of latency over rate, a bar of parts.

Path: sections → **charts** → page. Colours and strokes are classes of `style`.
"""

import dataclasses
import html
import math
from collections.abc import Sequence

from service.loadgen.report import scales

WIDTH, HEIGHT = 720, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 36


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A named line; `css` is its class, None in `y` a gap."""

    name: str
    css: str
    x: Sequence[float]
    y: Sequence[float | None]
    has_dots: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Dots:
    """Named points without a line: (x, y, title) each."""

    name: str
    css: str
    places: Sequence[tuple[float, float, str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """A line across at a value, with its name beside it."""

    name: str
    css: str
    value: float


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """The two axes of a picture, named with their units."""

    x: scales.Scale
    y: scales.Scale
    x_name: str
    y_name: str


def x_scale(low: float, high: float) -> scales.Scale:
    """Return an even scale over the width."""
    return scales.Scale(low, high if high > low else low + 1, LEFT, WIDTH - RIGHT)


def y_scale(values: Sequence[float]) -> scales.Scale:
    """Return a scale over the height that fits the values."""
    return scales.fitting(values, HEIGHT - BOTTOM, TOP)


def lines(
    frame: Frame,
    several: Sequence[Line],
    across: Sequence[Mark] = (),
    upright: Sequence[Mark] = (),
    dots: Sequence[Dots] = (),
) -> str:
    """Draw lines, marks across at values of y, upright ones at values of x, and dots."""
    parts = [_axes(frame)]
    parts += [_across(frame, mark) for mark in across] + [_upright(frame, mark) for mark in upright]
    parts += [_line(frame, one) for one in several]
    parts += [_dots(frame, one) for one in dots]
    return _svg(parts) + _legend([*((one.name, one.css) for one in several), *((one.name, one.css) for one in dots)])


def bars(frame: Frame, several: Sequence[tuple[float, float, float, str]], upright: Sequence[Mark] = ()) -> str:
    """Draw bars of (from, to, height, title), and marks at values of x."""
    parts = [_axes(frame)]
    zero = frame.y.place(frame.y.low)
    for low, high, height, title in several:
        left, right, top = frame.x.place(low), frame.x.place(high), frame.y.place(height)
        parts.append(
            f'<rect class="bar" x="{left:.1f}" y="{top:.1f}" width="{max(right - left - 0.6, 0.4):.1f}" '
            f'height="{max(zero - top, 0):.1f}"><title>{html.escape(title)}</title></rect>'
        )
    parts += [_upright(frame, mark, number) for number, mark in enumerate(upright)]
    return _svg(parts)


def parts_of_a_whole(parts: Sequence[tuple[str, str, float]], unit: str) -> str:
    """Draw one bar of (name, class, size) side by side, each named in the legend with its size."""
    whole = sum(size for _, _, size in parts)
    if whole <= 0:
        return ""
    drawn, left = [], 0.0
    for name, css, size in parts:
        width = (WIDTH - 2) * size / whole
        title = html.escape(f"{name}: {size:.3g} {unit} ({size / whole:.0%})")
        drawn.append(
            f'<rect class="part {css}" x="{left + 1:.1f}" y="4" width="{max(width - 1, 0.5):.1f}" height="34">'
            f"<title>{title}</title></rect>"
        )
        if width > 46:
            drawn.append(f'<text class="inside" x="{left + width / 2:.1f}" y="26">{size:.3g}</text>')
        left += width
    return _svg(drawn, 42) + _legend([(f"{name} {size:.3g} {unit}", css) for name, css, size in parts])


def _svg(parts: Sequence[str], height: int = HEIGHT) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg>'


def _axes(frame: Frame) -> str:
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    parts = []
    for value in frame.y.ticks():
        y = frame.y.place(value)
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{right}"/>')
        parts.append(f'<text class="tick end" x="{left - 6}" y="{y + 4:.1f}">{scales.number(value)}</text>')
    for value in frame.x.ticks(8):
        x = frame.x.place(value)
        parts.append(f'<path class="axis" d="M{x:.1f} {bottom}v4"/>')
        parts.append(f'<text class="tick mid" x="{x:.1f}" y="{bottom + 17}">{scales.number(value)}</text>')
    parts.append(f'<path class="axis" d="M{left} {bottom}H{right}"/>')
    parts.append(f'<text class="name end" x="{right}" y="{HEIGHT - 3}">{html.escape(frame.x_name)}</text>')
    middle = (top + bottom) / 2
    parts.append(
        f'<text class="name mid" transform="translate(13 {middle}) rotate(-90)">{html.escape(frame.y_name)}</text>'
    )
    return "".join(parts)


def _line(frame: Frame, line: Line) -> str:
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(line.x, line.y, strict=True):
        if y is None or not math.isfinite(y):
            pieces.append([])
        else:
            pieces[-1].append((frame.x.place(x), frame.y.place(y)))
    drawn = [f'<polyline class="line {line.css}" points="{_points(piece)}"/>' for piece in pieces if len(piece) > 1]
    lone = [piece[0] for piece in pieces if len(piece) == 1]
    points = [point for piece in pieces for point in piece] if line.has_dots else lone
    return "".join(drawn) + "".join(
        f'<circle class="dot {line.css}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points
    )


def _dots(frame: Frame, dots: Dots) -> str:
    return "".join(
        f'<circle class="dot {dots.css}" cx="{frame.x.place(x):.1f}" cy="{frame.y.place(y):.1f}" r="4">'
        f"<title>{html.escape(title)}</title></circle>"
        for x, y, title in dots.places
    )


def _points(piece: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in piece)


def _across(frame: Frame, mark: Mark) -> str:
    y = frame.y.place(mark.value)
    return (
        f'<path class="mark {mark.css}" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        f'<text class="name" x="{LEFT + 6}" y="{y - 4:.1f}">{html.escape(mark.name)}</text>'
    )


def _upright(frame: Frame, mark: Mark, row: int = 0) -> str:
    """A mark at a value of x; names of neighbours lie in different rows."""
    x = frame.x.place(mark.value)
    side = "end" if x > WIDTH * 0.8 else ""
    return (
        f'<path class="mark {mark.css}" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
        f'<text class="name {side}" x="{x + (-4 if side else 4):.1f}" y="{TOP + 10 + 13 * (row % 4)}">'
        f"{html.escape(mark.name)}</text>"
    )


def _legend(names: Sequence[tuple[str, str]]) -> str:
    entries = "".join(f'<span><i class="key {css}"></i>{html.escape(name)}</span>' for name, css in names)
    return f'<p class="legend">{entries}</p>'
