"""Feature maps and filter responses as one grey picture.

Path: wire.image_service → **sheets** → PNG file.
"""

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GAP_PX = 1


def span(maps_chw: NDArray[np.floating]) -> tuple[float, float]:
    """Return the smallest and the largest finite value; 0 and 0, if there is none."""
    finite = maps_chw[np.isfinite(maps_chw)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def png(maps_chw: NDArray[np.floating], low: float, high: float) -> bytes:
    """Return a PNG file of all channels, in rows, as nearly square as their number allows.

    Args:
        maps_chw: (channels, height, width). What is not a number is black.
        low: what is black, the smallest value of `span`.
        high: what is white, the largest.

    Returns:
        8-bit grey, `GAP_PX` of middle grey between the channels.
    """
    channels, height, width = maps_chw.shape
    scaled = (np.nan_to_num(maps_chw.astype(np.float64), nan=low, posinf=high, neginf=low) - low) * (
        255.0 / (high - low) if high > low else 0.0
    )
    across = math.ceil(math.sqrt(channels))
    down = math.ceil(channels / across)
    sheet = np.full((down * (height + GAP_PX) - GAP_PX, across * (width + GAP_PX) - GAP_PX), 128, np.uint8)
    for number, channel in enumerate(np.rint(scaled).astype(np.uint8)):
        top, left = number // across * (height + GAP_PX), number % across * (width + GAP_PX)
        sheet[top : top + height, left : left + width] = channel
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
