"""LeNet-5: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document
Recognition", Proceedings of the IEEE 86(11), 1998, section II.B.

The form that is common today: C3 sees all maps of S2 (the paper's table 1 leaves out some), pooling
takes the maximum, activations are ReLU, and the output layer is linear. 61,706 parameters.
"""  # noqa: D205 - the title is the summary

import torch
from torch import nn


class LeNet5(nn.Module):
    """Images (N, 1, 32, 32) float32, normalised, to logits (N, classes) float32."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 6, 5)  # (N, 1, 32, 32) → (N, 6, 28, 28)       156 parameters
        self.c3 = nn.Conv2d(6, 16, 5)  # (N, 6, 14, 14) → (N, 16, 10, 10)   2,416
        self.c5 = nn.Conv2d(16, 120, 5)  # (N, 16, 5, 5) → (N, 120, 1, 1)  48,120
        self.f6 = nn.Linear(120, 84)  # (N, 120) → (N, 84)                 10,164
        self.output = nn.Linear(84, classes)  # (N, 84) → (N, classes)        850 for 10 classes
        self.pool = nn.MaxPool2d(2)  # S2: 28 → 14, S4: 10 → 5

    def forward(self, images_nchw: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        maps = self.pool(torch.relu(self.c1(images_nchw)))
        maps = self.pool(torch.relu(self.c3(maps)))
        features = torch.relu(self.c5(maps)).flatten(1)
        logits: torch.Tensor = self.output(torch.relu(self.f6(features)))
        return logits
