"""Convolution as exported: its formulas, its paddings, its algebra; SciPy in float64 is the truth.

Values are small integers, of which float32 makes no rounding errors: what is equal must be equal exactly.
"""

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy import signal

from tests.export.zoo import graphs

Array = NDArray[np.float32]

KERNELS_HW = [(3, 3), (2, 3), (4, 2)]
"""Odd, even, and not square."""

checked = hypothesis.settings(max_examples=15, deadline=None, derandomize=True, database=None)


def integers(*shape: int) -> strategies.SearchStrategy[Array]:
    return arrays.arrays(np.float32, shape, elements=strategies.integers(-8, 8).map(float))


def sides(least: int) -> strategies.SearchStrategy[int]:
    return strategies.integers(least, 11)


def slide(image_lhw: Array, kernels: Array) -> Array:
    """Z[i,j,k] = sum over l,m,n of V[l, j+m-1, k+n-1] K[i,l,m,n], counted from 1 as it is written."""
    maps, channels, height, width = kernels.shape
    rows, columns = image_lhw.shape[1] - height + 1, image_lhw.shape[2] - width + 1
    answer = np.zeros((maps, rows, columns), np.float32)
    for i, j, k in itertools.product(range(1, maps + 1), range(1, rows + 1), range(1, columns + 1)):
        for l, m, n in itertools.product(range(1, channels + 1), range(1, height + 1), range(1, width + 1)):  # noqa: E741
            answer[i - 1, j - 1, k - 1] += (
                image_lhw[l - 1, (j + m - 1) - 1, (k + n - 1) - 1] * kernels[i - 1, l - 1, m - 1, n - 1]
            )
    return answer


def stride_over(image_lhw: Array, kernels: Array, s: int) -> Array:
    """Z[i,j,k] = sum over l,m,n of V[l, (j-1)s+m, (k-1)s+n] K[i,l,m,n], counted from 1 as it is written."""
    maps, channels, height, width = kernels.shape
    rows, columns = (image_lhw.shape[1] - height) // s + 1, (image_lhw.shape[2] - width) // s + 1
    answer = np.zeros((maps, rows, columns), np.float32)
    for i, j, k in itertools.product(range(1, maps + 1), range(1, rows + 1), range(1, columns + 1)):
        for l, m, n in itertools.product(range(1, channels + 1), range(1, height + 1), range(1, width + 1)):  # noqa: E741
            answer[i - 1, j - 1, k - 1] += (
                image_lhw[l - 1, ((j - 1) * s + m) - 1, ((k - 1) * s + n) - 1] * kernels[i - 1, l - 1, m - 1, n - 1]
            )
    return answer


def one(image_hw: Array, kernel_hw: Array, padding: str = graphs.VALID) -> Array:
    """Correlate one plane with one kernel."""
    ((answer,),) = graphs.correlate(image_hw[None, None], kernel_hw[None, None], padding)
    return np.asarray(answer)


def convolve(image_hw: Array, kernel_hw: Array) -> Array:
    """True convolution, full: correlation with the flipped kernel."""
    return one(image_hw, flipped(kernel_hw), graphs.FULL)


def flipped(plane_hw: Array) -> Array:
    return plane_hw[::-1, ::-1]


@pytest.mark.parametrize("kernel_px", [3, 4])
@checked
@hypothesis.given(drawn=strategies.data())
def test_in_one_dimension_it_is_the_sliding_sum(kernel_px: int, drawn: strategies.DataObject) -> None:
    line = drawn.draw(integers(drawn.draw(sides(kernel_px))))
    kernel = drawn.draw(integers(kernel_px))
    found = graphs.correlate1d(line[None, None], kernel[None, None])[0, 0]
    sums = [sum(line[j + m] * kernel[m] for m in range(kernel_px)) for j in range(len(line) - kernel_px + 1)]
    assert found.tolist() == sums
    assert np.array_equal(found, np.convolve(line, kernel[::-1], "valid"))
    assert np.array_equal(found, signal.correlate(line.astype(np.float64), kernel, "valid"))


@pytest.mark.parametrize("kernel_hw", KERNELS_HW)
@checked
@hypothesis.given(drawn=strategies.data())
def test_all_channels_are_summed_as_the_formula_says(kernel_hw: tuple[int, int], drawn: strategies.DataObject) -> None:
    batch, maps, channels = (drawn.draw(strategies.integers(1, 3)) for _ in range(3))
    images = drawn.draw(integers(batch, channels, drawn.draw(sides(kernel_hw[0])), drawn.draw(sides(kernel_hw[1]))))
    kernels = drawn.draw(integers(maps, channels, *kernel_hw))
    found = graphs.correlate(images, kernels)
    for image_lhw, answer in zip(images, found, strict=True):
        assert np.array_equal(answer, slide(image_lhw, kernels))


@pytest.mark.parametrize(("kernel_hw", "stride"), [((3, 3), 2), ((2, 3), 3)])
@checked
@hypothesis.given(drawn=strategies.data())
def test_a_stride_skips_places_of_the_same_sum(
    kernel_hw: tuple[int, int], stride: int, drawn: strategies.DataObject
) -> None:
    image_lhw = drawn.draw(integers(2, drawn.draw(sides(kernel_hw[0])), drawn.draw(sides(kernel_hw[1]))))
    kernels = drawn.draw(integers(2, 2, *kernel_hw))
    found = graphs.correlate(image_lhw[None], kernels, stride=stride)[0]
    assert np.array_equal(found, stride_over(image_lhw, kernels, stride))
    assert np.array_equal(found, graphs.correlate(image_lhw[None], kernels)[0, :, ::stride, ::stride])


@pytest.mark.parametrize("padding", [graphs.VALID, graphs.SAME, graphs.FULL])
@pytest.mark.parametrize("kernel_hw", KERNELS_HW)
@checked
@hypothesis.given(drawn=strategies.data())
def test_zero_padding_gives_the_part_of_the_full_answer_that_it_promises(
    kernel_hw: tuple[int, int], padding: str, drawn: strategies.DataObject
) -> None:
    least_hw = kernel_hw if padding == graphs.VALID else (1, 1)
    image_hw = drawn.draw(integers(*(drawn.draw(sides(least)) for least in least_hw)))
    kernel = drawn.draw(integers(*kernel_hw))
    # The oracle crops the full answer, because SciPy centres "same" of even kernels in more than one way.
    expected = signal.correlate2d(image_hw.astype(np.float64), kernel, "full")
    for axis, (image_px, kernel_px) in enumerate(zip(image_hw.shape, kernel_hw, strict=True)):
        first, count = {
            graphs.VALID: (kernel_px - 1, image_px - kernel_px + 1),
            graphs.SAME: (kernel_px // 2, image_px),
            graphs.FULL: (0, image_px + kernel_px - 1),
        }[padding]
        expected = expected.take(range(first, first + count), axis)
    assert np.array_equal(one(image_hw, kernel, padding), expected)


@pytest.mark.parametrize("kernel_hw", KERNELS_HW)
@checked
@hypothesis.given(drawn=strategies.data())
def test_correlation_with_the_flipped_kernel_is_convolution(
    kernel_hw: tuple[int, int], drawn: strategies.DataObject
) -> None:
    image_hw = drawn.draw(integers(drawn.draw(sides(1)), drawn.draw(sides(1))))
    kernel = drawn.draw(integers(*kernel_hw))
    assert np.array_equal(convolve(image_hw, kernel), signal.convolve2d(image_hw.astype(np.float64), kernel, "full"))


@pytest.mark.parametrize("sizes_hw", list(itertools.combinations(KERNELS_HW, 2)))
@checked
@hypothesis.given(drawn=strategies.data())
def test_convolution_commutes_and_correlation_comes_back_flipped(
    sizes_hw: tuple[tuple[int, int], tuple[int, int]], drawn: strategies.DataObject
) -> None:
    first, second = (drawn.draw(integers(*size)) for size in sizes_hw)
    assert np.array_equal(convolve(first, second), convolve(second, first))
    assert np.array_equal(one(first, second, graphs.FULL), flipped(one(second, first, graphs.FULL)))


def test_correlation_does_not_commute() -> None:
    ramp, corner = np.arange(9, dtype=np.float32).reshape(3, 3), np.zeros((3, 3), np.float32)
    corner[0, 0] = 1
    assert not np.array_equal(one(ramp, corner, graphs.FULL), one(corner, ramp, graphs.FULL))


@checked
@hypothesis.given(drawn=strategies.data(), factors=strategies.tuples(*[strategies.integers(-5, 5)] * 2))
def test_it_is_linear_in_the_image_and_in_the_kernel(drawn: strategies.DataObject, factors: tuple[int, int]) -> None:
    image, other_image = (drawn.draw(integers(1, 2, 7, 6)) for _ in range(2))
    kernel, other_kernel = (drawn.draw(integers(2, 2, 3, 3)) for _ in range(2))
    a, b = (np.float32(factor) for factor in factors)
    answer = graphs.correlate(image, kernel)
    assert np.array_equal(
        graphs.correlate(a * image + b * other_image, kernel), a * answer + b * graphs.correlate(other_image, kernel)
    )
    assert np.array_equal(
        graphs.correlate(image, a * kernel + b * other_kernel), a * answer + b * graphs.correlate(image, other_kernel)
    )


@checked
@hypothesis.given(seed=strategies.integers(0, 2**32 - 1), shape=strategies.tuples(sides(3), sides(3)))
def test_real_values_stay_within_float32s_rounding(seed: int, shape: tuple[int, int]) -> None:
    random = np.random.default_rng(seed)
    image_lhw, kernels = random.normal(size=(5, *shape)), random.normal(size=(2, 5, 3, 3))
    found = graphs.correlate(image_lhw[None].astype(np.float32), kernels.astype(np.float32))[0]
    for answer, kernel in zip(found, kernels, strict=True):
        planes = zip(image_lhw, kernel, strict=True)
        expected = sum(signal.correlate2d(plane, weights, "valid") for plane, weights in planes)
        assert np.abs(answer - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())
