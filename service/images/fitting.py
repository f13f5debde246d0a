"""Which part of an image becomes the row, and how EXIF's orientation turns it: numbers only.

Path: decode → **fitting** → decode.

Sizes are (width, height), boxes (left, top, right, bottom), both in pixels.
"""

import dataclasses

Size = tuple[int, int]
Box = tuple[float, float, float, float]

UPRIGHT = 1
"""EXIF's orientation of an image that is stored as it is to be seen."""

# (sides are swapped, then mirrored left-right, then mirrored top-bottom): from seen to stored.
_TO_STORED = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Fit:
    """The whole image is resized to `resized`; of that `crop` is the row."""

    resized: Size
    crop: tuple[int, int, int, int]

    @property
    def row(self) -> Size:
        """(width, height) of the row."""
        left, top, right, bottom = self.crop
        return (right - left, bottom - top)


def fit(size: Size, row: Size, shorter_side: int) -> Fit:
    """Return how an image of `size` becomes a row.

    Args:
        size: of the image.
        row: of the row.
        shorter_side: of the resized image, whose centre is the row; 0: each side to its own target.

    Source: torchvision.transforms.functional, Resize and CenterCrop: the longer side is truncated, the
    crop rounded.
    """
    if not shorter_side:
        return Fit(row, (0, 0, *row))
    width, height = (max(shorter_side, int(side * shorter_side / min(size))) for side in size)
    left, top = round((width - row[0]) / 2), round((height - row[1]) / 2)
    return Fit((width, height), (left, top, left + row[0], top + row[1]))


def source_box(fitted: Fit, size: Size) -> Box:
    """Return which box of an image of `size` the row shows."""
    across, down = size[0] / fitted.resized[0], size[1] / fitted.resized[1]
    left, top, right, bottom = fitted.crop
    # A last bit too much would be a box outside the image.
    return (left * across, top * down, min(right * across, size[0]), min(bottom * down, size[1]))


def turned(size: Size, orientation: int) -> Size:
    """Return the size of a stored image as seen, or of a seen one as stored."""
    return (size[1], size[0]) if _TO_STORED[orientation][0] else size


def stored_box(box: Box, stored: Size, orientation: int) -> Box:
    """Return where a box of the image as seen lies in the image as stored, whose size is `stored`."""
    is_swapped, is_mirrored, is_upside_down = _TO_STORED[orientation]
    left, top, right, bottom = box
    if is_swapped:
        left, top, right, bottom = top, left, bottom, right
    if is_mirrored:
        left, right = stored[0] - right, stored[0] - left
    if is_upside_down:
        top, bottom = stored[1] - bottom, stored[1] - top
    return (left, top, right, bottom)
