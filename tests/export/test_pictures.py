"""Results as pictures: what a person must see is there."""

import pathlib

import numpy as np
from PIL import Image

from export import pictures


def test_the_contact_sheet_puts_errors_first_and_red(tmp_path: pathlib.Path) -> None:
    blank = np.zeros((32, 32), np.uint8)
    right, wrong = pictures.Tile(blank, "1", "1", 0.9), pictures.Tile(blank, "1", "7", 0.99)
    for name, tiles in (("good", [right] * 30), ("bad", [right] * 29 + [wrong])):
        pictures.contact_sheet(tiles, tmp_path / f"{name}.png", "title")
    good, bad = (np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int) for name in ("good", "bad"))
    assert good.shape == bad.shape
    reddish = (bad[:, :, 0] - bad[:, :, 1]) > 100
    assert not ((good[:, :, 0] - good[:, :, 1]) > 100).any()
    rows, columns = np.nonzero(reddish)
    assert rows.size > 50
    assert rows.max() < 130  # the first row of tiles
    assert columns.max() < bad.shape[1] / 10
