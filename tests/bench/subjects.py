"""What is measured: networks exported once with random weights, photos as JPEG files, and ways to send them.

Path: engine → **subjects** → limits, served, overload.
"""

import dataclasses
import io
import pathlib
import subprocess
import sys

from tests.bench import processes

MODELS_FOLDER = processes.BUILD / "models"
PHOTOS_FOLDER = processes.BUILD / "photos"
MODELS = ("lenet5", "alexnet", "googlenet", "resnet18", "resnet50")
PHOTO_SIZE = (500, 375)
PHOTOS = 16


@dataclasses.dataclass(frozen=True)
class Way:
    """How requests are sent: images in each, streams (0: unary), requests under way, files or pixels."""

    name: str
    images: int
    streams: int
    concurrency: int
    is_jpeg: bool

    def arguments(self) -> list[str]:
        """Return the load generator's arguments."""
        sent = ["--batch", str(self.images), "--streams", str(self.streams), "--concurrency", str(self.concurrency)]
        return [*sent, *(["--images", str(PHOTOS_FOLDER)] if self.is_jpeg else [])]


def ways(model: str) -> list[Way]:
    """Return the ways for a model: small networks need more under way to be busy."""
    unary, streams, in_flight, eights, many = (32, 8, 64, 8, 4) if model == "lenet5" else (16, 4, 16, 4, 2)
    return [
        way
        for kind, is_jpeg in (("pixels", False), ("JPEG", True))
        for way in (
            Way(f"unary, {kind}", 1, 0, unary, is_jpeg),
            Way(f"stream, {kind}", 1, streams, in_flight, is_jpeg),
            Way(f"8 images, {kind}", 8, 0, eights, is_jpeg),
            Way(f"32 images, {kind}", 32, 0, many, is_jpeg),
        )
    ]


def repository(model: str) -> pathlib.Path:
    """Return a repository with this model alone, exported if it is not there."""
    folder = MODELS_FOLDER / model
    if not graph(model).exists():
        print(f"exporting {model}", file=sys.stderr)  # noqa: T201 - the command's output
        export = ["export", model, "--weights", "random", "--repository", str(folder), "--replace"]
        command = [sys.executable, "-m", "fovea", *export]
        subprocess.run(command, check=True, cwd=processes.ROOT, stdout=subprocess.DEVNULL)
    return folder


def graph(model: str) -> pathlib.Path:
    """Return where the model's graph is."""
    return MODELS_FOLDER / model / model / "1" / "model.onnx"


def photos() -> pathlib.Path:
    """Return the folder of photos, made if it is not there: crops of two photographs, quality 90, 4:2:0."""
    if len(list(PHOTOS_FOLDER.glob("*.jpg"))) < PHOTOS:
        from PIL import Image
        from sklearn import datasets

        PHOTOS_FOLDER.mkdir(parents=True, exist_ok=True)
        for number in range(PHOTOS):
            image = Image.fromarray(datasets.load_sample_images().images[number % 2])
            left, top = 8 * number, 3 * number
            crop = image.crop((left, top, left + PHOTO_SIZE[0], top + PHOTO_SIZE[1]))
            buffer = io.BytesIO()
            crop.save(buffer, "JPEG", quality=90)
            (PHOTOS_FOLDER / f"{number:02}.jpg").write_bytes(buffer.getvalue())
    return PHOTOS_FOLDER
