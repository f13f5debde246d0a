"""Results as pictures."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

COLUMNS = 25
_TILE, _CAPTION, _GAP, _MARGIN, _HEAD = 48, 15, 6, 20, 52
_PAPER, _INK, _FAINT, _WRONG, _WRONG_PAPER = "#fafaf7", "#1f2430", "#8b8f98", "#c0262d", "#fbe3e1"


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """One classified image: (H, W) uint8, the right label, the predicted one and its probability."""

    image_hw: NDArray[np.uint8]
    label: str
    predicted: str
    probability: float

    @property
    def is_wrong(self) -> bool:
        """Whether the prediction is not the label."""
        return self.label != self.predicted


def contact_sheet(tiles: Sequence[Tile], path: pathlib.Path, title: str) -> None:
    """Write all tiles as one PNG: predicted label and probability below each.

    Errors come first, in red, with the right label in their corner.

    Args:
        tiles: at least one. Right ones are sorted by probability, least certain first.
        path: of the PNG; replaced atomically.
        title: the line above.
    """
    ordered = sorted(tiles, key=lambda tile: (not tile.is_wrong, tile.probability))
    rows = -(-len(ordered) // COLUMNS)
    cell_w, cell_h = _TILE + _GAP, _TILE + _CAPTION + _GAP
    size = (2 * _MARGIN + COLUMNS * cell_w - _GAP, _HEAD + rows * cell_h + _MARGIN)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 16), title, _INK, ImageFont.load_default(18))
    font = ImageFont.load_default(11)
    for number, tile in enumerate(ordered):
        row, column = divmod(number, COLUMNS)
        _draw_tile(sheet, draw, (_MARGIN + column * cell_w, _HEAD + row * cell_h), tile, font)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    sheet.save(part, "PNG")
    part.replace(path)


def _draw_tile(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    tile: Tile,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    x, y = corner
    if tile.is_wrong:
        draw.rectangle((x - 3, y - 3, x + _TILE + 2, y + _TILE + _CAPTION), _WRONG_PAPER, _WRONG)
    picture = Image.fromarray(255 - tile.image_hw).resize((_TILE, _TILE), Image.Resampling.LANCZOS)
    sheet.paste(picture, corner)
    if tile.is_wrong:
        draw.text((x + _TILE - 1, y), f"is {tile.label}", _WRONG, font, anchor="ra")
    draw.text((x + 1, y + _TILE + 1), tile.predicted, _WRONG if tile.is_wrong else _INK, font)
    share_color = _WRONG if tile.is_wrong else _FAINT
    draw.text((x + _TILE, y + _TILE + 1), f"{tile.probability:.1%}", share_color, font, anchor="ra")
