"""Banks of fixed filters as networks: Sobel's gradient, and Gabor's simple and complex cells.

Path: zoo → **filters** → tapped. Nothing is learned: kernels are buffers, of one grey channel.

Coordinates are the image's: x to the right, y downwards, both in pixels. Images continue beyond their
borders with the value at the border, since zeros there would make edges that nobody drew; with that,
images of any size from one pixel have an answer.

Sources:
    I. Sobel, G. Feldman, "A 3x3 Isotropic Gradient Operator for Image Processing", talk at the Stanford
    Artificial Intelligence Project, 1968; written down in I. Sobel, "An Isotropic 3x3 Image Gradient
    Operator", 2014.
    J. G. Daugman, "Uncertainty relation for resolution in space, spatial frequency, and orientation
    optimized by two-dimensional visual cortical filters", JOSA A 2(7), 1985: the Gabor function in 2-D.
    N. Petkov, P. Kruizinga, "Computational models of visual neurons specialised in the detection of
    periodic and aperiodic oriented visual stimuli: bar and grating cells", Biological Cybernetics 76,
    1997: its parameters, and the bandwidth in octaves.
    E. H. Adelson, J. R. Bergen, "Spatiotemporal energy models for the perception of motion", JOSA A 2(2),
    1985: energy of a quadrature pair.
    M. Riesenhuber, T. Poggio, "Hierarchical models of object recognition in cortex", Nature Neuroscience
    2(11), 1999: the maximum over neighbouring cells.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from export import errors

_SIGMAS = 3.0
"""A kernel reaches as far as this many standard deviations of its envelope; there, it is down to 1.1 %."""

_KERNEL_PX_MAX = 255
"""The largest kernel's side, a bound on time and memory: what needs more is better done on smaller images."""


def sobel_kernels() -> torch.Tensor:
    """Return the kernels of d/dx and d/dy, (2, 1, 3, 3) float32, for cross-correlation.

    Per pixel: the central difference over 2 pixels, averaged over 3 lines with the weights 1, 2, 1, hence
    the divisor 8. All values are exact in float32. Source: Sobel & Feldman 1968.
    """
    difference, average = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([1.0, 2.0, 1.0])
    along_x = torch.outer(average, difference) / 8
    return torch.stack([along_x, along_x.T])[:, None]


class Sobel(nn.Module):
    """The gradient of intensity: `gx`, `gy` and `magnitude`, each (N, 1, H, W) float32, from (N, 1, H, W).

    In intensity per pixel: a ramp that rises by a per pixel has a gradient of a, except on the border
    that it meets, where the image ends and it is half of that. `gx` is positive where the image gets
    brighter to the right, `gy` where it does downwards; magnitude = sqrt(gx² + gy²).
    """

    kernels: torch.Tensor

    def __init__(self, classes: int = 0) -> None:
        super().__init__()
        _require_no_classes("sobel", classes)
        self.register_buffer("kernels", sobel_kernels())

    def forward(self, images_nchw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (gx, gy, magnitude)."""
        gx, gy = _pair(images_nchw, self.kernels)
        return gx, gy, torch.sqrt(gx * gx + gy * gy)


def gabor_sigma_px(wavelength_px: float, bandwidth_octaves: float) -> float:
    """Return the standard deviation, in pixels, of the envelope along the wave.

    The response to gratings falls to half at two wavelengths that are `bandwidth_octaves` apart:
    sigma / wavelength = sqrt(ln 2 / 2) / pi * (2^b + 1) / (2^b - 1), 0.56 for one octave.
    Source: Daugman 1985; in this form Petkov & Kruizinga 1997.
    """
    # (2^b + 1) / (2^b - 1) is 1 / tanh(b ln 2 / 2), which does not overflow.
    return wavelength_px * math.sqrt(math.log(2) / 2) / math.pi / math.tanh(bandwidth_octaves * math.log(2) / 2)


def gabor_kernel(
    wavelength_px: float, theta_rad: float, bandwidth_octaves: float = 1.0, aspect_ratio: float = 1.0
) -> torch.Tensor:
    """Return the even and the odd kernel, (2, S, S) float32 with S odd, for cross-correlation.

        x' = x cos theta + y sin theta,  y' = y cos theta - x sin theta
        envelope = exp(-(x'² + aspect_ratio² y'²) / (2 sigma²))
        even ∝ envelope * (cos(2 pi x' / wavelength) - c),  odd ∝ envelope * sin(2 pi x' / wavelength)

    c makes the even kernel sum to zero; the odd one does so by symmetry. Neither answers to uniform
    intensity. Both are scaled so that a grating of this wavelength and orientation and of amplitude a gives
    the energy a, whatever its phase. (Intensities from 0 to 1 are an amplitude of 1/2.)
    Source: Daugman 1985; parameters as in Petkov & Kruizinga 1997.

    Args:
        wavelength_px: of the preferred grating, from crest to crest; above 2.
        theta_rad: direction of the wave, from x towards y; the stripes are at right angles to it. 0 is
            for vertical stripes, pi/2 for horizontal ones. The odd kernel answers positively to what gets
            brighter in this direction.
        bandwidth_octaves: see `gabor_sigma_px`; above 0.
        aspect_ratio: of the envelope, across the stripes : along them; above 0. The smaller, the narrower
            the range of orientations, and the larger the kernel.

    Raises:
        FilterError: a parameter is out of its range, or the kernel would be wider than 255 pixels.
    """
    _require_gabor(wavelength_px, theta_rad, bandwidth_octaves, aspect_ratio)
    sigma_px = gabor_sigma_px(wavelength_px, bandwidth_octaves)
    radius_px = _radius_px(sigma_px * max(1.0, 1.0 / aspect_ratio))
    steps = torch.arange(-radius_px, radius_px + 1, dtype=torch.float64)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    across = x * math.cos(theta_rad) + y * math.sin(theta_rad)
    along = y * math.cos(theta_rad) - x * math.sin(theta_rad)
    envelope = torch.exp(-(across**2 + (aspect_ratio * along) ** 2) / (2 * sigma_px**2))
    phase_rad = 2 * math.pi / wavelength_px * across
    cosine, sine = torch.cos(phase_rad), torch.sin(phase_rad)
    even = envelope * (cosine - (envelope * cosine).sum() / envelope.sum())
    odd = envelope * sine
    # Symmetry makes even * sine and odd * cosine sum to zero: with these two at 1, the energy of the
    # preferred grating is cos² + sin² of its phase.
    return torch.stack([even / (even * cosine).sum(), odd / (odd * sine).sum()]).float()


class Gabor(nn.Module):
    """A bank of Gabor filters: `even`, `odd`, `energy` and `pooled`, float32, from (N, 1, H, W).

    K = wavelengths * orientations; the bank is ordered by wavelength as given, then by orientation: filter
    w * orientations + o has wavelengths_px[w] and theta_rad = o * pi / orientations.

    - `even`, `odd`, (N, K, H, W): simple cells, a quadrature pair;
    - `energy` = sqrt(even² + odd²), (N, K, H, W): complex cells, which do not care for the phase, that
      is, for where exactly the stripes are (Adelson & Bergen 1985). In units of intensity: the amplitude
      of the grating;
    - `pooled`, (N, K, ceil(H / 2), ceil(W / 2)): the maximum of energy over 3x3 cells around every second
      one (Riesenhuber & Poggio 1999).

    With the defaults, a filter's answer falls to half an octave apart and at ±19°, and some filter
    answers every grating from 4 to 8 pixels with at least 0.2 of its amplitude.

    Raises:
        FilterError: no wavelengths, fewer than one orientation, or see `gabor_kernel`.
        UnsupportedClasses: classes is not 0.
    """

    kernels: torch.Tensor

    def __init__(
        self,
        classes: int = 0,
        wavelengths_px: Sequence[float] = (4.0, 8.0),
        orientations: int = 4,
        bandwidth_octaves: float = 1.0,
        aspect_ratio: float = 1.0,
    ) -> None:
        super().__init__()
        _require_no_classes("gabor", classes)
        if not wavelengths_px or orientations < 1:
            raise errors.FilterError(
                f"a Gabor bank of {len(wavelengths_px)} wavelengths and {orientations} orientations is empty; "
                "name at least one of each"
            )
        pairs = [
            gabor_kernel(wavelength_px, number * math.pi / orientations, bandwidth_octaves, aspect_ratio)
            for wavelength_px in wavelengths_px
            for number in range(orientations)
        ]
        self.register_buffer("kernels", _as_one(pairs))

    def forward(self, images_nchw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (even, odd, energy, pooled)."""
        even, odd = _pair(images_nchw, self.kernels)
        energy = torch.sqrt(even * even + odd * odd)
        return even, odd, energy, F.max_pool2d(energy, 3, stride=2, padding=1)


def _as_one(pairs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return K pairs of kernels as (2 * K, 1, S, S): all even ones, then all odd ones, in the largest size.

    One convolution with zeros around the smaller kernels multiplies more than one for each size would,
    and takes less time in ONNX Runtime: 6.6 instead of 8.4 ms for the default bank and 224x224 pixels.
    """
    size_px = max(pair.shape[-1] for pair in pairs)
    padded = [F.pad(pair, ((size_px - pair.shape[-1]) // 2,) * 4) for pair in pairs]
    return torch.stack(padded, dim=1).flatten(0, 1)[:, None]


def _pair(images_nchw: torch.Tensor, kernels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the responses to the first and to the second half of the kernels, (2 * M, 1, S, S)."""
    radius_px = kernels.shape[-1] // 2
    padded = F.pad(images_nchw, (radius_px,) * 4, mode="replicate")
    first, second = F.conv2d(padded, kernels).chunk(2, dim=1)
    return first, second


def _require_no_classes(name: str, classes: int) -> None:
    if classes != 0:
        raise errors.UnsupportedClasses(f"{name} is a bank of filters, not a classifier; got {classes} classes, give 0")


def _require_gabor(wavelength_px: float, theta_rad: float, bandwidth_octaves: float, aspect_ratio: float) -> None:
    """Raise FilterError for what no kernel can be made of. Written so that NaN fails too."""
    if not 2 < wavelength_px < math.inf:
        raise errors.FilterError(
            f"wavelength_px is {wavelength_px}; expected more than 2: a wave that short has no odd part on a pixel "
            "grid, or looks like a longer one"
        )
    if not math.isfinite(theta_rad):
        raise errors.FilterError(f"theta_rad is {theta_rad}; expected a finite angle in radians")
    for name, value in (("bandwidth_octaves", bandwidth_octaves), ("aspect_ratio", aspect_ratio)):
        if not 0 < value < math.inf:
            raise errors.FilterError(f"{name} is {value}; expected a finite number above 0, such as 1")


def _radius_px(sigma_px: float) -> int:
    """Return how far a kernel of that standard deviation, along its longer axis, reaches from its centre."""
    reach_px = _SIGMAS * sigma_px
    if reach_px > _KERNEL_PX_MAX // 2:
        raise errors.FilterError(
            f"the Gabor kernel would reach {reach_px:.0f} pixels from its centre; expected {_KERNEL_PX_MAX // 2} at "
            "most: give a shorter wavelength, a wider bandwidth or a larger aspect ratio, or shrink the images"
        )
    return math.ceil(reach_px)
