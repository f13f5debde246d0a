"""What several tests of the wire share."""

import pathlib
from collections.abc import Iterator

import grpc
import pytest

from export import digits, options
from tests.conftest import Exported, RunningServer, export, running
from tests.wire import repositories, troubled

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


@pytest.fixture(scope="session")
def troubles(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The repository of models that make trouble."""
    repository: pathlib.Path = tmp_path_factory.mktemp("troubles")
    troubled.lay(exported, repository)
    return repository


@pytest.fixture(scope="session")
def troublesome(troubles: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of it."""
    with running(troubles, tmp_path_factory.mktemp("troublesome") / "log", *troubled.flags()) as server:
        yield server


@pytest.fixture(scope="module")
def channel(troublesome: RunningServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(troublesome.address) as opened:
        yield opened
