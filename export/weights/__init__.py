"""Weights for a network: from a file or an address, trained now, or random.

Path: zoo → **weights** → trace; files by way of published, download, checkpoint and fitting, random ones
of initial.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence

import torch
from torch import nn

from export import digits, errors, preprocessing, zoo
from export.weights import checkpoint, download, fitting, initial, published

WORDS = ("digits", "imagenet", "imagenet1k-v1", "imagenet1k-v2", "random")

# The heads that GoogLeNet has in training only. torchvision's file holds them, its network for inference does not.
AUXILIARY = frozenset(
    f"aux{number}.{name}"
    for number in (1, 2)
    for name in (
        *(f"conv.bn.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
        *("conv.conv.weight", "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"),
    )
)
_IGNORED = {"googlenet": AUXILIARY}


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """A network with its weights, in eval mode, float32, on the CPU; and where they come from."""

    network: nn.Module
    source: str
    """For people: "resnet50-11ad3fa6.pth", "digits", "random (seed 0)", "filters"."""
    file_sha256: str = ""
    """Of the file; "" if there is none."""
    known: published.KnownFile | None = None
    """What is known of the file, if it is a published one."""

    @property
    def preprocessing(self) -> preprocessing.Preprocessing | None:
        """What a published file wants its images prepared with, in place of the architecture's default."""
        return self.known.preprocessing if self.known else None


@dataclasses.dataclass(frozen=True, slots=True)
class _Shelf:
    """Where files come from: the folder of those downloaded, how that is shown, and those published."""

    cache: pathlib.Path | None
    progress: download.Progress
    known: Sequence[published.KnownFile]


def load(
    architecture: zoo.Architecture,
    source: str,
    classes: int,
    seed: int,
    cache: pathlib.Path | None = None,
    progress: download.Progress = download.bar,
    known: Sequence[published.KnownFile] = published.FILES,
) -> Loaded:
    """Return a network of the zoo with its weights.

    Args:
        architecture: which network. A bank of filters has no weights, and takes no source but "filters".
        source: the path of a .pth, .pt or .safetensors file; an https address; "imagenet",
            "imagenet1k-v1", "imagenet1k-v2" or the name of a published file; "digits" (trained now);
            "random"; or "" for the architecture's default.
        classes: how many the network tells apart; 0 for what is no classifier.
        seed: for "random" and "digits". The caller's generator is left as it was.
        cache: the folder of downloaded files; default: `download.cache_folder()`.
        progress: shows a download.
        known: the published files.

    Raises:
        WeightsError: there are no such weights, or they cannot be read, or do not fit the network.
        DownloadError: they cannot be fetched.
    """
    if architecture.is_fixed:
        return _bank(architecture, source, classes)
    source = source or architecture.weights
    if not source:
        raise errors.WeightsError(f"{architecture.name} has no weights of its own: pass --weights FILE, or random")
    if source == "digits":
        return _trained(architecture, classes, seed)
    if source == "random":
        return _random(_built(architecture, classes, seed), architecture.preprocessing, seed)
    path = _located(source, architecture.name, _Shelf(cache, progress, known))
    return _from_file(_built(architecture, classes, seed), path, architecture.name, classes, known)


def into(
    network: nn.Module,
    source: str,
    image: preprocessing.Preprocessing | None = None,
    seed: int = 0,
    cache: pathlib.Path | None = None,
    progress: download.Progress = download.bar,
    known: Sequence[published.KnownFile] = published.FILES,
) -> Loaded:
    """Give a user's own network its weights, and return it: float32, in eval mode.

    Args:
        network: changed in place.
        source: as for `load`, without what is the zoo's: a file, an address or "random".
        image: what the network is fed with; "random" needs it.
        seed: for "random".
        cache: as for `load`.
        progress: as for `load`.
        known: as for `load`.

    Raises:
        WeightsError: as `load`.
        DownloadError: as `load`.
    """
    network = network.float().eval()
    if source == "random" and image is not None:
        return _random(network, image, seed)
    if not source or source in WORDS:
        raise errors.WeightsError(
            f"there are no weights {source!r} for a network of your own; "
            "pass --weights FILE, or random and the size of its images"
        )
    path = _located(source, "", _Shelf(cache, progress, known))
    return _from_file(network, path, "", 0, known)


def sha256(network: nn.Module) -> str:
    """Return the SHA-256 over names, dtypes, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _bank(architecture: zoo.Architecture, source: str, classes: int) -> Loaded:
    if source not in ("", "filters"):
        raise errors.WeightsError(
            f"{architecture.name} is a bank of filters and has no weights; leave out --weights {source}"
        )
    return Loaded(architecture.build(classes).eval(), "filters")


def _built(architecture: zoo.Architecture, classes: int, seed: int) -> nn.Module:
    """Return the network as it is built, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs, too
        return architecture.build(classes).float().eval()


def _random(network: nn.Module, image: preprocessing.Preprocessing, seed: int) -> Loaded:
    initial.fill(network, image, seed)
    return Loaded(network, f"random (seed {seed})")


def _trained(architecture: zoo.Architecture, classes: int, seed: int) -> Loaded:
    if architecture.weights != "digits":
        raise errors.WeightsError(
            f"{architecture.name} cannot be trained on the digits; pass --weights FILE, or random"
        )
    if classes != architecture.classes:
        raise errors.WeightsError(f"there are {architecture.classes} digits, not {classes}; leave out --classes")
    with torch.random.fork_rng(devices=[]):
        network = digits.train_with_bar(digits.recipe_for(architecture.name, seed))
    return Loaded(network.eval(), "digits")


def _located(source: str, architecture: str, shelf: _Shelf) -> pathlib.Path:
    """Return the path of the file that is meant; it is downloaded if need be.

    Case 1: an address. Case 2: a file that is there, whatever its name. Case 3: a published one.
    """
    cache = shelf.cache or download.cache_folder()
    if "://" in source:  # case 1
        return download.fetch(source, cache, shelf.progress)
    path = pathlib.Path(source)
    if path.is_file():  # case 2
        return path
    published_file = published.by_name(source, architecture, shelf.known)
    if published_file is not None:  # case 3
        return download.fetch(published_file.url, cache, shelf.progress)
    if path.exists():
        return path  # a folder, say: the checkpoint explains it
    neighbours = [str(path.with_name(other.name)) for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = errors.nearest(source, [*neighbours, *WORDS, *(file.file for file in shelf.known)])
    raise errors.WeightsError(
        f"weights {source} cannot be read: there is no such file{near}; expected a .pth, .pt or .safetensors file, "
        f"an https address, or one of {', '.join(WORDS)}"
    )


def _from_file(
    network: nn.Module, path: pathlib.Path, architecture: str, classes: int, files: Sequence[published.KnownFile]
) -> Loaded:
    state = checkpoint.read(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    known = published.by_sha256(digest, files)
    if known is not None:
        published.refuse_others(known, architecture)
    narrowed = fitting.fit(network, state, str(path), classes, _IGNORED.get(architecture, ()))
    note = f" ({', '.join(narrowed)} made float32)" if narrowed else ""
    return Loaded(network, path.name + note, digest, known)
