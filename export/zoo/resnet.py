"""Residual networks: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition",
CVPR 2016, table 1.

Path: zoo → **resnet** → tapped. The form that torchvision has weights for ("v1.5"): where a bottleneck
halves the size, its 3x3 convolution does it, not its first 1x1, which would drop three values of four.
`ResNetForDigits` is a small one of the same parts.
"""  # noqa: D205 - the title is the summary

import torch
from torch import nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (N, C, H, W) to (N, width, H/stride, W/stride)."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels, width, stride)

    def forward(self, maps_nchw: torch.Tensor) -> torch.Tensor:
        """Return the activations."""
        residual = torch.relu(self.bn1(self.conv1(maps_nchw)))
        residual = self.bn2(self.conv2(residual))
        return torch.relu(residual + self.downsample(maps_nchw))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut: (N, C, H, W) to (N, 4 width, H/stride, W/stride)."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(channels, 4 * width, stride)

    def forward(self, maps_nchw: torch.Tensor) -> torch.Tensor:
        """Return the activations."""
        residual = torch.relu(self.bn1(self.conv1(maps_nchw)))
        residual = torch.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        return torch.relu(residual + self.downsample(maps_nchw))


_Block = type[BasicBlock] | type[Bottleneck]

_DEPTHS: dict[int, tuple[_Block, tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
"""Table 1: which block, and how many of them in each of the four layers."""


class ResNet(nn.Module):
    """Images (N, 3, H, W) float32, normalised, 224x224 by design, to logits (N, classes) float32.

    Keys are torchvision's.

    Args:
        classes: how many.
        depth: 18, 34, 50, 101 or 152.
    """

    def __init__(self, classes: int = 1000, depth: int = 50) -> None:
        super().__init__()
        block, blocks = _DEPTHS[depth]
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)  # (N, 64, 112, 112)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)  # (N, 64, 56, 56)
        widest = block.expansion  # 1, or 4 with bottlenecks: e
        self.layer1 = _layer(block, 64, 64, blocks[0])  # (N, 64 e, 56, 56)
        self.layer2 = _layer(block, 64 * widest, 128, blocks[1], stride=2)  # (N, 128 e, 28, 28)
        self.layer3 = _layer(block, 128 * widest, 256, blocks[2], stride=2)  # (N, 256 e, 14, 14)
        self.layer4 = _layer(block, 256 * widest, 512, blocks[3], stride=2)  # (N, 512 e, 7, 7)
        self.avgpool = nn.AdaptiveAvgPool2d(1)  # (N, 512 e, 1, 1)
        self.fc = nn.Linear(512 * widest, classes)
        _scale_residuals(self)

    def forward(self, images_nchw: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        maps = self.maxpool(torch.relu(self.bn1(self.conv1(images_nchw))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        logits: torch.Tensor = self.fc(self.avgpool(maps).flatten(1))
        return logits


class ResNetForDigits(nn.Module):
    """Images (N, 1, 32, 32) float32, normalised, to logits (N, classes) float32: a minute's training.

    As the paper's section 4.2 has it for small images: a 3x3 stem without pooling, three widths.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)  # (N, 16, 32, 32)        144 parameters
        self.bn1 = nn.BatchNorm2d(16)  #                                                     32
        self.relu = nn.ReLU()
        self.layer1 = _layer(BasicBlock, 16, 16, 1)  # (N, 16, 32, 32)                    4,672
        self.layer2 = _layer(BasicBlock, 16, 32, 1, stride=2)  # (N, 32, 16, 16)         14,528
        self.layer3 = _layer(BasicBlock, 32, 64, 1, stride=2)  # (N, 64, 8, 8)           57,728
        self.avgpool = nn.AdaptiveAvgPool2d(1)  # (N, 64, 1, 1)
        self.fc = nn.Linear(64, classes)  #                                                 650 for 10 classes

    def forward(self, images_nchw: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        maps = self.relu(self.bn1(self.conv1(images_nchw)))
        maps = self.layer3(self.layer2(self.layer1(maps)))
        logits: torch.Tensor = self.fc(self.avgpool(maps).flatten(1))
        return logits


def _layer(block: _Block, channels: int, width: int, blocks: int, stride: int = 1) -> nn.Sequential:
    """Return blocks of one width, the first of which has the stride."""
    first = block(channels, width, stride)
    return nn.Sequential(first, *(block(width * block.expansion, width) for _ in range(1, blocks)))


def _shortcut(channels: int, maps: int, stride: int) -> nn.Sequential:
    """Return the identity where the shape stays, else a projection by 1x1 convolution (the paper's option B)."""
    if channels == maps and stride == 1:
        return nn.Sequential()  # as a module it has no parameters, and so no keys
    return nn.Sequential(nn.Conv2d(channels, maps, 1, stride, bias=False), nn.BatchNorm2d(maps))


def _scale_residuals(network: ResNet) -> None:
    """Make the residuals of n blocks add up to the shortcut's variance, not to n times that, before training.

    Each ends in a batch norm, whose initial weight becomes 1 / sqrt(n). With 1, a deep network enlarges every
    rounding error on its way: at depth 152 float32 is off by 1e-4 instead of 1e-6.
    """
    norms = [
        module.bn3 if isinstance(module, Bottleneck) else module.bn2
        for module in network.modules()
        if isinstance(module, BasicBlock | Bottleneck)
    ]
    for norm in norms:
        nn.init.constant_(norm.weight, len(norms) ** -0.5)
