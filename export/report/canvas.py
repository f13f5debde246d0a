"""A sheet to draw on, measured in pixels from its upper left corner: text, arrays as images, bars. PNG out.

Path: figures, charts → **canvas**. The only importer of matplotlib; it keeps no state between two sheets.
"""

import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib import figure, patches
from numpy.typing import NDArray

PAPER, INK, FAINT, LINE = "#ffffff", "#1f2430", "#6b7280", "#d5d8de"
ACCENT, OTHER = "#2f6690", "#a9b4c2"

TEXT_PX, SMALL_PX, TITLE_PX = 13, 11, 15
MARGIN_PX = 18

PIXEL_RATIO = 2
"""PNG pixels for each pixel of the sheet: sharp on dense screens and on paper."""

_DPI = 100
_POINTS = 72 / _DPI


class Canvas:
    """One sheet. Mutable state: what has been drawn; touched only by whoever made it."""

    def __init__(self, width_px: float, height_px: float) -> None:
        self._figure = figure.Figure((width_px / _DPI, height_px / _DPI), dpi=_DPI, facecolor=PAPER)
        self._axes = self._figure.add_axes((0, 0, 1, 1), xlim=(0, width_px), ylim=(height_px, 0))
        self._axes.set_axis_off()
        self._axes.set_autoscale_on(False)

    def text(
        self,
        place: tuple[float, float],
        words: str,
        *,
        size_px: float = TEXT_PX,
        color: str = INK,
        is_bold: bool = False,
        align: str = "left",
    ) -> None:
        """Write a line; `place` is the middle of its left end (or right end, or centre, as `align` says)."""
        self._axes.text(
            *place,
            words,
            fontsize=size_px * _POINTS,
            color=color,
            fontweight="bold" if is_bold else "normal",
            horizontalalignment=align,
            verticalalignment="center_baseline",
            parse_math=False,
        )

    def image(self, box: tuple[float, float, float, float], image_hwc: NDArray[Any]) -> None:
        """Draw an image, (H, W, 3) of 0..1 or uint8, into (x, y, width, height).

        Enlarged, its pixels show as squares; reduced, they are averaged.
        """
        x, y, width, height = box
        self._axes.imshow(image_hwc, extent=(x, x + width, y + height, y), aspect="auto", interpolation="antialiased")

    def bar(self, box: tuple[float, float, float, float], color: str, *, is_outline: bool = False) -> None:
        """Draw a rectangle into (x, y, width, height), filled or as an outline; none if it is empty."""
        x, y, width, height = box
        if width <= 0:
            return
        fill = "none" if is_outline else color
        self._axes.add_patch(patches.Rectangle((x, y), width, height, facecolor=fill, edgecolor=color, linewidth=0.8))

    def png(self) -> bytes:
        """Return the sheet as a PNG file; equal drawings give equal bytes."""
        buffer = io.BytesIO()
        self._figure.savefig(buffer, format="png", dpi=_DPI * PIXEL_RATIO, metadata={"Software": None})
        return buffer.getvalue()


def colored(values: NDArray[Any], most: float, *, is_signed: bool) -> NDArray[np.float64]:
    """Return numbers as colours: (...) to (..., 3) of 0..1.

    Signed numbers go from blue at -most over white at 0 to red at most; others from black at 0 to yellow.
    """
    span = most or 1.0
    shares = (values / span + 1) / 2 if is_signed else values / span
    colors: NDArray[np.float64] = matplotlib.colormaps["RdBu_r" if is_signed else "inferno"](np.clip(shares, 0, 1))
    return colors[..., :3]


def shortened(words: str, letters_max: int) -> str:
    """Return words that fit, with an ellipsis if they had to be cut."""
    return words if len(words) <= letters_max else words[: letters_max - 1] + "…"
