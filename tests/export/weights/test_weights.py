"""Weights come from where the source says, or it is said why not."""

import contextlib
import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterator

import pytest
import safetensors.torch
import torch
from torch import nn

from export import digits, errors, weights, zoo
from export.weights import published, transfer
from tests.export.weights import nets, web


@contextlib.contextmanager
def unseen(text: str) -> Iterator[transfer.Report]:
    yield lambda done, total: None


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"model": {f"_orig_mod.{name}": tensor for name, tensor in state.items()}},
        lambda state: {name: nn.Parameter(tensor, tensor.is_floating_point()) for name, tensor in state.items()},
    ],
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_every_usual_form_loads(
    wrapped: Callable[[dict[str, torch.Tensor]], object], is_zip: bool, tmp_path: pathlib.Path
) -> None:
    network, path = nets.small(), tmp_path / "w.pth"
    torch.save(wrapped(network.state_dict()), path, _use_new_zipfile_serialization=is_zip)
    loaded = weights.into(nets.Small(), str(path))
    assert weights.sha256(loaded.network) == weights.sha256(network)
    assert loaded.source == "w.pth"
    assert loaded.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (loaded.known, loaded.preprocessing) == (None, None)
    assert not loaded.network.training


def test_safetensors_load(tmp_path: pathlib.Path) -> None:
    network, path = nets.small(), tmp_path / "w.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    assert weights.sha256(weights.into(nets.Small(), str(path)).network) == weights.sha256(network)


def test_a_network_of_the_zoo_loads_for_its_classes(tmp_path: pathlib.Path) -> None:
    network = weights.load(nets.LENET5, "random", 7, 1).network
    path = nets.saved(network.state_dict(), tmp_path / "w.pt")
    assert weights.sha256(weights.load(nets.LENET5, path, 7, 0).network) == weights.sha256(network)


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    """Weights of LeNet-5 for three classes, named as torchvision names its files."""
    nets.saved(weights.load(nets.LENET5, "random", 3, 0).network.state_dict(), tmp_path / "w")
    digest = hashlib.sha256((tmp_path / "w").read_bytes()).hexdigest()
    return (tmp_path / "w").rename(tmp_path / f"lenet5-{digest[:8]}.pth")


def known(file: pathlib.Path, architecture: str = "lenet5", folder_url: str = "") -> published.KnownFile:
    image = dataclasses.replace(nets.LENET5.preprocessing, resize_px=40)
    return published.KnownFile(file.name, architecture, "IMAGENET1K_V1", image, 90.0, 99.0, folder_url)


def test_a_known_file_brings_its_preprocessing_whatever_it_is_called(file: pathlib.Path) -> None:
    table = [known(file)]
    renamed = file.rename(file.with_name("mine.pth"))
    for loaded in (
        weights.load(nets.LENET5, str(renamed), 3, 0, known=table),
        weights.into(nets.LENET5.build(3), str(renamed), known=table),
    ):
        assert loaded.known is table[0]
        assert loaded.preprocessing == table[0].preprocessing
        assert loaded.source == "mine.pth"
    nets.saved(weights.load(nets.LENET5, "random", 3, 1).network.state_dict(), file)
    assert weights.load(nets.LENET5, str(file), 3, 0, known=table).known is None


def test_a_known_file_of_another_network_says_whose_it_is(file: pathlib.Path) -> None:
    table = [known(file, architecture="resnet50")]
    with pytest.raises(errors.WeightsError, match=r"holds the weights of resnet50 \(IMAGENET1K_V1\), not of lenet5"):
        weights.load(nets.LENET5, str(file), 3, 0, known=table)


@pytest.mark.parametrize("source", ["imagenet", "imagenet1k-v1", "IMAGENET1K_V1", "", "name", "address"])
def test_published_weights_are_downloaded_by_name(source: str, file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    architecture = dataclasses.replace(nets.LENET5, weights="imagenet")
    with web.site(web.whole(file.read_bytes())) as site:
        table = [known(file, folder_url=f"{site.url}/")]
        meant = {"name": file.name, "address": f"{site.url}/{file.name}"}.get(source, source)
        loaded = weights.load(architecture, meant, 3, 0, tmp_path / "cache", unseen, table)
        again = weights.load(architecture, meant, 3, 0, tmp_path / "cache", unseen, table)
        assert len(site.requests) == 1
    assert loaded.known is again.known is table[0]
    assert loaded.source == file.name


def test_networks_without_published_weights_say_what_there_is() -> None:
    for source, architecture, sentence in (
        (
            "imagenet",
            "lenet5",
            "no weights 'imagenet' are published for lenet5; pass --weights FILE, or --weights random",
        ),
        ("imagenet1k-v2", "resnet18", "no weights 'imagenet1k-v2' are published for resnet18; it has imagenet1k-v1"),
        ("resnet50-11ad3fa6.pth", "resnet18", r"holds the weights of resnet50 \(IMAGENET1K_V2\), not of resnet18"),
    ):
        with pytest.raises(errors.WeightsError, match=sentence):
            weights.load(zoo.find(architecture), source, 1000, 0)


def test_the_best_published_weights_are_the_default() -> None:
    best = {name: published.by_name("imagenet", name) for name in ("resnet18", "resnet50", "googlenet")}
    assert {name: known.file for name, known in best.items() if known} == {
        "resnet18": "resnet18-f37072fd.pth",
        "resnet50": "resnet50-11ad3fa6.pth",
        "googlenet": "googlenet-1378be20.pth",
    }
    assert published.by_name("imagenet1k-v1", "resnet50") == published.by_sha256("0676ba61" + 56 * "0")
    assert published.by_name("mine.pth", "resnet50") is published.by_sha256(64 * "0") is None


def test_older_uploads_are_known_as_the_same_weights() -> None:
    older, current = published.by_sha256("19c8e357" + 56 * "0"), published.by_name("imagenet1k-v1", "resnet50")
    assert older is not None
    assert older.url == "https://download.pytorch.org/models/resnet50-19c8e357.pth"
    assert dataclasses.replace(older, file="resnet50-0676ba61.pth") == current


def test_every_architecture_that_defaults_to_published_weights_has_some() -> None:
    for architecture in zoo.ZOO.values():
        if architecture.weights == "imagenet" and not architecture.is_fixed:
            best = published.by_name("imagenet", architecture.name)
            assert best is not None
            assert best.preprocessing.channels == architecture.preprocessing.channels
    prefixes = [known.sha256_prefix for known in published.FILES]
    assert len(set(prefixes)) == len(prefixes)
    assert all(int(prefix, 16) >= 0 and len(prefix) == 8 for prefix in prefixes)


def test_digits_are_for_the_networks_that_read_digits() -> None:
    with pytest.raises(errors.WeightsError, match="alexnet cannot be trained on the digits"):
        weights.load(zoo.find("alexnet"), "digits", 1000, 0)
    with pytest.raises(errors.WeightsError, match="there are 10 digits, not 7"):
        weights.load(nets.LENET5, "digits", 7, 0)


@pytest.mark.slow
def test_digits_are_trained_now() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    loaded = weights.load(nets.LENET5, "", 10, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert (loaded.source, loaded.file_sha256) == ("digits", "")
    assert digits.accuracy(loaded.network, digits.load()[1]) > 0.95


def test_a_bank_of_filters_has_no_weights() -> None:
    for source in ("", "filters"):
        assert weights.load(zoo.find("sobel"), source, 0, 0).source == "filters"
    for source in ("random", "w.pth"):
        with pytest.raises(errors.WeightsError, match=f"sobel is a bank of filters .* leave out --weights {source}"):
            weights.load(zoo.find("sobel"), source, 0, 0)


def test_a_network_without_default_weights_asks_for_some() -> None:
    with pytest.raises(
        errors.WeightsError, match="alexnet-2012 has no weights of its own: pass --weights FILE, or random"
    ):
        weights.load(zoo.find("alexnet-2012"), "", 1000, 0)
