"""LeNet-5: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document
Recognition", Proceedings of the IEEE 86(11), 1998, section II.B.

Path: zoo → **lenet** → tapped. `LeNet5` is the form that is common today: C3 sees all maps of S2 (the
paper's table 1 leaves out some), pooling takes the maximum, activations are ReLU, and the output layer is
linear. `LeNet5Of1998` is the paper's own.
"""  # noqa: D205 - the title is the summary

import torch
from torch import nn
from torch.nn import functional as F

from export import errors

_TABLE_1 = """
    X . . . X X X . . X X X X . X X
    X X . . . X X X . . X X X X . X
    X X X . . . X X X . . X . X X X
    . X X X . . X X X X . . X . X X
    . . X X X . . X X X X . X X . X
    . . . X X X . . X X X X . X X X
"""
"""Which maps of S2 (rows) each map of C3 (columns) sees: 60 of the 96 pairs."""

_DIGITS = """
    ..###.. ...##.. .#####. .#####. ....##. ####### ..####. ####### .#####. .#####.
    .##.##. ..###.. ##...## ##...## ...###. ##..... .##..## ####### ##...## ##...##
    ##...## .####.. ##...## .....## ...###. ##..... ##..... .....## ##...## ##...##
    ##...## ...##.. .....## .....## ..####. ##..... ##..... .....## ##...## ##...##
    ##...## ...##.. .....## .....## ..#.##. ######. ##..... ....##. .##.##. ##...##
    ##...## ...##.. ....##. ..####. .##.##. ##...## ######. ....##. ..###.. .######
    ##...## ...##.. ...##.. ..####. .#..##. .....## ##...## ...##.. .##.##. .....##
    ##...## ...##.. ..##... .....## ##..##. .....## ##...## ...##.. ##...## .....##
    ##...## ...##.. .##.... .....## ####### .....## ##...## ..##... ##...## .....##
    ##...## ...##.. ##..... .....## ####### .....## ##...## ..##... ##...## .....##
    .##.##. ...##.. ##..... ##...## ....##. ##...## ##...## .##.... ##...## .##..##
    ..###.. .###### ####### .#####. ....##. .#####. .#####. .##.... .#####. ..####.
"""
"""The digits 0 to 9 as F6 shall see them, 7 wide and 12 high: the paper's idea, drawn anew."""


class LeNet5(nn.Module):
    """Images (N, 1, 32, 32) float32, normalised, to logits (N, classes) float32."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 6, 5)  # (N, 1, 32, 32) → (N, 6, 28, 28)       156 parameters
        self.s2 = nn.MaxPool2d(2)  # → (N, 6, 14, 14)
        self.c3 = nn.Conv2d(6, 16, 5)  # → (N, 16, 10, 10)                  2,416
        self.s4 = nn.MaxPool2d(2)  # → (N, 16, 5, 5)
        self.c5 = nn.Conv2d(16, 120, 5)  # → (N, 120, 1, 1)                48,120
        self.f6 = nn.Linear(120, 84)  # (N, 120) → (N, 84)                 10,164
        self.output = nn.Linear(84, classes)  # → (N, classes)                850 for 10 classes

    def forward(self, images_nchw: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        maps = self.s2(torch.relu(self.c1(images_nchw)))
        maps = self.s4(torch.relu(self.c3(maps)))
        features = torch.relu(self.c5(maps)).flatten(1)
        logits: torch.Tensor = self.output(torch.relu(self.f6(features)))
        return logits


class LeNet5Of1998(nn.Module):
    """Images (N, 1, 32, 32) float32 to logits (N, 10) float32, with background -0.1 and ink 1.175.

    The logits are the output units with their sign changed, so that the best is the largest: all are 0 at
    most. Cross-entropy of them is then the paper's criterion (9) without the rubbish class, j → infinity.

    Raises:
        UnsupportedClasses: `classes` is not 10: the codes of the output units are drawings of digits.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        if classes != 10:
            raise errors.UnsupportedClasses(
                f"lenet5-1998 cannot have {classes} classes, only 10: its output units hold drawings of the ten "
                "digits; take lenet5 for other classes"
            )
        self.c1 = nn.Sequential(nn.Conv2d(1, 6, 5), Squashing())  # → (N, 6, 28, 28)       156 parameters
        self.s2 = nn.Sequential(Subsampling(6), Squashing())  # → (N, 6, 14, 14)            12
        self.c3 = nn.Sequential(SparseConvolution(), Squashing())  # → (N, 16, 10, 10)   1,516
        self.s4 = nn.Sequential(Subsampling(16), Squashing())  # → (N, 16, 5, 5)            32
        self.c5 = nn.Sequential(nn.Conv2d(16, 120, 5), Squashing())  # → (N, 120, 1, 1) 48,120
        self.f6 = nn.Sequential(nn.Linear(120, 84), Squashing())  # (N, 120) → (N, 84)  10,164
        self.output = RadialBasis()  # → (N, 10)                                             0
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                _initialise(layer)

    def forward(self, images_nchw: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        maps = self.s2(self.c1(images_nchw))
        maps = self.s4(self.c3(maps))
        logits: torch.Tensor = self.output(self.f6(self.c5(maps).flatten(1)))
        return logits


class Squashing(nn.Module):
    """1.7159 tanh(2/3 a), any shape; it takes 1 to 1 and -1 to -1. Source: eq. (6) and appendix A."""

    def forward(self, sums: torch.Tensor) -> torch.Tensor:
        """Return the states of the units."""
        return 1.7159 * torch.tanh(2 / 3 * sums)


class Subsampling(nn.Module):
    """(N, C, H, W) to (N, C, H/2, W/2): per channel, coefficient * (sum of 2x2 inputs) + bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(_uniform(channels, 1, 1) / 4)
        self.bias = nn.Parameter(_uniform(channels, 1, 1) / 4)

    def forward(self, maps_nchw: torch.Tensor) -> torch.Tensor:
        """Return the sums, before squashing."""
        return F.avg_pool2d(maps_nchw, 2) * (4 * self.coefficient) + self.bias  # four times the mean is the sum


class SparseConvolution(nn.Module):
    """C3: (N, 6, 14, 14) to (N, 16, 10, 10), each map from 3 to 6 maps of S2 as in table 1.

    There is one 5x5 kernel for each connection, by C3 map and then by S2 map. `placement`, (96, 60) of
    zeros and ones, puts them into a dense weight by a matrix product, which is exact and which the export
    computes once and for all: in the graph there is one plain convolution.
    """

    placement: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        table = _cells(_TABLE_1)
        pairs = [(c3, s2) for c3 in range(16) for s2 in range(6) if table[s2][c3] == "X"]
        inputs = torch.tensor([sum(row[c3] == "X" for row in table) for c3 in range(16)])
        fan_in = 25 * inputs  # 75, 100 or 150
        self.kernels = nn.Parameter(_uniform(60, 5, 5) / fan_in[[c3 for c3, _ in pairs], None, None])
        self.bias = nn.Parameter(_uniform(16) / fan_in)
        self.register_buffer("placement", torch.eye(16 * 6)[:, [6 * c3 + s2 for c3, s2 in pairs]], persistent=False)

    def forward(self, maps_nchw: torch.Tensor) -> torch.Tensor:
        """Return the sums, before squashing."""
        weight = (self.placement @ self.kernels.flatten(1)).view(16, 6, 5, 5)
        return F.conv2d(maps_nchw, weight, self.bias)


class RadialBasis(nn.Module):
    """(N, 84) to (N, 10): minus the squared distance to the code of each digit, -1 and 1. Source: eq. (7)."""

    codes: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codes", digit_codes(), persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        difference = features[:, None] - self.codes  # (N, 10, 84)
        return -(difference * difference).sum(2)


def digit_codes() -> torch.Tensor:
    """Return what F6 shall show for each digit: (10, 84) float32 of -1 and 1 (ink), rows of 7 from the top."""
    drawings = ["".join(parts) for parts in zip(*_cells(_DIGITS), strict=True)]
    return torch.tensor([[1.0 if mark == "#" else -1.0 for mark in drawing] for drawing in drawings])


def _cells(table: str) -> list[list[str]]:
    return [line.split() for line in table.strip().splitlines()]


def _initialise(layer: nn.Conv2d | nn.Linear) -> None:
    bound = 2.4 / layer.weight[0].numel()
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound)


def _uniform(*shape: int) -> torch.Tensor:
    """Return values within ±2.4: initial weights once they are divided by the fan-in, as in appendix A."""
    return torch.empty(shape).uniform_(-2.4, 2.4)
