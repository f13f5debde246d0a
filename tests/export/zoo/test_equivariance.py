"""What moves with the image and what does not care: convolution, strides, pooling, complex cells, Sobel."""

import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from numpy.typing import NDArray

from tests.export.zoo import graphs

Array = NDArray[np.float32]

MARGIN_PX = 8
"""Zeros around the image: more than the kernel and the largest shift together, so that nothing is cut off."""

checked = hypothesis.settings(max_examples=20, deadline=None, derandomize=True, database=None)
shifts = strategies.integers(-4, 4)
seeds = strategies.integers(0, 2**32 - 1)


def framed(seed: int, side_px: int = 14) -> tuple[Array, Array]:
    """(image in its margin, kernels): normal noise."""
    random = np.random.default_rng(seed)
    inside = random.normal(size=(1, 2, side_px, side_px)).astype(np.float32)
    image = np.pad(inside, ((0, 0), (0, 0), (MARGIN_PX, MARGIN_PX), (MARGIN_PX, MARGIN_PX)))
    return image, random.normal(size=(3, 2, 3, 3)).astype(np.float32)


def shifted(maps: Array, down_px: int, right_px: int) -> Array:
    return np.roll(maps, (down_px, right_px), axis=(2, 3))


@checked
@hypothesis.given(seed=seeds, down_px=shifts, right_px=shifts)
def test_convolution_moves_with_the_image_bit_for_bit(seed: int, down_px: int, right_px: int) -> None:
    image, kernels = framed(seed)
    moved = graphs.correlate(shifted(image, down_px, right_px), kernels)
    assert np.array_equal(moved, shifted(graphs.correlate(image, kernels), down_px, right_px))


@checked
@hypothesis.given(seed=seeds, down=strategies.integers(-2, 2), right=strategies.integers(-2, 2))
def test_stride_2_moves_with_even_shifts_bit_for_bit(seed: int, down: int, right: int) -> None:
    image, kernels = framed(seed)
    moved = graphs.correlate(shifted(image, 2 * down, 2 * right), kernels, stride=2)
    assert np.array_equal(moved, shifted(graphs.correlate(image, kernels, stride=2), down, right))


def test_stride_2_does_not_move_with_odd_shifts() -> None:
    image, kernels = framed(seed=1)
    moved = graphs.correlate(shifted(image, 0, 1), kernels, stride=2)
    before = graphs.correlate(image, kernels, stride=2)
    assert min(np.abs(moved - shifted(before, 0, cells)).max() for cells in (0, 1)) > 1


@pytest.mark.parametrize("seed", range(5))
def test_the_larger_the_pool_the_more_stays_as_it_was_after_a_shift(seed: int) -> None:
    random = np.random.default_rng(seed)
    image, kernels = (random.normal(size=shape).astype(np.float32) for shape in ((1, 2, 48, 48), (3, 2, 3, 3)))
    unchanged = []
    for size_px in (1, 2, 3, 5):
        before, after = (graphs.pooled(picture, kernels, size_px) for picture in (image, shifted(image, 0, 1)))
        unchanged.append(float((before == after)[:, :, :, 1:].mean()))  # the first column came around
    assert unchanged[0] < 0.01
    assert unchanged[0] < unchanged[1] < unchanged[2] < unchanged[3]
    assert unchanged[3] > 0.5


@pytest.mark.parametrize(
    ("wavelength_px", "theta_rad", "share"),
    [(8.0, 0.0, 1e-6), (8.0, math.pi / 4, 1e-6), (7.0, 0.2, 0.01), (9.0, 0.6, 0.01)],
)
def test_complex_cells_do_not_care_for_the_phase_of_a_drifting_grating(
    wavelength_px: float, theta_rad: float, share: float
) -> None:
    y, x = np.mgrid[:48, :48]
    along = x * math.cos(theta_rad) + y * math.sin(theta_rad)
    phases_rad = np.arange(16)[:, None, None] * math.pi / 8
    drifting = 0.5 + 0.5 * np.cos(2 * math.pi * along / wavelength_px - phases_rad)
    found = graphs.bank("gabor", drifting[:, None].astype(np.float32))
    filter_number = 4 + round(theta_rad / (math.pi / 4))  # of 8 px, the nearest orientation
    even, energy = (found[name][:, filter_number, 20:28, 20:28] for name in ("even", "energy"))
    assert energy.mean() > 0.1
    assert (energy.var(axis=0) < share * even.var(axis=0)).all()


@checked
@hypothesis.given(
    slopes=strategies.tuples(*[strategies.integers(-64, 64)] * 2),
    height=strategies.integers(3, 20),
    width=strategies.integers(3, 20),
)
def test_sobel_of_a_ramp_is_its_slope(slopes: tuple[int, int], height: int, width: int) -> None:
    right, down = (slope / 64 for slope in slopes)  # exact in float32
    y, x = np.mgrid[:height, :width]
    ramp = (right * x + down * y).astype(np.float32)
    found = {name: maps[0, 0, 1:-1, 1:-1] for name, maps in graphs.bank("sobel", ramp[None, None]).items()}
    assert (found["gx"] == right).all()
    assert (found["gy"] == down).all()
    assert np.allclose(found["magnitude"], math.hypot(right, down), rtol=1e-6)


@checked
@hypothesis.given(seed=seeds, factors=strategies.tuples(*[strategies.integers(-5, 5)] * 2))
def test_the_gradient_is_linear_and_its_magnitude_is_not(seed: int, factors: tuple[int, int]) -> None:
    first, second = np.random.default_rng(seed).integers(0, 256, (2, 1, 1, 9, 7)).astype(np.float32)
    a, b = factors
    both, one, other = (graphs.bank("sobel", image) for image in (a * first + b * second, first, second))
    for name in ("gx", "gy"):
        assert np.array_equal(both[name], a * one[name] + b * other[name])
    assert (both["magnitude"] <= abs(a) * one["magnitude"] + abs(b) * other["magnitude"] + 1e-3).all()
