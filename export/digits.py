"""Networks trained on scikit-learn's 1797 handwritten digits: `python -m export.digits --out FILE`.

Path: zoo → **digits** → weights. 1347 digits train, 450 are held out (stratified, seed 0) and never seen
in training. The 8x8 digits are enlarged to 24x24 (bilinear) in the middle of 32x32, as LeNet-5 expects a
margin.
"""

import argparse
import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional as F

from export import errors, zoo

Progress = Callable[[int, int, float], None]
"""Called after each epoch with its number from 1, how many there are, and the mean loss."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, on one kind of machine. The defaults are LeNet-5's."""

    architecture: str = "lenet5"
    epochs: int = 30
    batch: int = 64
    learning_rate_max: float = 3e-3
    degrees_max: float = 10.0
    """Augmentation: rotation and shear up to this many degrees, scale and shift up to `share_max`."""
    share_max: float = 0.1
    logit_scale: float = 1.0
    """What the loss multiplies the logits by; it does not change the network's own logits."""
    seed: int = 0


RECIPES = {
    recipe.architecture: recipe
    for recipe in (
        Recipe(),
        # Its logits are squared distances in 84 dimensions: unscaled, one misread digit outweighs a batch.
        Recipe("lenet5-1998", epochs=60, learning_rate_max=6e-3, logit_scale=0.1),
        Recipe("resnet-digits", epochs=25),
    )
}
"""What trains each network that can be trained here; accuracies are in tests/export/zoo/test_digits.py."""


def recipe_for(architecture: str, seed: int = 0, epochs: int | None = None) -> Recipe:
    """Return the recipe of that network, with its own number of epochs unless another is given.

    Raises:
        WeightsError: it is not one for digits.
    """
    if architecture not in RECIPES:
        raise errors.WeightsError(
            f"weights 'digits' are for {', '.join(RECIPES)}, not {architecture}; name a file of weights"
        )
    recipe = RECIPES[architecture]
    return dataclasses.replace(recipe, seed=seed, epochs=recipe.epochs if epochs is None else epochs)


@dataclasses.dataclass(frozen=True, slots=True)
class Digits:
    """Images (N, 32, 32, 1) uint8 and labels (N,) int64."""

    images_nhwc: NDArray[np.uint8]
    labels: NDArray[np.int64]


@functools.cache
def load() -> tuple[Digits, Digits]:
    """Return the training digits and the held-out digits."""
    from sklearn import datasets, model_selection  # noqa: PLC0415 - slow to load, and used only here

    digits = datasets.load_digits()
    images_nhwc = np.stack([_render(image) for image in digits.images])
    parts = model_selection.train_test_split(
        images_nhwc, digits.target.astype(np.int64), test_size=450, stratify=digits.target, random_state=0
    )
    return Digits(parts[0], parts[2]), Digits(parts[1], parts[3])


def _render(image_hw: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return an 8x8 digit of 0..16 as (32, 32, 1) uint8."""
    small = Image.fromarray(np.round(image_hw * (255 / 16)).astype(np.uint8))
    large = np.zeros((32, 32, 1), np.uint8)
    large[4:28, 4:28, 0] = np.asarray(small.resize((24, 24), Image.Resampling.BILINEAR))
    return large


def train(recipe: Recipe, progress: Progress = lambda epoch, epochs, loss: None) -> nn.Module:
    """Return the recipe's network trained on the training digits, in eval mode."""
    torch.manual_seed(recipe.seed)
    network = zoo.find(recipe.architecture).build(10)
    digits, _ = load()
    images_nchw = normalised(digits.images_nhwc, recipe.architecture)
    labels = torch.from_numpy(digits.labels)
    steps = (len(labels) + recipe.batch - 1) // recipe.batch
    optimizer = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate_max, epochs=recipe.epochs, steps_per_epoch=steps
    )
    for epoch in range(1, recipe.epochs + 1):
        losses = []
        order = torch.randperm(len(labels))
        for chosen in torch.split(order, recipe.batch):
            logits = network(_augmented(images_nchw[chosen], recipe))
            loss = F.cross_entropy(recipe.logit_scale * logits, labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation here
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        progress(epoch, recipe.epochs, float(np.mean(losses)))
    return network.eval()


def normalised(images_nhwc: NDArray[np.uint8], architecture: str = "lenet5") -> torch.Tensor:
    """Return (N, H, W, C) uint8 as (N, C, H, W) float32, scaled and normalised as the network wants it."""
    wanted = zoo.find(architecture).preprocessing
    mean, std = (torch.tensor(values)[:, None, None] for values in (wanted.mean, wanted.std))
    pixels_nchw = torch.from_numpy(images_nhwc.astype(np.float32)).permute(0, 3, 1, 2) / 255
    return ((pixels_nchw - mean) / std).contiguous()


def accuracy(network: nn.Module, digits: Digits, architecture: str = "lenet5") -> float:
    """Return the share of digits that the network, in eval mode, gets right."""
    images_nchw = normalised(digits.images_nhwc, architecture)
    with torch.inference_mode():
        best = network(images_nchw).argmax(1).numpy()
    return float((best == digits.labels).mean())


def _augmented(images_nchw: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Rotate, scale, shear and shift each image at random; the margin is continued outwards."""
    count = len(images_nchw)

    def random(most: float) -> torch.Tensor:
        return (torch.rand(count) * 2 - 1) * most

    angle, shear = torch.deg2rad(random(recipe.degrees_max)), torch.deg2rad(random(recipe.degrees_max))
    scale = 1 + random(recipe.share_max)
    shift_x, shift_y = random(2 * recipe.share_max), random(2 * recipe.share_max)  # of -1..1: twice the share
    rows = (
        torch.stack((scale * angle.cos(), -scale * (angle + shear).sin(), shift_x), 1),
        torch.stack((scale * angle.sin(), scale * (angle + shear).cos(), shift_y), 1),
    )
    grid = F.affine_grid(torch.stack(rows, 1), list(images_nchw.shape), align_corners=False)
    return F.grid_sample(images_nchw, grid, padding_mode="border", align_corners=False)


def train_with_bar(recipe: Recipe) -> nn.Module:
    """Train with a progress bar on the console."""
    from rich import progress  # noqa: PLC0415 - only for people

    columns = ("[progress.description]{task.description}", progress.BarColumn(), progress.TimeElapsedColumn())
    what = f"training {recipe.architecture}"
    with progress.Progress(*columns) as bar:
        task = bar.add_task(what, total=recipe.epochs)
        return train(
            recipe,
            lambda epoch, epochs, loss: bar.update(
                task, completed=epoch, description=f"{what}: epoch {epoch}/{epochs}, loss {loss:.3f}"
            ),
        )


def main() -> None:
    """Train, report the accuracy on the held-out digits, and save; nothing to do if it is saved already."""
    parser = argparse.ArgumentParser(description="Train a network on scikit-learn's digits.")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="where to save the weights (.pt)")
    parser.add_argument("--architecture", choices=RECIPES, default="lenet5")
    parser.add_argument("--epochs", type=int, help="as the architecture's recipe has it, unless given")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    recipe = recipe_for(arguments.architecture, arguments.seed, arguments.epochs)
    if _saved_recipe(arguments.out) == dataclasses.asdict(recipe):
        print(f"{arguments.out} holds the weights of this recipe already")  # noqa: T201 - the command's output
        return
    network = train_with_bar(recipe)
    share = accuracy(network, load()[1], recipe.architecture)
    print(f"accuracy on the 450 held-out digits: {share:.2%}")  # noqa: T201 - the command's output
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    part = arguments.out.with_suffix(".part")
    torch.save({"state_dict": network.state_dict(), "recipe": dataclasses.asdict(recipe)}, part)
    part.replace(arguments.out)


def _saved_recipe(path: pathlib.Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    recipe: dict[str, Any] | None = torch.load(path, weights_only=True).get("recipe")
    return recipe


if __name__ == "__main__":
    main()
