"""AlexNet: A. Krizhevsky, I. Sutskever, G. E. Hinton, "ImageNet Classification with Deep Convolutional
Neural Networks", NIPS 2012.

Path: zoo → **alexnet** → tapped. `AlexNet` is the form that torchvision has weights for: A. Krizhevsky,
"One weird trick for parallelizing convolutional neural networks", arXiv:1404.5997, 2014, with its 192
maps in conv2, no groups and no response normalisation. `AlexNetOf2012` is the paper's own.
"""  # noqa: D205 - the title is the summary

import torch
from torch import nn


class AlexNet(nn.Module):
    """Images (N, 3, 224, 224) float32, normalised, to logits (N, classes) float32. Keys are torchvision's.

    It takes no other sizes: exported, the adaptive pooling is right for the size that was traced only.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),  # 0: conv1 (N, 64, 55, 55)
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),  # 2: (N, 64, 27, 27)
            nn.Conv2d(64, 192, 5, padding=2),  # 3: conv2 (N, 192, 27, 27)
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),  # 5: (N, 192, 13, 13)
            nn.Conv2d(192, 384, 3, padding=1),  # 6: conv3 (N, 384, 13, 13)
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),  # 8: conv4 (N, 256, 13, 13)
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),  # 10: conv5 (N, 256, 13, 13)
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),  # 12: (N, 256, 6, 6)
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)  # nothing to do at 224x224
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(256 * 6 * 6, 4096),  # 1: fc6
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),  # 4: fc7
            nn.ReLU(),
            nn.Linear(4096, classes),  # 6: fc8
        )

    def forward(self, images_nchw: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        maps = self.avgpool(self.features(images_nchw))
        logits: torch.Tensor = self.classifier(maps.flatten(1))
        return logits


class AlexNetOf2012(nn.Module):
    """Images (N, 3, 227, 227) float32, less the mean, to logits (N, classes) float32.

    The paper says 224x224, but only 227 gives its 55x55 maps. Two groups in conv2, conv4 and conv5 are
    the paper's two GPUs. Normalisation and pooling follow the ReLU, as in section 3.5.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 11, stride=4),  # 0: conv1 (N, 96, 55, 55)
            nn.ReLU(),
            _response_normalisation(),
            nn.MaxPool2d(3, stride=2),  # 3: overlapping; (N, 96, 27, 27)
            nn.Conv2d(96, 256, 5, padding=2, groups=2),  # 4: conv2 (N, 256, 27, 27)
            nn.ReLU(),
            _response_normalisation(),
            nn.MaxPool2d(3, stride=2),  # 7: (N, 256, 13, 13)
            nn.Conv2d(256, 384, 3, padding=1),  # 8: conv3 (N, 384, 13, 13), the only one that sees both GPUs
            nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding=1, groups=2),  # 10: conv4 (N, 384, 13, 13)
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1, groups=2),  # 12: conv5 (N, 256, 13, 13)
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),  # 14: (N, 256, 6, 6)
        )
        self.classifier = nn.Sequential(
            nn.Linear(256 * 6 * 6, 4096),  # 0: fc6
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),  # 3: fc7
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, classes),  # 6: fc8
        )

    def forward(self, images_nchw: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        logits: torch.Tensor = self.classifier(self.features(images_nchw).flatten(1))
        return logits


def _response_normalisation() -> nn.LocalResponseNorm:
    """Section 3.3: b_i = a_i / (k + alpha * sum of a_j² over the n nearest channels)^beta, zeros beyond the ends.

    torch divides alpha by n, and so takes alpha * n: 1e-4 * 5.
    """
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
