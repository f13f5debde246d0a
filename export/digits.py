"""LeNet-5 trained on scikit-learn's 1797 handwritten digits: `python -m export.digits --out FILE`.

1347 digits train, 450 are held out (stratified, seed 0) and never seen in training. The 8x8 digits
are enlarged to 24x24 (bilinear) in the middle of 32x32, as LeNet-5 expects a margin.
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

from export import zoo

Progress = Callable[[int, int, float], None]
"""Called after each epoch with its number from 1, how many there are, and the mean loss."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, on one kind of machine."""

    epochs: int = 30
    batch: int = 64
    learning_rate_max: float = 3e-3
    degrees_max: float = 10.0
    """Augmentation: rotation and shear up to this many degrees, scale and shift up to `share_max`."""
    share_max: float = 0.1
    seed: int = 0


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
    """Return LeNet-5 trained on the training digits."""
    torch.manual_seed(recipe.seed)
    network = zoo.find("lenet5").build(10)
    digits, _ = load()
    images_nchw, labels = normalised(digits.images_nhwc), torch.from_numpy(digits.labels)
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
            loss = F.cross_entropy(logits, labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation here
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        progress(epoch, recipe.epochs, float(np.mean(losses)))
    return network.eval()


def normalised(images_nhwc: NDArray[np.uint8]) -> torch.Tensor:
    """Return (N, H, W, C) uint8 as (N, C, H, W) float32, scaled and normalised as LeNet-5 wants it."""
    lenet5 = zoo.find("lenet5")
    pixels_nchw = torch.from_numpy(images_nhwc.astype(np.float32)).permute(0, 3, 1, 2) / 255
    return ((pixels_nchw - lenet5.mean[0]) / lenet5.std[0]).contiguous()


def accuracy(network: nn.Module, digits: Digits) -> float:
    """Return the share of digits that the network gets right."""
    with torch.inference_mode():
        best = network(normalised(digits.images_nhwc)).argmax(1).numpy()
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
    with progress.Progress(*columns) as bar:
        task = bar.add_task("training LeNet-5", total=recipe.epochs)
        return train(
            recipe,
            lambda epoch, epochs, loss: bar.update(
                task, completed=epoch, description=f"training LeNet-5: epoch {epoch}/{epochs}, loss {loss:.3f}"
            ),
        )


def main() -> None:
    """Train, report the accuracy on the held-out digits, and save; nothing to do if it is saved already."""
    parser = argparse.ArgumentParser(description="Train LeNet-5 on scikit-learn's digits.")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="where to save the weights (.pt)")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    arguments = parser.parse_args()
    recipe = Recipe(epochs=arguments.epochs, seed=arguments.seed)
    if _saved_recipe(arguments.out) == dataclasses.asdict(recipe):
        print(f"{arguments.out} holds the weights of this recipe already")  # noqa: T201 - the command's output
        return
    network = train_with_bar(recipe)
    share = accuracy(network, load()[1])
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
