"""GoogLeNet: C. Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, table 1.

Path: zoo → **googlenet** → tapped. The form that torchvision has weights for: batch normalisation after
each convolution (S. Ioffe, C. Szegedy, arXiv:1502.03167, 2015) instead of response normalisation, and
3x3 convolutions where the paper has 5x5. Without the auxiliary classifiers, which only serve training.
"""

import torch
from torch import nn


class GoogLeNet(nn.Module):
    """Images (N, 3, H, W) float32, normalised, 224x224 by design, to logits (N, classes) float32.

    Keys are torchvision's. All pooling rounds sizes up, as in the paper's implementation.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = Convolution(3, 64, 7, stride=2, padding=3)  # (N, 64, 112, 112)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)  # (N, 64, 56, 56)
        self.conv2 = Convolution(64, 64, 1)
        self.conv3 = Convolution(64, 192, 3, padding=1)  # (N, 192, 56, 56)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)  # (N, 192, 28, 28)
        self.inception3a = Inception(192, 64, (96, 128), (16, 32), 32)  # (N, 256, 28, 28)
        self.inception3b = Inception(256, 128, (128, 192), (32, 96), 64)  # (N, 480, 28, 28)
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)  # (N, 480, 14, 14)
        self.inception4a = Inception(480, 192, (96, 208), (16, 48), 64)  # (N, 512, 14, 14)
        self.inception4b = Inception(512, 160, (112, 224), (24, 64), 64)
        self.inception4c = Inception(512, 128, (128, 256), (24, 64), 64)
        self.inception4d = Inception(512, 112, (144, 288), (32, 64), 64)  # (N, 528, 14, 14)
        self.inception4e = Inception(528, 256, (160, 320), (32, 128), 128)  # (N, 832, 14, 14)
        self.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)  # (N, 832, 7, 7); the paper's is 3x3
        self.inception5a = Inception(832, 256, (160, 320), (32, 128), 128)
        self.inception5b = Inception(832, 384, (192, 384), (48, 128), 128)  # (N, 1024, 7, 7)
        self.avgpool = nn.AdaptiveAvgPool2d(1)  # (N, 1024, 1, 1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(1024, classes)

    def forward(self, images_nchw: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        maps = self.maxpool1(self.conv1(images_nchw))
        maps = self.maxpool2(self.conv3(self.conv2(maps)))
        maps = self.maxpool3(self.inception3b(self.inception3a(maps)))
        maps = self.inception4c(self.inception4b(self.inception4a(maps)))
        maps = self.maxpool4(self.inception4e(self.inception4d(maps)))
        maps = self.inception5b(self.inception5a(maps))
        logits: torch.Tensor = self.fc(self.dropout(self.avgpool(maps).flatten(1)))
        return logits


class Inception(nn.Module):
    """Four ways through one block, their maps side by side: (N, C, H, W) to (N, sum of the widths, H, W).

    1x1; 1x1 then 3x3; 1x1 then "5x5", which is 3x3 in the weights that everybody has; pooling then 1x1.
    """

    def __init__(self, channels: int, direct: int, three: tuple[int, int], five: tuple[int, int], pooled: int) -> None:
        """Build the block.

        Args:
            channels: of the input.
            direct: maps of the 1x1 convolution.
            three: maps of the reduction before the 3x3 convolution, and of that itself.
            five: the same for the "5x5" convolution.
            pooled: maps of the projection after pooling.
        """
        super().__init__()
        self.branch1 = Convolution(channels, direct, 1)
        self.branch2 = nn.Sequential(Convolution(channels, three[0], 1), Convolution(*three, 3, padding=1))
        self.branch3 = nn.Sequential(Convolution(channels, five[0], 1), Convolution(*five, 3, padding=1))
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True), Convolution(channels, pooled, 1)
        )

    def forward(self, maps_nchw: torch.Tensor) -> torch.Tensor:
        """Return the maps of all branches."""
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(maps_nchw) for branch in branches], 1)


class Convolution(nn.Module):
    """Convolution, batch normalisation with an epsilon of 1e-3, ReLU."""

    def __init__(self, channels: int, maps: int, kernel_px: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, maps, kernel_px, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(maps, eps=1e-3)

    def forward(self, maps_nchw: torch.Tensor) -> torch.Tensor:
        """Return the activations."""
        return torch.relu(self.bn(self.conv(maps_nchw)))
