"""A file of weights is data: it is read whole, or it is explained, and it never runs."""

import contextlib
import os
import pathlib
import random
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from export import errors, weights
from export.weights import checkpoint
from tests.export.weights import nets


class Opens:
    """When unpickled the careless way, it makes a folder."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def reason(path: pathlib.Path) -> str:
    with pytest.raises(errors.WeightsError) as caught:
        checkpoint.read(path)
    return str(caught.value)


def test_what_is_no_file_is_explained(tmp_path: pathlib.Path) -> None:
    assert "it is a folder" in reason(tmp_path)
    assert "No such file" in reason(tmp_path / "nowhere.pth")
    (tmp_path / "weights.pth").touch()
    assert "it is empty" in reason(tmp_path / "weights.pth")
    with pytest.raises(
        errors.WeightsError, match=r"no such file \(did you mean '.*/weights\.pth'\?\); expected a \.pth"
    ):
        weights.load(nets.LENET5, str(tmp_path / "wieghts.pth"), 10, 0)
    with pytest.raises(errors.WeightsError, match=r"no such file \(did you mean 'imagenet'\?\)"):
        weights.load(nets.LENET5, "imagnet", 10, 0)
    with pytest.raises(errors.WeightsError, match="it is a folder"):
        weights.load(nets.LENET5, str(tmp_path), 10, 0)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"<!DOCTYPE html><html>", "it is a web page"),
        (b"\r\n<?xml version='1.0'?>", "it is a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "it is a Git LFS pointer.*git lfs pull",
        ),
        (b"not weights at all", "it is damaged, or not a file of PyTorch's"),
        (bytes(range(256)), "it is damaged, or not a file of PyTorch's"),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_other_contents_are_explained(content: bytes, sentence: str, name: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(errors.WeightsError, match=f"weights .* cannot be read: {sentence}|it is damaged or not whole"):
        checkpoint.read(path)


@pytest.mark.parametrize("name", ["zip.pth", "pickle.pth", "w.safetensors"])
def test_a_file_that_is_cut_off_anywhere_is_explained(name: str, tmp_path: pathlib.Path) -> None:
    path, state = tmp_path / name, nets.small().state_dict()
    if name == "w.safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=name == "zip.pth")
    content = path.read_bytes()
    for length in {1, 9, 100, len(content) // 3, len(content) // 2, len(content) - 1}:
        path.write_bytes(content[:length])
        assert "download or copy it again" in reason(path)


def test_a_damaged_file_is_read_or_explained(tmp_path: pathlib.Path) -> None:
    path, chance = tmp_path / "w.pth", random.Random(0)
    torch.save(nets.small().state_dict(), path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    for _ in range(200):
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(errors.WeightsError):
            weights.into(nets.Small(), str(path))


@pytest.mark.parametrize("is_zip", [True, False])
def test_code_in_a_file_is_refused_and_does_not_run(is_zip: bool, tmp_path: pathlib.Path) -> None:
    content = {"state_dict": nets.small().state_dict(), "hook": Opens(tmp_path / "ran")}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=is_zip)
    assert ".mkdir, which is refused; save just the tensors" in reason(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


def test_whole_modules_and_programs_are_told_how_to_be_saved(tmp_path: pathlib.Path) -> None:
    advice = "save just the tensors, with torch.save(model.state_dict(), 'weights.pth')"
    nets.saved(nn.Sequential(nn.Linear(2, 2)), tmp_path / "module.pth")
    assert "would run torch.nn.modules.container.Sequential, which is refused; " + advice in reason(
        tmp_path / "module.pth"
    )
    nets.saved({"state_dict": {}, "loss": np.float64(1)}, tmp_path / "numpy.pth")
    assert advice in reason(tmp_path / "numpy.pth")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:  # as torch.jit.save lays it out
        archive.writestr("net/data.pkl", b"")
        archive.writestr("net/constants.pkl", b"")
    assert "it is a TorchScript archive" in reason(tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("net/readme", b"")
    assert "an archive that torch.save did not write" in reason(tmp_path / "other.pt")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([1, 2], "hold no state dict but a list; expected names and tensors"),
        ({}, "there is nothing in it"),
        ({"net": {"a": torch.zeros(1)}, "epoch": 3}, "'net' is a dict, among 'net', 'epoch'; expected"),
        ({"state_dict": {"a": torch.zeros(1), "b": 1.0}}, "'b' is a float"),
        ({0: torch.zeros(1)}, "0 is a Tensor"),
    ],
)
def test_tensors_without_names_are_no_weights(content: object, sentence: str, tmp_path: pathlib.Path) -> None:
    nets.saved(content, tmp_path / "w.pth")
    assert sentence in reason(tmp_path / "w.pth")
