"""The network as it is served: pixels as bytes in, logits and probabilities out.

Path: weights → **serving** → trace.

Normalisation (x/255 - mean)/std is split: 255*mean is subtracted, and 1/(255*std) is folded into the
first convolution. Folding the mean too would be wrong wherever that convolution pads with zeros,
because it pads after the normalisation: on ResNet-18, two of eight images change their class.
"""

import copy

import torch
from torch import nn

from export import zoo


class ServingModule(nn.Module):
    """Images (N, H, W, C) uint8 to logits and probabilities, both (N, classes) float32."""

    offset: torch.Tensor

    def __init__(self, network: nn.Module, architecture: zoo.Architecture) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        mean, std = torch.tensor(architecture.mean).double(), torch.tensor(architecture.std).double()
        self.register_buffer("offset", (255 * mean).float().reshape(1, -1, 1, 1))
        convolution = self.network.get_submodule(architecture.first_conv)
        assert isinstance(convolution, nn.Conv2d), "first_conv names a convolution"
        scale = 1 / (255 * std).reshape(1, -1, 1, 1)
        convolution.weight.data = (convolution.weight.data.double() * scale).float()

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits, probabilities)."""
        # Bytes are transposed before they become floats, and made contiguous: without that the
        # exporter carries the strange memory layout to the end of the graph as gathers.
        pixels_nchw = image.permute(0, 3, 1, 2).contiguous().float()
        logits = self.network(pixels_nchw - self.offset)
        return logits, torch.softmax(logits, 1)


class Reference(nn.Module):
    """The same function, written as the definition says; what `verify` compares with."""

    def __init__(self, network: nn.Module, architecture: zoo.Architecture, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).to(dtype)
        self.mean = torch.tensor(architecture.mean, dtype=dtype).reshape(1, -1, 1, 1)
        self.std = torch.tensor(architecture.std, dtype=dtype).reshape(1, -1, 1, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits, probabilities) in the reference's dtype."""
        pixels_nchw = image.permute(0, 3, 1, 2).to(self.mean.dtype) / 255
        logits = self.network((pixels_nchw - self.mean) / self.std)
        return logits, torch.softmax(logits, 1)
