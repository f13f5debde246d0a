"""Fast mode beside exact mode: how far apart, for which images."""

import io

import numpy as np
import pytest
from PIL import Image

from protos import manifest_pb2
from service.images import decode
from tests.service.images import samples
from tests.service.images.samples import IMAGENET, difference, row, saved

FAST = decode.Mode.FAST


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (1000, 750), (224, 224), (256, 256), (60, 40)])
@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_within_one_level_where_nothing_is_read_scaled(name: str, size: tuple[int, int]) -> None:
    file = saved(samples.photo(size), name)
    apart = difference(row(file, IMAGENET, FAST), row(file, IMAGENET))
    assert apart.max() <= 1
    assert apart.mean() < 0.01


@pytest.mark.parametrize("size", [(1366, 1025), (1600, 1200), (2048, 1536), (2300, 4000), (4000, 3000)])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
def test_scaled_jpegs_stay_close(size: tuple[int, int], subsampling: str) -> None:
    file = saved(samples.photo(size), "JPEG", quality=90, subsampling=subsampling)
    apart = difference(row(file, IMAGENET, FAST), row(file, IMAGENET))
    assert apart.max() > 0, "nothing was read scaled"
    assert apart.mean() < 0.8
    assert np.quantile(apart, 0.99) <= 4
    assert apart.max() <= 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(641, 427), (1601, 1201)])
def test_exif_orientation_turns_scaled_images_and_odd_sizes_too(size: tuple[int, int], orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    file = saved(samples.photo(size), "JPEG", quality=90, exif=exif)
    apart = difference(row(file, IMAGENET, FAST), row(file, IMAGENET))
    assert apart.mean() < 0.8
    assert apart.max() <= 12


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_every_colour_to_grey_and_rgb(mode: str) -> None:
    file = saved(samples.photo((1600, 1200)).convert(mode), "JPEG", quality=90)
    for color in (manifest_pb2.COLOR_GRAY, manifest_pb2.COLOR_RGB, manifest_pb2.COLOR_BGR):
        wanted = samples.spec(color, 224, 256)
        assert difference(row(file, wanted, FAST), row(file, wanted)).mean() < 1.0


def test_stretched_images_are_scaled_by_the_side_that_shrinks_less() -> None:
    file = saved(samples.photo((4000, 300)), "JPEG", quality=90)
    stretched = samples.spec(manifest_pb2.COLOR_RGB, 64)
    apart = difference(row(file, stretched, FAST), row(file, stretched))
    assert apart.mean() < 0.8


def test_images_that_keep_their_size_are_never_scaled() -> None:
    file = saved(samples.photo(), "JPEG", progressive=True)
    assert np.array_equal(row(file, samples.AS_IT_IS, FAST), np.asarray(Image.open(io.BytesIO(file))))
