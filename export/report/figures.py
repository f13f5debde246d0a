"""What a network sees, as pictures: its first kernels, feature maps, responses of filters, best classes.

Path: inspection → **figures** → canvas. Arrays in, PNG bytes out.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.report import canvas

FILTERS_MAX = 256
_GAP_PX = 6
_HEAD_PX = 48
_MARGIN_PX = canvas.MARGIN_PX


def filter_grid(weights_oihw: NDArray[np.floating[Any]]) -> bytes:
    """Return the kernels of a first convolution, side by side, as in figure 3 of Krizhevsky et al. 2012.

    Three input channels are colours, each kernel from its lowest to its highest weight. One channel is
    grey, zero in the middle, each kernel up to its largest weight. Of other numbers the mean is shown.

    Args:
        weights_oihw: (O, I, H, W); of more than FILTERS_MAX kernels, the first ones.
    """
    count, channels, height, width = weights_oihw.shape
    tiles = [_kernel(kernel_ihw) for kernel_ihw in weights_oihw[:FILTERS_MAX]]
    is_few = len(tiles) <= 16
    columns = min(len(tiles), 8 if is_few else 16)
    tile_w, tile_h = _fitted((height, width), 96 if is_few else 56)
    rows = math.ceil(len(tiles) / columns)
    sheet_w = 2 * _MARGIN_PX + max(columns * (tile_w + _GAP_PX) - _GAP_PX, 440)
    sheet = canvas.Canvas(sheet_w, _HEAD_PX + rows * (tile_h + _GAP_PX) - _GAP_PX + _MARGIN_PX)
    how = {3: "in colours", 1: "grey is zero"}.get(channels, f"mean over {channels} channels, grey is zero")
    shown = f", the first {FILTERS_MAX}" if count > FILTERS_MAX else ""
    _title(sheet, f"{count} kernels of {height}x{width}{shown}", f"{how}; each scaled to its own range")
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        place = (_MARGIN_PX + column * (tile_w + _GAP_PX), _HEAD_PX + row * (tile_h + _GAP_PX))
        sheet.image((*place, tile_w, tile_h), tile)
    return sheet.png()


def _kernel(kernel_ihw: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """(H, W, 3) of 0..1."""
    if len(kernel_ihw) == 3:
        low, high = float(kernel_ihw.min()), float(kernel_ihw.max())
        return np.moveaxis((kernel_ihw.astype(np.float64) - low) / ((high - low) or 1.0), 0, -1)
    mean_hw = kernel_ihw.astype(np.float64).mean(0)
    grey_hw = (mean_hw / (np.abs(mean_hw).max() or 1.0) + 1) / 2
    return np.repeat(grey_hw[..., None], 3, axis=2)


def _fitted(shape_hw: Sequence[int], side_px: float) -> tuple[float, float]:
    """Width and height within a square, in proportion."""
    scale = side_px / max(shape_hw[:2])
    return shape_hw[1] * scale, shape_hw[0] * scale


def _title(sheet: canvas.Canvas, words: str, note: str) -> None:
    sheet.text((_MARGIN_PX, 17), words, size_px=canvas.TITLE_PX, is_bold=True)
    sheet.text((_MARGIN_PX, 35), note, size_px=canvas.SMALL_PX, color=canvas.FAINT)


# --- feature maps

_MAPS, _MAP_PX, _LABEL_PX = 8, 96, 128
_STRIP_PX = _MAPS * (_MAP_PX + _GAP_PX) - _GAP_PX


def feature_maps(stages: Mapping[str, NDArray[np.floating[Any]]]) -> bytes:
    """Return what comes out of each stage for one image, a row for each: the eight strongest maps.

    Strongest is by root mean square. Vectors and maps of one pixel are drawn whole, a square for each number.

    Args:
        stages: name → (C, H, W) or (C,).
    """
    rows = {name: _feature_row(values) for name, values in stages.items()}
    height = _HEAD_PX + sum(height_px + 2 * _GAP_PX for _, height_px in rows.values()) + _MARGIN_PX
    sheet = canvas.Canvas(2 * _MARGIN_PX + _LABEL_PX + _STRIP_PX, height)
    _title(
        sheet,
        "Feature maps",
        "of each stage the eight strongest, each scaled to its own range; where there is a sign, blue is below zero",
    )
    y = float(_HEAD_PX)
    for name, (tiles, height_px) in rows.items():
        sheet.text((_MARGIN_PX, y + 12), canvas.shortened(name, 16), is_bold=True)
        shape = "x".join(map(str, stages[name].shape))
        sheet.text((_MARGIN_PX, y + 30), shape, size_px=canvas.SMALL_PX, color=canvas.FAINT)
        for (left, width, high), tile in tiles:
            sheet.image((_MARGIN_PX + _LABEL_PX + left, y, width, high), tile)
        y += height_px + 2 * _GAP_PX
    return sheet.png()


_Tile = tuple[tuple[float, float, float], NDArray[np.float64]]
"""(left, width, height) in pixels, and the colours."""


def _feature_row(values: NDArray[np.floating[Any]]) -> tuple[list[_Tile], float]:
    """The tiles of one stage, and how high the row is."""
    if values.size == len(values):
        colors, width, height = _strip(values.reshape(-1))
        return [((0, width, height), colors)], max(height, 40)
    width, height = _fitted(values.shape[1:], _MAP_PX)
    strength = np.square(values.astype(np.float64)).mean((1, 2))
    best = np.argsort(-strength, kind="stable")[:_MAPS]
    is_signed = bool((values < 0).any())
    tiles: list[_Tile] = [
        ((place * (_MAP_PX + _GAP_PX), width, height), _own_range(values[number], is_signed=is_signed))
        for place, number in enumerate(best)
    ]
    return tiles, max(height, 40)


def _strip(vector: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float64], float, float]:
    """A vector as rows of squares, as large as lets it fit; the rest of the last row is paper."""
    cell_px = max(2, min(12, int(math.sqrt(_STRIP_PX * _MAP_PX / len(vector)))))
    columns = min(len(vector), _STRIP_PX // cell_px)
    rows = math.ceil(len(vector) / columns)
    colors = np.ones((rows * columns, 3))
    colors[: len(vector)] = _own_range(vector, is_signed=bool((vector < 0).any()))
    return colors.reshape(rows, columns, 3), columns * cell_px, rows * cell_px


def _own_range(values: NDArray[np.floating[Any]], *, is_signed: bool) -> NDArray[np.float64]:
    return canvas.colored(values, float(np.abs(values).max()), is_signed=is_signed)


# --- responses

_PANEL_PX, _PANELS = 224, 4


def responses(image_hwc: NDArray[np.uint8], maps: Mapping[str, NDArray[np.floating[Any]]]) -> bytes:
    """Return an image and the answers of filters to it, four in a row.

    Maps with negative values go from blue over white at 0 to red, others from black to yellow. All of one
    kind share one scale, so that they can be compared.

    Args:
        image_hwc: (H, W, 1) or (H, W, 3).
        maps: caption → (H', W').
    """
    width, height = _panel(image_hwc.shape)
    count, line_px = len(maps) + 1, height + 34
    columns = min(count, _PANELS)
    sheet_w = 2 * _MARGIN_PX + columns * (width + 2 * _GAP_PX) - 2 * _GAP_PX
    sheet = canvas.Canvas(sheet_w, _MARGIN_PX + math.ceil(count / columns) * line_px + 4)
    most = {kind: _most(maps, is_signed=kind) for kind in (False, True)}
    panels: list[tuple[str, str, NDArray[Any]]] = [("image", "", _shown(image_hwc))]
    for caption, values in maps.items():
        is_signed = bool((values < 0).any())
        scale = f"{-most[True]:.2g} … {most[True]:.2g}" if is_signed else f"0 … {most[False]:.2g}"
        panels.append((caption, scale, canvas.colored(values, most[is_signed], is_signed=is_signed)))
    for number, (caption, scale, colors) in enumerate(panels):
        row, column = divmod(number, columns)
        x, y = _MARGIN_PX + column * (width + 2 * _GAP_PX), _MARGIN_PX + row * line_px
        sheet.image((x, y, width, height), colors)
        sheet.text((x, y + height + 12), caption)
        sheet.text((x + width, y + height + 12), scale, size_px=canvas.SMALL_PX, color=canvas.FAINT, align="right")
    return sheet.png()


def _panel(shape_hw: Sequence[int]) -> tuple[float, float]:
    """Always _PANEL_PX wide, so that captions fit; at most twice as high."""
    return _PANEL_PX, min(2 * _PANEL_PX, _PANEL_PX * shape_hw[0] / shape_hw[1])


def _most(maps: Mapping[str, NDArray[np.floating[Any]]], *, is_signed: bool) -> float:
    return max(
        (float(np.abs(values).max()) for values in maps.values() if bool((values < 0).any()) == is_signed), default=0
    )


def _shown(image_hwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(image_hwc, 3, axis=2) if image_hwc.shape[2] == 1 else image_hwc


# --- classes

_BARS_PX, _CLASS_PX = 420, 46


def best_classes(image_hwc: NDArray[np.uint8], classes: Sequence[tuple[str, float]]) -> bytes:
    """Return an image and its best classes beside it.

    Args:
        image_hwc: (H, W, 1) or (H, W, 3).
        classes: (label, probability), best first.
    """
    width, height = _fitted(image_hwc.shape, 240)
    sheet_h = 2 * _MARGIN_PX + max(height, len(classes) * _CLASS_PX - 14)
    sheet = canvas.Canvas(3 * _MARGIN_PX + width + _BARS_PX, sheet_h)
    sheet.image((_MARGIN_PX, _MARGIN_PX, width, height), _shown(image_hwc))
    left = 2 * _MARGIN_PX + width
    for number, (label, probability) in enumerate(classes):
        y = _MARGIN_PX + number * _CLASS_PX
        is_best = number == 0
        sheet.text((left, y + 7), canvas.shortened(label, 44), is_bold=is_best)
        sheet.text((left + _BARS_PX, y + 7), f"{probability:.1%}", align="right", color=canvas.FAINT)
        sheet.bar((left, y + 19, _BARS_PX, 10), canvas.LINE)
        sheet.bar((left, y + 19, _BARS_PX * probability, 10), canvas.ACCENT if is_best else canvas.OTHER)
    return sheet.png()
