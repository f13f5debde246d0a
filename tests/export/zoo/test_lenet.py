"""LeNet-5: the common form has the paper's layers; that of 1998 is the paper's own, formula by formula."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from export import zoo
from export.zoo import lenet

Array = NDArray[np.float64]

# Table 1 of the paper, column by column: the maps of S2 that each map of C3 sees.
C3_SEES = (
    (0, 1, 2),
    (1, 2, 3),
    (2, 3, 4),
    (3, 4, 5),
    (0, 4, 5),
    (0, 1, 5),
    (0, 1, 2, 3),
    (1, 2, 3, 4),
    (2, 3, 4, 5),
    (0, 3, 4, 5),
    (0, 1, 4, 5),
    (0, 1, 2, 5),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)


class Paper:
    """LeNet-5 as the paper writes it, one unit at a time, of the parameters of a network."""

    def __init__(self, network: lenet.LeNet5Of1998) -> None:
        self.of = {name: value.detach().numpy() for name, value in network.named_parameters()}

    def logits(self, image_hw: Array) -> Array:
        c1 = np.stack(
            [self.convolved(image_hw[None], self.of["c1.0.weight"][m], self.of["c1.0.bias"][m]) for m in range(6)]
        )
        s2 = self.subsampled(c1, "s2")
        kernels = iter(self.of["c3.0.kernels"])
        c3 = np.stack(
            [
                self.convolved(s2[list(sees)], np.stack([next(kernels) for _ in sees]), self.of["c3.0.bias"][m])
                for m, sees in enumerate(C3_SEES)
            ]
        )
        s4 = self.subsampled(c3, "s4")
        c5 = [self.convolved(s4, self.of["c5.0.weight"][m], self.of["c5.0.bias"][m]).item() for m in range(120)]
        f6 = [
            squash(row @ np.array(c5) + bias)
            for row, bias in zip(self.of["f6.0.weight"], self.of["f6.0.bias"], strict=True)
        ]
        codes = lenet.digit_codes().double().numpy()
        return np.array([-sum((f6[j] - codes[i, j]) ** 2 for j in range(84)) for i in range(10)])

    def convolved(self, maps_chw: Array, kernel_chw: Array, bias: float) -> Array:
        side = maps_chw.shape[1] - 4
        return np.array(
            [
                [squash((maps_chw[:, y : y + 5, x : x + 5] * kernel_chw).sum() + bias) for x in range(side)]
                for y in range(side)
            ]
        )

    def subsampled(self, maps_chw: Array, layer: str) -> Array:
        coefficient, bias = self.of[f"{layer}.0.coefficient"].ravel(), self.of[f"{layer}.0.bias"].ravel()
        count, height, width = maps_chw.shape
        return np.array(
            [
                [
                    [
                        squash(coefficient[m] * maps_chw[m, y : y + 2, x : x + 2].sum() + bias[m])
                        for x in range(0, width, 2)
                    ]
                    for y in range(0, height, 2)
                ]
                for m in range(count)
            ]
        )


def squash(total: float) -> float:
    return 1.7159 * math.tanh(2 / 3 * total)


def of_1998(seed: int) -> lenet.LeNet5Of1998:
    torch.manual_seed(seed)
    return lenet.LeNet5Of1998()


def parameters(network: torch.nn.Module) -> dict[str, int]:
    return {name: sum(p.numel() for p in layer.parameters()) for name, layer in network.named_children()}


def test_the_common_form_has_the_parameters_of_the_paper_where_it_has_its_layers() -> None:
    wanted = {"c1": 156, "s2": 0, "c3": 2_416, "s4": 0, "c5": 48_120, "f6": 10_164, "output": 850}
    assert parameters(lenet.LeNet5()) == wanted


def test_the_form_of_1998_has_the_parameters_of_the_paper_in_every_layer() -> None:
    wanted = {"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164, "output": 0}
    assert parameters(of_1998(0)) == wanted


def test_the_form_of_1998_computes_the_formulas_of_the_paper() -> None:
    network = of_1998(1).double()
    with torch.no_grad():  # initial weights leave the units near 0, where squashing is linear
        for parameter in network.parameters():
            parameter.mul_(3)
    image_hw = np.random.default_rng(1).uniform(-0.1, 1.175, (32, 32))
    got = network(torch.from_numpy(image_hw)[None, None])[0].detach().numpy()
    np.testing.assert_allclose(got, Paper(network).logits(image_hw), rtol=1e-12)


def test_c3_is_dense_with_zeros_where_table_1_has_no_mark() -> None:
    layer = lenet.SparseConvolution()
    response = layer(torch.eye(6)[:, :, None, None] * torch.ones(14, 14)) - layer.bias[:, None, None]
    sees = [tuple(maps.nonzero().flatten().tolist()) for maps in response[:, :, 0, 0].T]
    assert tuple(sees) == C3_SEES


def test_squashing_takes_one_to_one() -> None:
    squashed = lenet.Squashing()(torch.tensor([-100.0, -1.0, 0.0, 1.0, 100.0]))
    torch.testing.assert_close(squashed, torch.tensor([-1.7159, -1.0, 0.0, 1.0, 1.7159]), atol=1e-5, rtol=0)


def test_an_output_unit_is_zero_at_its_own_drawing_and_far_from_all_others() -> None:
    codes = lenet.digit_codes()
    assert codes.shape == (10, 7 * 12)
    assert set(codes.flatten().tolist()) == {-1.0, 1.0}
    logits = lenet.RadialBasis()(codes)
    assert torch.equal(logits.diagonal(), torch.zeros(10))
    others = logits[~torch.eye(10, dtype=torch.bool)]
    assert others.max() <= -4 * 12  # each pixel of difference counts 2²: at least as many as a column has


def test_initial_weights_are_within_2_4_over_the_fan_in() -> None:
    network = of_1998(2)
    fan_ins = {"c1": 25, "s2": 4, "s4": 4, "c5": 400, "f6": 120}
    for name, fan_in in fan_ins.items():
        for parameter in network.get_submodule(name).parameters():
            assert parameter.abs().max() <= 2.4 / fan_in
        values = torch.cat([parameter.flatten() for parameter in network.get_submodule(name).parameters()])
        assert values.abs().max() > 0.7 * 2.4 / fan_in
    kernels = iter(dict(network.named_parameters())["c3.0.kernels"])
    for sees in C3_SEES:
        for _ in sees:
            assert 0.5 < next(kernels).abs().max() * 25 * len(sees) / 2.4 <= 1


def test_background_is_minus_0_1_and_ink_1_175() -> None:
    affine = zoo.find("lenet5-1998").preprocessing.from_pixels()
    background, ink = ((pixel - affine.offset[0]) * affine.scale[0] for pixel in (0, 255))
    np.testing.assert_allclose([background, ink], [-0.1, 1.175], rtol=1e-12)
