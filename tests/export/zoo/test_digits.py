"""The networks that are trained here learn, each by its recipe."""

import dataclasses
import pathlib
import sys

import pytest
import torch

from export import digits, errors, zoo

TRAINABLE = ("lenet5", "lenet5-1998", "resnet-digits")


def test_each_network_whose_weights_are_digits_has_a_recipe() -> None:
    assert (
        set(digits.RECIPES) == {name for name, entry in zoo.ZOO.items() if entry.weights == "digits"} == set(TRAINABLE)
    )
    assert digits.recipe_for("lenet5") == digits.Recipe()
    assert digits.recipe_for("resnet-digits", seed=3, epochs=1).epochs == 1
    assert digits.recipe_for("resnet-digits", seed=3).epochs == digits.RECIPES["resnet-digits"].epochs


def test_other_networks_are_told_which_have_digits() -> None:
    with pytest.raises(errors.WeightsError, match="are for lenet5, lenet5-1998, resnet-digits, not resnet50"):
        digits.recipe_for("resnet50")


@pytest.mark.parametrize(("name", "epochs"), [("lenet5-1998", 5), ("resnet-digits", 2)])
def test_few_epochs_already_learn(name: str, epochs: int) -> None:
    losses: list[float] = []
    recipe = dataclasses.replace(digits.recipe_for(name, epochs=epochs), degrees_max=0.0, share_max=0.0)
    network = digits.train(recipe, lambda epoch, of, loss: losses.append(loss))
    assert len(losses) == epochs
    assert not network.training
    assert digits.accuracy(network, digits.load()[1], name) > 0.7


@pytest.mark.slow
@pytest.mark.parametrize(("name", "share"), [("lenet5", 0.98), ("lenet5-1998", 0.98), ("resnet-digits", 0.993)])
def test_the_recipe_reaches_its_accuracy(name: str, share: float) -> None:
    assert digits.accuracy(digits.train(digits.recipe_for(name)), digits.load()[1], name) >= share


def test_a_seed_decides_the_weights() -> None:
    first, again, other = (
        digits.train(digits.Recipe(epochs=1, seed=seed)).state_dict()["c1.weight"] for seed in (4, 4, 5)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_command_saves_the_weights_with_their_recipe_and_trains_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights" / "of.pt"
    command = ["digits", "--out", str(path), "--architecture", "lenet5-1998", "--epochs", "1", "--seed", "2"]
    monkeypatch.setattr(sys, "argv", command)
    digits.main()
    assert "accuracy on the 450 held-out digits" in capsys.readouterr().out
    saved = torch.load(path, weights_only=True)
    assert saved["recipe"] == dataclasses.asdict(digits.recipe_for("lenet5-1998", seed=2, epochs=1))
    zoo.find("lenet5-1998").build(10).load_state_dict(saved["state_dict"], strict=True)
    digits.main()
    assert "holds the weights of this recipe already" in capsys.readouterr().out
