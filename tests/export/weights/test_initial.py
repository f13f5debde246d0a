"""Random weights: the same for the same seed, and a network that computes something."""

import pytest
import torch
from torch import nn

from export import errors, preprocessing, weights, zoo
from export.weights import initial
from tests.export.weights import nets


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = (weights.load(nets.LENET5, "random", 10, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert weights.sha256(first.network) == weights.sha256(again.network) != weights.sha256(other.network)
    assert (first.source, other.source) == ("random (seed 0)", "random (seed 1)")
    assert not first.network.training


def test_random_statistics_are_those_of_images() -> None:
    network = nets.small()
    mean, variance = network.norm.running_mean, network.norm.running_var
    assert mean is not None
    assert variance is not None
    seen: list[torch.Tensor] = []
    network.norm.register_forward_hook(lambda norm, inputs, output: seen.append(inputs[0]))
    network(initial.noise(nets.GRAY_8, 0))
    assert torch.allclose(seen[0].mean((0, 2, 3)), mean, atol=1e-5)
    assert torch.allclose(seen[0].transpose(0, 1).flatten(1).var(1), variance, rtol=1e-4)
    assert network.norm.momentum == 0.1
    assert not any(
        module.training or module._forward_hooks for module in network.modules() if module is not network.norm
    )


@pytest.mark.parametrize("name", ["lenet5", "resnet-digits"])
def test_random_networks_answer_near_one(name: str) -> None:
    architecture = zoo.find(name)
    network = weights.load(architecture, "random", 10, 3).network
    logits = network(initial.noise(architecture.preprocessing, 4))
    assert 0.25 < logits.square().mean().sqrt() < 4
    assert logits.std(0).min() > 0.01  # it is not its biases that answer


def test_random_activations_stay_small_at_any_depth() -> None:
    class Block(nn.Sequential):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return torch.relu(maps + self[1](self[0](maps)))

    def block() -> nn.Module:
        return Block(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))

    network = nn.Sequential(nn.Conv2d(1, 8, 3), *(block() for _ in range(50)), nn.Flatten(), nn.Linear(288, 5))
    highest: list[float] = []
    initial.fill(network, nets.GRAY_8, 0)
    for module in network.modules():
        module.register_forward_hook(lambda module, inputs, output: highest.append(output.abs().max().item()))
    logits = network(initial.noise(nets.GRAY_8, 1))
    assert max(highest) < 1000  # float16 ends at 65504
    assert 0.1 < logits.square().mean().sqrt() < 10


def test_random_weights_for_a_users_network() -> None:
    assert weights.sha256(weights.into(nets.Small(), "random", nets.GRAY_8, 0).network) == weights.sha256(nets.small(0))
    with pytest.raises(errors.WeightsError, match=r"does not take images \(8, 3, 8, 8\)"):
        weights.into(nets.Small(), "random", preprocessing.plain((3, 8, 8)))
    for source in ("", "digits", "imagenet", "random"):
        with pytest.raises(errors.WeightsError, match=f"no weights '{source}' for a network of your own; pass"):
            weights.into(nets.Small(), source)
