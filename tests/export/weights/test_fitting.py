"""Weights fit, all of them, or nothing is changed and everything that is wrong is listed."""

import pathlib

import pytest
import torch
from torch import nn

from export import errors, weights, zoo
from export.weights import fitting
from tests import oracle
from tests.export.weights import nets


def test_a_prefix_that_the_network_has_itself_is_kept(tmp_path: pathlib.Path) -> None:
    network = nn.ModuleDict({"module": nets.small()})
    loaded = weights.into(nn.ModuleDict({"module": nets.Small()}), nets.saved(network.state_dict(), tmp_path / "w.pth"))
    assert weights.sha256(loaded.network) == weights.sha256(network)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32_and_that_is_said(dtype: torch.dtype, tmp_path: pathlib.Path) -> None:
    network = nets.small()
    path = nets.saved(network.to(dtype).state_dict(), tmp_path / "w.pth")
    loaded = weights.into(nets.Small(), path)
    assert loaded.source == f"w.pth ({str(dtype).removeprefix('torch.')} made float32)"
    assert weights.sha256(loaded.network) == weights.sha256(network.float())


def test_files_older_than_the_counters_of_batch_norms_load(tmp_path: pathlib.Path) -> None:
    network = nets.small()
    state = {name: tensor for name, tensor in network.state_dict().items() if "num_batches" not in name}
    loaded = weights.into(nets.Small(), nets.saved(state, tmp_path / "w.pth")).network
    assert all(torch.equal(loaded.state_dict()[name], state[name]) for name in state)
    del state["norm.running_mean"]
    with pytest.raises(errors.WeightsMismatch, match=r"missing: norm\.running_mean"):
        weights.into(nets.Small(), nets.saved(state, tmp_path / "w.pth"))


def test_the_training_heads_of_googlenet_are_dropped_and_nothing_else(tmp_path: pathlib.Path) -> None:
    network = zoo.find("googlenet").build(10)
    heads = {name: torch.zeros(1) for name in weights.AUXILIARY}
    assert len(heads) == 20
    path = nets.saved(network.state_dict() | heads, tmp_path / "w.pth")
    assert weights.sha256(weights.load(zoo.find("googlenet"), path, 10, 0).network) == weights.sha256(network)
    nets.saved(network.state_dict() | heads | {"aux1.fc3.bias": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(errors.WeightsMismatch, match=r"unexpected: aux1\.fc3\.bias$"):
        weights.load(zoo.find("googlenet"), path, 10, 0)
    nets.saved(nets.small().state_dict() | heads, tmp_path / "w.pth")
    with pytest.raises(errors.WeightsMismatch, match=r"unexpected: aux1\.conv"):
        weights.into(nets.Small(), path)


def test_the_training_heads_are_those_of_torchvisions_googlenet() -> None:
    theirs = oracle.torchvision_model("googlenet", 0, num_classes=10, aux_logits=True, init_weights=False)
    ours = zoo.find("googlenet").build(10)
    assert theirs.state_dict().keys() - ours.state_dict().keys() == weights.AUXILIARY
    assert ours.state_dict().keys() <= theirs.state_dict().keys()


def test_a_mismatch_lists_missing_unexpected_misshapen_and_unfloating_keys(tmp_path: pathlib.Path) -> None:
    state = dict(nets.small().state_dict())
    state["conv_weight"] = state.pop("conv.weight")
    state["conv.bias"] = torch.zeros(3)
    state["fc.bias"] = torch.zeros(5, dtype=torch.int64)
    state["norm.num_batches_tracked"] = torch.tensor(1.0)
    state["norm.bias"] = torch.zeros(4, device="meta")
    state["norm.weight"] = torch.ones(4).to_sparse()
    with pytest.raises(errors.WeightsMismatch) as caught:
        weights.into(nets.Small(), nets.saved(state, tmp_path / "w.pth"))
    assert caught.value.problems == (
        "missing: conv.weight (the file has conv_weight)",
        "unexpected: conv_weight",
        "wrong shape: conv.bias is (3,), expected (4,)",
        "wrong kind: fc.bias is int64, expected float32",
        "wrong kind: norm.bias is float32 without values, expected float32",
        "wrong kind: norm.num_batches_tracked is float32, expected int64",
        "wrong kind: norm.weight is float32, sparse_coo, expected float32",
    )
    assert str(caught.value).startswith(f"weights {tmp_path / 'w.pth'} do not fit the network:\n  - missing")


def test_a_mismatch_changes_nothing(tmp_path: pathlib.Path) -> None:
    network = nets.small(1)
    before = weights.sha256(network)
    state = nets.small().state_dict() | {"fc.bias": torch.zeros(6)}
    with pytest.raises(errors.WeightsMismatch):
        weights.into(network, nets.saved(state, tmp_path / "w.pth"))
    assert weights.sha256(network) == before


def test_a_long_list_of_problems_is_cut_and_counted(tmp_path: pathlib.Path) -> None:
    path = nets.saved(nets.small().state_dict(), tmp_path / "w.pth")
    with pytest.raises(errors.WeightsMismatch) as caught:
        weights.load(zoo.find("resnet18"), path, 1000, 0)
    assert len(caught.value.problems) <= 3 * (fitting.LISTED + 1)
    assert "and 113 more missing" in caught.value.problems  # it has 122, of which fc.weight and fc.bias are there


def test_a_head_for_other_classes_says_which_option_to_pass(tmp_path: pathlib.Path) -> None:
    path = nets.saved(nets.LENET5.build(7).state_dict(), tmp_path / "w.pth")
    with pytest.raises(errors.WeightsMismatch, match=r"only the last layer differs: the file has 7 .*--classes 7$"):
        weights.load(nets.LENET5, path, 10, 0)
    with pytest.raises(errors.WeightsMismatch, match=r"the file has 7 classes; build the network for 7, not 10$"):
        weights.into(nets.LENET5.build(10), path)
    state = nets.LENET5.build(7).state_dict() | {"c1.weight": torch.zeros(5, 1, 5, 5)}
    with pytest.raises(errors.WeightsMismatch) as caught:
        weights.load(nets.LENET5, nets.saved(state, tmp_path / "w.pth"), 10, 0)
    assert "--classes" not in str(caught.value)


@pytest.mark.parametrize(
    "bias",
    [
        torch.tensor([0, 0, torch.nan, 0, 0]),
        torch.tensor([0, 0, -torch.inf, 0, 0]),
        torch.tensor([0, 0, 1e300, 0, 0], dtype=torch.float64),  # too large for float32
    ],
)
def test_numbers_that_are_not_finite_are_refused_by_name(bias: torch.Tensor, tmp_path: pathlib.Path) -> None:
    path = nets.saved(nets.small().state_dict() | {"fc.bias": bias}, tmp_path / "w.pth")
    with pytest.raises(errors.WeightsError, match=r"not finite, first in fc\.bias; the training diverged"):
        weights.into(nets.Small(), path)
