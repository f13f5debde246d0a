"""What several tests of the wire share."""

import pathlib

import pytest

from export import digits, options
from tests.conftest import Exported, export
from tests.wire import repositories

IMAGES = 16


@pytest.fixture(scope="session")
def both(
    exported: Exported, held_out: digits.Digits, tmp_path_factory: pytest.TempPathFactory
) -> tuple[repositories.Weights, repositories.Weights]:
    """One network with trained and with random weights."""
    repository: pathlib.Path = tmp_path_factory.mktemp("random")
    chosen = options.Options(weights="random", outputs=("probabilities",))
    export("lenet5", repository, chosen)
    images = held_out.images_nhwc[:IMAGES]
    first, second = (repositories.weights(folder / "lenet5/1", images) for folder in (exported.repository, repository))
    assert not any(second.fits(first.logits[index], index) for index in range(IMAGES))
    return first, second
