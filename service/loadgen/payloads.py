"""Request messages, serialised once before the load: encoded images from files, or random pixels.

Path: files or seed → **payloads** → senders.
"""

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos import inference_pb2
from service import errors
from service.loadgen import plan, target

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})

BYTES_MAX = 256 * 2**20
"""Prepared requests together; of more images than fit, the first are sent again and again."""

PIXEL_REQUESTS = 16
"""Different requests of random pixels: enough that no cache holds them all for the large ones."""

_DTYPES: dict[str, Any] = {
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BOOL": np.bool_,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Parameters:
    """What each request carries beside its inputs: deadline in seconds, priority (0: the model's default)."""

    deadline_s: float | None
    priority: int

    @classmethod
    def of(cls, chosen: plan.Plan) -> "Parameters":
        """Return a plan's."""
        return cls(chosen.deadline_s, chosen.priority)


def read(places: Sequence[pathlib.Path]) -> list[bytes]:
    """Return the contents of image files; of folders, all image files directly in them, by name.

    Raises:
        StartupError: a place is not there, cannot be read, or is a folder without images.
    """
    try:
        return [path.read_bytes() for path in itertools.chain.from_iterable(map(_files, places))]
    except OSError as error:
        raise errors.StartupError(f"{error.filename} cannot be read: {error.strerror}") from error


def _files(place: pathlib.Path) -> list[pathlib.Path]:
    if not place.is_dir():
        return [place]
    files = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise errors.StartupError(f"{place} has no image files; expected {', '.join(sorted(SUFFIXES))} in it")
    return files


def of_images(described: target.Described, files: Sequence[bytes], images: int, parameters: Parameters) -> list[bytes]:
    """Return requests of `images` encoded files each, which together send every file at least once.

    Raises:
        StartupError: the model takes no images, or one sample at a time.
    """
    if not described.image_input:
        raise errors.StartupError(f"model {described.model!r} takes no encoded images; leave --images out")
    _check_samples(described, images)
    endless = itertools.cycle(files)
    requests, size = [], 0
    for _ in range(math.ceil(len(files) / images)):
        request = _request(described, parameters)
        request.inputs.add(name=described.image_input, datatype="BYTES", shape=[images])
        raw = b"".join(part for file in itertools.islice(endless, images) for part in (_length(file), file))
        request.raw_input_contents.append(raw)
        requests.append(request.SerializeToString())
        size += len(raw)
        if size >= BYTES_MAX:
            break
    return requests


def of_pixels(described: target.Described, samples: int, parameters: Parameters, seed: int = 0) -> list[bytes]:
    """Return requests of random tensors, `samples` in each: uint8 over all levels, floats normal.

    Raises:
        StartupError: the model takes one sample at a time, or has an input that cannot be made up.
    """
    _check_samples(described, samples)
    random = np.random.default_rng(seed)
    requests = [_random_request(described, samples, parameters, random)]
    while len(requests) < PIXEL_REQUESTS and (len(requests) + 1) * len(requests[0]) <= BYTES_MAX:
        requests.append(_random_request(described, samples, parameters, random))
    return requests


def _random_request(
    described: target.Described, samples: int, parameters: Parameters, random: np.random.Generator
) -> bytes:
    request = _request(described, parameters)
    for tensor in described.inputs:
        shape = ((samples,) if described.images_max else ()) + tensor.shape
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=shape)
        request.raw_input_contents.append(_values(described, tensor, shape, random).tobytes())
    return request.SerializeToString()


def _values(
    described: target.Described, tensor: target.Tensor, shape: tuple[int, ...], random: np.random.Generator
) -> NDArray[Any]:
    dtype = _DTYPES.get(tensor.datatype)
    if dtype is None or min(shape) < 0:
        raise errors.StartupError(
            f"input {tensor.name!r} of model {described.model!r} is {tensor.datatype} {list(tensor.shape)}; "
            "values can be made up for numbers of a fixed shape only; send files with --images"
        )
    if np.issubdtype(dtype, np.floating):
        return random.standard_normal(shape, np.float32).astype(dtype)
    return random.integers(0, 2 if dtype is np.bool_ else 128 if dtype is np.int8 else 256, shape).astype(dtype)


def _request(described: target.Described, parameters: Parameters) -> inference_pb2.ModelInferRequest:
    request = inference_pb2.ModelInferRequest(model_name=described.model)
    if parameters.deadline_s is not None:
        request.parameters["timeout"].int64_param = max(1, round(parameters.deadline_s * 1e6))
    if parameters.priority:
        request.parameters["priority"].uint64_param = parameters.priority
    return request


def _check_samples(described: target.Described, samples: int) -> None:
    """More than `max_batch_size` is the server's to take or to refuse."""
    if samples > 1 and not described.images_max:
        raise errors.StartupError(
            f"model {described.model!r} has no batch dimension: one sample a request, got --batch {samples}"
        )


def _length(file: bytes) -> bytes:
    return len(file).to_bytes(4, "little")
