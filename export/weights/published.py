"""The weight files that torchvision has published: what each holds, and how its images are prepared.

Path: **published** → download, weights. It loads no torch: the names are wanted without it.

Files, accuracies and preprocessing are those of torchvision 0.28 (`AlexNet_Weights`, `GoogLeNet_Weights`,
`ResNet*_Weights`). The last eight digits of a name are the start of the file's SHA-256. A file is known
by its content, whatever it is called.
"""

import dataclasses
from collections.abc import Sequence

from export import errors, preprocessing

FOLDER_URL = "https://download.pytorch.org/models/"
PREFIX_LENGTH = 8
CLASSES = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class KnownFile:
    """One published file.

    `top1` and `top5` are accuracies in percent on ImageNet's 50,000 validation images, one crop each.
    """

    file: str
    architecture: str
    name: str
    """As torchvision calls it, such as "IMAGENET1K_V2"."""
    preprocessing: preprocessing.Preprocessing
    top1: float
    top5: float
    folder_url: str = FOLDER_URL

    @property
    def sha256_prefix(self) -> str:
        """The first eight digits of the file's SHA-256."""
        return self.file.rpartition(".")[0][-PREFIX_LENGTH:]

    @property
    def url(self) -> str:
        """Where it is published."""
        return self.folder_url + self.file


_V1, _V2 = preprocessing.imagenet(resize_px=256), preprocessing.imagenet(resize_px=232)
# The weights were converted from TensorFlow's: they want pixels in -1..1, by way of ImageNet's mean.
_GOOGLENET = dataclasses.replace(_V1, transform_input=True)

CURRENT: tuple[KnownFile, ...] = (
    KnownFile("alexnet-owt-7be5be79.pth", "alexnet", "IMAGENET1K_V1", _V1, 56.522, 79.066),
    KnownFile("googlenet-1378be20.pth", "googlenet", "IMAGENET1K_V1", _GOOGLENET, 69.778, 89.530),
    KnownFile("resnet18-f37072fd.pth", "resnet18", "IMAGENET1K_V1", _V1, 69.758, 89.078),
    KnownFile("resnet34-b627a593.pth", "resnet34", "IMAGENET1K_V1", _V1, 73.314, 91.420),
    KnownFile("resnet50-0676ba61.pth", "resnet50", "IMAGENET1K_V1", _V1, 76.130, 92.862),
    KnownFile("resnet50-11ad3fa6.pth", "resnet50", "IMAGENET1K_V2", _V2, 80.858, 95.434),
    KnownFile("resnet101-63fe2227.pth", "resnet101", "IMAGENET1K_V1", _V1, 77.374, 93.546),
    KnownFile("resnet101-cd907fc2.pth", "resnet101", "IMAGENET1K_V2", _V2, 81.886, 95.780),
    KnownFile("resnet152-394f9c45.pth", "resnet152", "IMAGENET1K_V1", _V1, 78.312, 94.046),
    KnownFile("resnet152-f82ba261.pth", "resnet152", "IMAGENET1K_V2", _V2, 82.284, 96.002),
)

# The first uploads of the same weights, in PyTorch's older file format; they were saved again in 2020
# (https://github.com/pytorch/vision/issues/2068). Old file → the current one.
_OLDER = {
    "alexnet-owt-4df8aa71.pth": "alexnet-owt-7be5be79.pth",
    "resnet18-5c106cde.pth": "resnet18-f37072fd.pth",
    "resnet34-333f7ec4.pth": "resnet34-b627a593.pth",
    "resnet50-19c8e357.pth": "resnet50-0676ba61.pth",
    "resnet101-5d3b4d8f.pth": "resnet101-63fe2227.pth",
    "resnet152-b121ed2d.pth": "resnet152-394f9c45.pth",
}

FILES: tuple[KnownFile, ...] = CURRENT + tuple(
    dataclasses.replace(current, file=older)
    for older, newer in _OLDER.items()
    for current in CURRENT
    if current.file == newer
)


def by_sha256(sha256: str, files: Sequence[KnownFile] = FILES) -> KnownFile | None:
    """Return what is known of the file with that SHA-256 (hexadecimal), if anything is."""
    return next((known for known in files if sha256.startswith(known.sha256_prefix)), None)


def by_name(source: str, architecture: str, files: Sequence[KnownFile] = FILES) -> KnownFile | None:
    """Return the published file that is meant, or None if `source` is no such name.

    Args:
        source: "imagenet" (the best there is), "imagenet1k-v1", "imagenet1k-v2" (as torchvision writes it,
            too: IMAGENET1K_V2), or a file's name.
        architecture: for which network; "" for a user's own, for which only file names mean something.
        files: the table.

    Raises:
        WeightsError: the architecture has no such weights, or the file is another's.
    """
    word = source.lower().replace("_", "-")
    if word not in ("imagenet", "imagenet1k-v1", "imagenet1k-v2"):
        return _by_file(source, architecture, files)
    of_architecture = [known for known in files if known.architecture == architecture]
    meant = [known for known in of_architecture if word in ("imagenet", known.name.lower().replace("_", "-"))]
    if meant:
        return max(meant, key=lambda known: known.name)
    names = sorted({known.name.lower().replace("_", "-") for known in of_architecture})
    has = f"it has {' and '.join(names)}" if names else "pass --weights FILE, or --weights random"
    raise errors.WeightsError(
        f"no weights {source!r} are published for {architecture or 'a network of your own'}; {has}"
    )


def _by_file(source: str, architecture: str, files: Sequence[KnownFile]) -> KnownFile | None:
    known = next((known for known in files if known.file == source), None)
    if known is not None:
        refuse_others(known, architecture)
    return known


def refuse_others(known: KnownFile, architecture: str) -> None:
    """Do nothing if the file is the architecture's, or the architecture is a user's own ("").

    Raises:
        WeightsError: it is another's.
    """
    if architecture not in ("", known.architecture):
        raise errors.WeightsError(
            f"{known.file} holds the weights of {known.architecture} ({known.name}), not of {architecture}; "
            f"export {known.architecture}, or pass weights of {architecture}"
        )
