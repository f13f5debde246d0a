"""torchvision's own networks, which ours must equal. Only the tests know torchvision."""

import functools
import importlib
import importlib.util
import types

import pytest
import torch
from torch import nn

from export import preprocessing
from export.weights import initial

SETTLED_AT_PX = 64
"""Smaller than the networks' own size, to be quick; the statistics of a batch norm do not depend on it much."""


def torchvision_model(name: str, seed: int, **options: object) -> nn.Module:
    """Return the network of that name in eval mode, with random weights and statistics to match.

    Activations neither vanish nor overflow, down to depth 152: see `initial`. Skips the test where
    torchvision is not installed.
    """
    torch.manual_seed(seed)
    network: nn.Module = torchvision_models().get_model(name, weights=None, **options)
    initial.fill(network, preprocessing.imagenet(SETTLED_AT_PX), seed)
    return network


@functools.cache
def torchvision_models() -> types.ModuleType:
    """Return torchvision.models, beside a torch that its binary was not built for. Skips without torchvision.

    The wheel on PyPI is built for CUDA. Beside torch for the CPU its operators cannot be loaded, and its
    Python part, all that is wanted here, fails for the want of two of them; declared, they may stay undefined.
    """
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed: pip install --no-deps torchvision==0.28.0")
    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    for operator in ("nms", "qnms"):
        schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        _library().define(schema)  # type: ignore[no-untyped-call]  # torch has no annotation here
    return importlib.import_module("torchvision.models")


@functools.cache
def _library() -> torch.library.Library:
    """Return the library, which forgets its operators when it is let go."""
    return torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]  # as above
