"""Random weights with which a network computes something: activations neither vanish nor overflow.

Path: weights → **initial** → a network to export, test and measure without trained weights.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from export import errors, preprocessing

BLOTS = (2, 4, 8, 16, 32, 64, 128, 256)
"""Blots along a side, of each image."""
ANY_SIZE_PX = 224
"""The side of the images where any size will do."""

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fill(network: nn.Module, image: preprocessing.Preprocessing, seed: int) -> None:
    """Give the network random weights, and statistics to match, and leave it in eval mode.

    Convolutions and linear layers: He-normal weights over the fan-in, biases N(0, 0.05). Batch norms: weights
    U(0.2, 0.6), biases N(0.4, 0.1), and the statistics of eight images passed through the network. The layer
    that runs last is scaled so that what it gives for them is about 1. Other parameters stay as built.

    The bias of a batch norm is about its weight, so that most of its outputs pass a ReLU behind it. Around
    zero, as half pass, each layer enlarges differences: rounding errors in float32 grew to 7e-5 of the logits
    by depth 152, and are 4e-7 so.

    Args:
        network: takes (N, C, H, W) float32.
        image: what the network is fed with.
        seed: decides all. The caller's generator is left as it was.

    Raises:
        WeightsError: the network does not take such images.

    Source: K. He, X. Zhang, S. Ren, J. Sun, "Delving Deep into Rectifiers", ICCV 2015, equation 10.
    """
    network.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs, too
        for module in network.modules():
            _draw(module)
        _settle(network, noise(image, seed))


def noise(image: preprocessing.Preprocessing, seed: int) -> torch.Tensor:
    """Return images as a network takes them, (8, C, H, W) float32: from a blur of 2x2 blots to fine grain."""
    generator = torch.Generator().manual_seed(seed)
    size_hw = (image.height or ANY_SIZE_PX, image.width or ANY_SIZE_PX)
    grids_hw = [[min(blots, side) for side in size_hw] for blots in BLOTS]
    grids = [torch.rand(1, image.channels, *grid_hw, generator=generator) for grid_hw in grids_hw]
    pixels_nchw = preprocessing.PIXEL_MAX * torch.cat([F.interpolate(grid, size_hw, mode="bilinear") for grid in grids])
    affine = image.from_pixels()
    offset, scale = (torch.tensor(values).view(-1, 1, 1) for values in (affine.offset, affine.scale))
    return (pixels_nchw - offset) * scale


def _draw(module: nn.Module) -> None:
    if isinstance(module, _LAYERS):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.normal_(module.bias, std=0.05)
    elif isinstance(module, _BATCH_NORMS) and module.affine:
        nn.init.uniform_(module.weight, 0.2, 0.6)
        nn.init.normal_(module.bias, mean=0.4, std=0.1)


def _settle(network: nn.Module, images_nchw: torch.Tensor) -> None:
    """Pass the images through once: batch norms take their statistics, the last layer its scale."""
    norms = [module for module in network.modules() if isinstance(module, _BATCH_NORMS)]
    layers = [module for module in network.modules() if isinstance(module, _LAYERS)]
    momenta = [norm.momentum for norm in norms]
    last: list[tuple[nn.Module, torch.Tensor]] = []

    def remember(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        last[:] = [(layer, output)]  # of all outputs only this one is kept alive

    hooks = [layer.register_forward_hook(remember) for layer in layers]
    for norm in norms:
        norm.reset_running_stats()
        norm.train().momentum = None  # the plain mean of all batches: here, what this one has
    try:
        network(images_nchw)
    except RuntimeError as error:
        raise errors.WeightsError(f"the network does not take images {tuple(images_nchw.shape)}: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval().momentum = momentum
    for layer, output in last:
        _rescale(layer, output)


def _rescale(layer: nn.Module, output: torch.Tensor) -> None:
    """Scale the layer by the power of two that brings its output near 1: no digit of its weights changes."""
    level = output.square().mean().sqrt().item()
    if level > 0 and math.isfinite(level):
        for parameter in layer.parameters():
            parameter.mul_(2.0 ** -round(math.log2(level)))
