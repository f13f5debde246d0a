"""Our networks are torchvision's: the same keys, the same shapes, the same numbers."""

import dataclasses

import pytest
import torch
from torch import nn

from export import zoo
from tests import oracle

SEED = 5
NAMES = ("alexnet", "googlenet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


@dataclasses.dataclass(frozen=True)
class Pair:
    """torchvision's network with random weights, and ours with the same."""

    name: str
    theirs: nn.Module
    ours: nn.Module


@pytest.fixture(scope="module", params=NAMES)
def pair(request: pytest.FixtureRequest) -> Pair:
    name: str = request.param
    # Without the option, torchvision warns that GoogLeNet's initialisation takes long.
    theirs = oracle.torchvision_model(name, SEED, **({"init_weights": False} if name == "googlenet" else {}))
    with torch.device("meta"):  # all its tensors are taken from the other
        ours = zoo.find(name).build(1000).eval()
    ours.load_state_dict(without_auxiliary(theirs), strict=True, assign=True)
    return Pair(name, theirs, ours)


def without_auxiliary(network: nn.Module) -> dict[str, torch.Tensor]:
    """What inference needs: GoogLeNet's two auxiliary classifiers are for training."""
    return {name: value for name, value in network.state_dict().items() if not name.startswith(("aux1.", "aux2."))}


def test_keys_and_shapes_are_those_of_torchvision(pair: Pair) -> None:
    wanted, got = (
        [(name, tuple(value.shape)) for name, value in state.items()]
        for state in (without_auxiliary(pair.theirs), pair.ours.state_dict())
    )
    assert got == wanted


def test_logits_are_those_of_torchvision(pair: Pair) -> None:
    # Odd sizes, where they are taken, meet every rounding on the way, and are quicker.
    size_hw = (97, 131) if zoo.find(pair.name).takes_other_sizes else (224, 224)
    images_nchw = torch.randn(2, 3, *size_hw, generator=torch.Generator().manual_seed(SEED))
    with torch.inference_mode():
        wanted, got = pair.theirs(images_nchw), pair.ours(images_nchw)
    assert wanted.std(0).mean() > 0.01  # the logits are of the images, not only of the last biases
    assert (got - wanted).abs().max() <= 1e-6 * wanted.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_the_published_figures_are_those_that_torchvision_publishes(name: str) -> None:
    weights = oracle.torchvision_models().get_model_weights(name)
    published = zoo.find(name).published
    assert published is not None
    assert round(published.macs / 1e9, 3) == weights.IMAGENET1K_V1.meta["_ops"]
    assert published.parameters == weights.IMAGENET1K_V1.meta["num_params"]
