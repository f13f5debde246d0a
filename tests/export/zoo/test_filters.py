"""Sobel and Gabor: known answers, units, conventions, and the same from the exported graph."""

import collections
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from export import errors, runtime, tapped, trace, zoo
from export.zoo import filters

Array = NDArray[np.float64]

WAVELENGTH_PX = 6.0


def grating(
    theta_rad: float, wavelength_px: float = WAVELENGTH_PX, phase_rad: float = 0.0, size_px: int = 65
) -> torch.Tensor:
    """A wave of amplitude 1 that travels along theta, (size, size) float32; the phase is that of the middle."""
    steps = np.arange(size_px) - size_px // 2
    y, x = np.meshgrid(steps, steps, indexing="ij")
    along = x * math.cos(theta_rad) + y * math.sin(theta_rad)
    return torch.from_numpy(np.cos(2 * math.pi * along / wavelength_px + phase_rad)).float()


def answer(kernel: torch.Tensor, image_hw: torch.Tensor) -> tuple[float, float]:
    """What (even, odd) say in the middle of an image that is larger than they are."""
    margin = (image_hw.shape[-1] - kernel.shape[-1]) // 2
    window = image_hw[margin : margin + kernel.shape[-1], margin : margin + kernel.shape[-1]]
    even, odd = (kernel.double() * window).sum((1, 2)).tolist()
    return even, odd


def energy(kernel: torch.Tensor, image_hw: torch.Tensor) -> float:
    return math.hypot(*answer(kernel, image_hw))


def sobel(image_hw: Array) -> list[Array]:
    """(gx, gy, magnitude), each (H, W)."""
    with torch.inference_mode():
        maps = filters.Sobel(0)(torch.from_numpy(image_hw).float()[None, None])
    return [single[0, 0].double().numpy() for single in maps]


def noise(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).random(shape, np.float32)


def test_sobel_of_one_bright_pixel_is_the_hand_computed_answer() -> None:
    image_hw = np.zeros((5, 5))
    image_hw[2, 2] = 8
    gx, gy, magnitude = sobel(image_hw)
    assert gx.tolist() == [[0] * 5, [0, 1, 0, -1, 0], [0, 2, 0, -2, 0], [0, 1, 0, -1, 0], [0] * 5]
    assert gy.tolist() == [[0] * 5, [0, 1, 2, 1, 0], [0] * 5, [0, -1, -2, -1, 0], [0] * 5]
    assert np.allclose(magnitude[1], [0, math.sqrt(2), 2, math.sqrt(2), 0])


def test_sobel_is_in_intensity_per_pixel_with_x_to_the_right_and_y_downwards() -> None:
    y, x = np.mgrid[:7, :9]
    gx, gy, magnitude = (single[1:-1, 1:-1] for single in sobel(0.25 * x - 3.0 * y))
    assert (gx == 0.25).all()
    assert (gy == -3.0).all()
    assert np.allclose(magnitude, math.hypot(0.25, 3.0))


def test_sobel_sees_half_of_a_ramp_at_the_border_it_meets_and_all_of_it_at_the_others() -> None:
    gx, gy, _ = sobel(np.mgrid[:6, :6][1])
    assert (gx[:, [0, -1]] == 0.5).all()
    assert (gx[:, 1:-1] == 1).all()
    assert not gy.any()


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (20, 30)])
def test_sobel_is_scipys_divided_by_8(size: tuple[int, int]) -> None:
    image_hw = noise(*size).astype(np.float64)
    gx, gy, magnitude = sobel(image_hw)
    expected_x, expected_y = (ndimage.sobel(image_hw, axis, mode="nearest") / 8 for axis in (1, 0))
    assert np.abs(gx - expected_x).max() < 1e-6
    assert np.abs(gy - expected_y).max() < 1e-6
    assert np.abs(magnitude - np.hypot(expected_x, expected_y)).max() < 1e-6


def test_gabor_kernel_is_the_published_formula_up_to_scale_and_the_even_mean() -> None:
    wavelength_px, theta_rad, sigma_px, aspect_ratio = 5.0, 0.7, 0.5622 * 5.0, 0.6
    kernel = filters.gabor_kernel(wavelength_px, theta_rad, 1.0, aspect_ratio).double().numpy()
    radius_px = kernel.shape[-1] // 2
    envelope, wave = np.empty(kernel.shape[1:]), np.empty(kernel.shape[1:], complex)
    for y in range(-radius_px, radius_px + 1):
        for x in range(-radius_px, radius_px + 1):
            turned = complex(x, y) * complex(math.cos(theta_rad), -math.sin(theta_rad))  # x' + i y'
            here = (y + radius_px, x + radius_px)
            envelope[here] = math.exp(-(turned.real**2 + (aspect_ratio * turned.imag) ** 2) / (2 * sigma_px**2))
            wave[here] = np.exp(2j * math.pi * turned.real / wavelength_px)
    gabor = envelope * wave
    even, odd = gabor.real - envelope * gabor.real.sum() / envelope.sum(), gabor.imag
    for mine, published in zip(kernel, (even, odd), strict=True):
        assert np.abs(mine / np.abs(mine).max() - published / np.abs(published).max()).max() < 1e-4


@pytest.mark.parametrize("bandwidth_octaves", [0.7, 1.0, 2.0])
@pytest.mark.parametrize("wavelength_px", [2.1, 4.0, 7.3])
def test_gabor_kernel_is_odd_sized_reaches_three_sigmas_and_sums_to_zero(
    wavelength_px: float, bandwidth_octaves: float
) -> None:
    kernel = filters.gabor_kernel(wavelength_px, 0.4, bandwidth_octaves, 0.8)
    reach_px = 3 * filters.gabor_sigma_px(wavelength_px, bandwidth_octaves) / 0.8
    assert kernel.dtype == torch.float32
    assert kernel.shape == (2, *(2 * math.ceil(reach_px) + 1,) * 2)
    assert kernel.double().sum((1, 2)).abs().max() < 1e-6


@pytest.mark.parametrize("parameters", [(WAVELENGTH_PX, 0.0), (2.5, 1.1, 1.5), (9.7, 2.0, 1.0, 0.7), (4, -0.4, 1, 2)])
@pytest.mark.parametrize("phase_rad", [0.0, 0.9, math.pi / 2, 4.0])
def test_the_preferred_grating_has_the_energy_of_its_amplitude_at_any_phase(
    parameters: tuple[float, ...], phase_rad: float
) -> None:
    kernel = filters.gabor_kernel(*parameters)
    wave = grating(parameters[1], parameters[0], phase_rad, size_px=101)
    assert answer(kernel, wave) == pytest.approx((math.cos(phase_rad), -math.sin(phase_rad)), abs=1e-5)
    assert energy(kernel, wave) == pytest.approx(1, abs=1e-5)
    assert energy(kernel, (1 + wave) / 2) == pytest.approx(0.5, abs=1e-5)  # intensities from 0 to 1


def test_theta_is_the_direction_of_the_wave_from_x_towards_y() -> None:
    y, x = np.mgrid[:65, :65]
    vertical_stripes = torch.from_numpy(np.cos(2 * math.pi * x / WAVELENGTH_PX))
    assert energy(filters.gabor_kernel(WAVELENGTH_PX, 0.0), vertical_stripes) > 0.99
    assert energy(filters.gabor_kernel(WAVELENGTH_PX, 0.0), vertical_stripes.T) < 0.01
    assert energy(filters.gabor_kernel(WAVELENGTH_PX, math.pi / 2), vertical_stripes.T) > 0.99
    downwards = torch.from_numpy(np.cos(2 * math.pi * (x + y) / math.sqrt(2) / WAVELENGTH_PX))  # to the lower right
    assert energy(filters.gabor_kernel(WAVELENGTH_PX, math.pi / 4), downwards) > 0.99
    assert energy(filters.gabor_kernel(WAVELENGTH_PX, -math.pi / 4), downwards) < 0.01


@pytest.mark.parametrize("theta_rad", [0.0, 0.8, 2.5, 4.0])
def test_the_odd_kernel_answers_positively_to_what_gets_brighter_along_theta(theta_rad: float) -> None:
    kernel = filters.gabor_kernel(WAVELENGTH_PX, theta_rad)
    edge = (grating(theta_rad, 1000.0, -math.pi / 2) > 0).float()  # a sine's rise: dark before the middle
    _, odd = answer(kernel, edge)
    # Without a grid: sqrt(2) D(z) / sqrt(pi / 2) with Dawson's D and z = pi sqrt(2) sigma / wavelength = 2.5.
    assert odd == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("bandwidth_octaves", [1.0, 1.5])
def test_the_answer_falls_to_half_at_wavelengths_one_bandwidth_apart(bandwidth_octaves: float) -> None:
    kernel = filters.gabor_kernel(WAVELENGTH_PX, 0.3, bandwidth_octaves)
    middle = (1 + 2**bandwidth_octaves) / 2  # half-way between the two frequencies, in units of the lower one
    longer, shorter = WAVELENGTH_PX * middle, WAVELENGTH_PX * middle / 2**bandwidth_octaves
    for wavelength_px in (longer, shorter):
        answers = [energy(kernel, grating(0.3, wavelength_px, phase_rad)) for phase_rad in np.arange(8) * math.pi / 4]
        assert np.mean(answers) == pytest.approx(0.5, abs=0.03)


def test_sigma_is_0_56_wavelengths_for_an_octave() -> None:
    assert filters.gabor_sigma_px(10, 1) == pytest.approx(5.62, abs=0.005)


def test_a_smaller_aspect_ratio_narrows_the_range_of_orientations() -> None:
    turned = grating(0.3)
    answers = [energy(filters.gabor_kernel(WAVELENGTH_PX, 0.0, 1.0, ratio), turned) for ratio in (2.0, 1.0, 0.5)]
    assert answers[0] > answers[1] + 0.05 > answers[2] + 0.1


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ((2.0, 0.0), "wavelength_px is 2.0; expected more than 2"),
        ((math.nan, 0.0), "wavelength_px is nan"),
        ((4.0, math.inf), "theta_rad is inf; expected a finite angle"),
        ((4.0, 0.0, 0.0), "bandwidth_octaves is 0.0; expected a finite number above 0"),
        ((4.0, 0.0, 1.0, -1.0), "aspect_ratio is -1.0; expected a finite number above 0"),
        ((4.0, 0.0, 1e-9), "pixels from its centre; expected 127 at most: give a shorter wavelength, a wider"),
        ((4.0, 0.0, 1.0, 1e-320), "reach inf pixels from its centre"),
    ],
)
def test_an_impossible_filter_says_what_is_wrong(parameters: tuple[float, ...], sentence: str) -> None:
    with pytest.raises(errors.FilterError) as caught:
        filters.gabor_kernel(*parameters)
    assert sentence in str(caught.value)


def test_an_empty_bank_and_classes_are_refused() -> None:
    with pytest.raises(errors.FilterError, match="0 wavelengths and 4 orientations is empty"):
        filters.Gabor(0, wavelengths_px=())
    with pytest.raises(errors.FilterError, match="1 wavelengths and 0 orientations is empty"):
        filters.Gabor(0, wavelengths_px=(4.0,), orientations=0)
    for name in ("sobel", "gabor"):
        with pytest.raises(errors.UnsupportedClasses, match=f"{name} is a bank of filters.*got 10 classes, give 0"):
            zoo.find(name).build(10)


def test_the_bank_is_ordered_by_wavelength_then_orientation_and_computes_what_it_says() -> None:
    wavelengths_px = (5.0, 3.0)
    bank = filters.Gabor(0, wavelengths_px, orientations=3)
    image_hw = noise(12, 31)
    even, odd, complex_cells, pooled = (maps[0].numpy() for maps in bank(torch.from_numpy(image_hw)[None, None]))
    assert even.shape == odd.shape == complex_cells.shape == (6, 12, 31)
    for number in range(6):
        kernel = filters.gabor_kernel(wavelengths_px[number // 3], (number % 3) * math.pi / 3).double().numpy()
        expected = [ndimage.correlate(image_hw.astype(np.float64), one, mode="nearest") for one in kernel]
        assert np.abs(np.stack([even[number], odd[number]]) - expected).max() < 1e-5
        assert np.abs(complex_cells[number] - np.hypot(*expected)).max() < 1e-5
        largest = ndimage.maximum_filter(complex_cells[number], 3, mode="nearest")
        assert np.array_equal(pooled[number], largest[::2, ::2])


def test_the_default_bank_falls_to_half_at_19_degrees_and_answers_every_grating_from_4_to_8_pixels() -> None:
    kernels = [
        filters.gabor_kernel(wavelength_px, number * math.pi / 4) for wavelength_px in (4, 8) for number in range(4)
    ]
    assert energy(kernels[4], grating(math.radians(19), 8.0)) == pytest.approx(0.5, abs=0.03)
    best = [
        max(energy(kernel, grating(theta_rad, wavelength_px)) for kernel in kernels)
        for wavelength_px in np.linspace(4, 8, 9)
        for theta_rad in np.linspace(0, math.pi, 16, endpoint=False)
    ]
    assert 0.2 < min(best) < 0.3
    assert max(best) < 1.01


def test_nothing_answers_to_uniform_intensity_not_even_at_the_borders() -> None:
    uniform = torch.full((1, 1, 9, 12), 0.7)
    for name in ("sobel", "gabor"):
        assert max(maps.abs().max().item() for maps in zoo.find(name).build(0)(uniform)) < 1e-6


@pytest.mark.parametrize("name", ["sobel", "gabor"])
def test_the_exported_bank_computes_the_same_at_any_size_with_plain_operators(name: str) -> None:
    architecture = zoo.find(name)
    network = architecture.build(architecture.classes).eval()
    assert not list(network.parameters())
    graph = trace.trace(tapped.Tapped(network, {}), (1, 24, 20), architecture.outputs, is_any_size=True)
    operators = collections.Counter(node.op_type for node in graph.graph.node)
    plain = {"Pad": 1, "Conv": 1, "Split": 1, "Mul": 2, "Add": 1, "Sqrt": 1}
    assert operators == (plain if name == "sobel" else plain | {"MaxPool": 1})
    session = runtime.Session(graph)
    for shape in ((1, 1, 1, 1), (3, 1, 3, 5), (2, 1, 24, 20), (1, 1, 97, 64)):
        image = noise(*shape)
        found = session.run({"image": image})
        for reference in (network.float(), network.double()):
            expected = reference(torch.from_numpy(image).to(next(reference.buffers()).dtype))
            for output, maps in zip(architecture.outputs, expected, strict=True):
                gate = 1e-5 * max(1.0, maps.abs().max().item())
                assert found[output].shape == maps.shape
                assert np.abs(found[output] - maps.numpy()).max() <= gate
