"""Maps as pictures."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from service.images import sheets


def drawn(maps_chw: np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(sheets.png(maps_chw, *sheets.span(maps_chw)))))


@pytest.mark.parametrize(("channels", "size"), [(1, (4, 3)), (2, (4, 7)), (5, (9, 11)), (16, (19, 15))])
def test_channels_lie_in_rows_with_a_pixel_between(channels: int, size: tuple[int, int]) -> None:
    assert drawn(np.zeros((channels, 4, 3), np.float32)).shape == size


def test_black_is_the_smallest_and_white_the_largest_of_all() -> None:
    sheet = drawn(np.array([[[0.0, 1.0]], [[2.0, 4.0]]], np.float32))
    assert sheet.tolist() == [[0, 64, 128, 128, 255]]


@given(
    arrays.arrays(
        np.float32,
        st.tuples(*3 * [st.integers(1, 5)]),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
    )
)
def test_any_numbers_make_a_picture(maps_chw: np.ndarray) -> None:
    low, high = sheets.span(maps_chw)
    assert np.isfinite((low, high)).all()
    assert drawn(maps_chw).dtype == np.uint8
