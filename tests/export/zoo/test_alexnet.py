"""AlexNet of 2012: response normalisation, groups and preprocessing are those of the paper."""

import numpy as np
import pytest
import torch
from torch import nn

from export import zoo
from export.zoo import alexnet


@pytest.fixture(scope="module")
def features() -> nn.Sequential:
    torch.manual_seed(0)
    return alexnet.AlexNetOf2012(classes=1).features.eval()


def test_response_normalisation_is_the_formula_of_section_3_3(features: nn.Sequential) -> None:
    maps_chw = np.random.default_rng(0).uniform(0, 100, (96, 3, 4))
    wanted = np.empty_like(maps_chw)
    for i in range(96):
        nearest = maps_chw[max(0, i - 5 // 2) : min(96 - 1, i + 5 // 2) + 1]
        wanted[i] = maps_chw[i] / (2 + 1e-4 * (nearest**2).sum(0)) ** 0.75
    for norm in (features[2], features[6]):
        got = norm(torch.from_numpy(maps_chw)[None])[0].numpy()
        np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_only_conv3_sees_the_maps_of_both_gpus(features: nn.Sequential) -> None:
    convolutions = [layer for layer in features if isinstance(layer, nn.Conv2d)]
    sees_the_other = []
    for convolution in convolutions[1:]:
        maps_nchw = torch.rand(1, convolution.in_channels, 13, 13)
        half = maps_nchw.clone()
        half[:, convolution.in_channels // 2 :] = 0  # the second GPU's maps
        first = slice(0, convolution.out_channels // 2)
        with torch.inference_mode():
            sees_the_other.append(not torch.equal(convolution(maps_nchw)[:, first], convolution(half)[:, first]))
    assert sees_the_other == [False, True, False, False]


def test_pooling_overlaps(features: nn.Sequential) -> None:
    pools = [layer for layer in features if isinstance(layer, nn.MaxPool2d)]
    assert [(pool.kernel_size, pool.stride) for pool in pools] == [(3, 2)] * 3


def test_images_are_taken_less_their_mean_and_not_scaled() -> None:
    affine = zoo.find("alexnet-2012").preprocessing.from_pixels()
    np.testing.assert_allclose(affine.offset, [123.675, 116.28, 103.53], rtol=1e-12)
    np.testing.assert_allclose(affine.scale, [1, 1, 1], rtol=1e-12)
