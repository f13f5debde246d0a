"""The runs that a config.pbtxt asks for before the model serves: `model_warmup`.

Path: config → **warmup** → instances. They come after Fovea's own, which run every batch size; they
are worth writing for inputs of any size, where nothing else says which sizes will come.
"""

import math
import pathlib

import numpy as np
from numpy.typing import NDArray

from protos import model_config_pb2
from service import datatypes, errors
from service.runtime import instances

FOLDER = "warmup"
"""Beside the config: where files with input data are."""


def run(model: str, folder: pathlib.Path, config: model_config_pb2.ModelConfig, loaded: instances.Instances) -> int:
    """Run every entry, `count` times; return how many there are.

    Raises:
        ModelLoadError: an entry does not fit the model, its file is not there, or its run fails.
    """
    for number, entry in enumerate(config.model_warmup, start=1):
        said = f"model_warmup entry {entry.name or number}"
        try:
            inputs = _inputs(folder, config, entry, loaded)
            for _ in range(max(1, entry.count)):
                loaded.run(inputs, [spec.name for spec in loaded.outputs])
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this
            raise errors.ModelLoadError(model, f"its {said!r} cannot be run: {error}") from error
    return len(config.model_warmup)


def _inputs(
    folder: pathlib.Path,
    config: model_config_pb2.ModelConfig,
    entry: model_config_pb2.ModelWarmup,
    loaded: instances.Instances,
) -> dict[str, NDArray[np.generic]]:
    batch = max(1, entry.batch_size)
    is_batched = config.max_batch_size > 0
    if batch > max(1, config.max_batch_size):
        raise ValueError(f"batch_size is {batch}, max_batch_size {config.max_batch_size}")
    specs = {spec.name: spec for spec in loaded.inputs}
    for name in entry.inputs:
        if name not in specs:
            raise ValueError(f"the model has no input {name!r}{errors.nearest(name, specs)}")
    made = {}
    for name, spec in specs.items():
        if name not in entry.inputs:
            raise ValueError(f"input {name!r} is missing")
        sample = _sample(folder, name, entry.inputs[name], spec, is_batched=is_batched)
        made[name] = np.repeat(sample[None], batch, axis=0) if is_batched else sample
    return made


def _sample(
    folder: pathlib.Path,
    name: str,
    said: model_config_pb2.ModelWarmup.Input,
    spec: datatypes.TensorSpec,
    *,
    is_batched: bool,
) -> NDArray[np.generic]:
    """One sample, without the batch dimension if the model has one."""
    if model_config_pb2.DataType.Name(said.data_type) != spec.datatype.config:
        got = model_config_pb2.DataType.Name(said.data_type)
        raise ValueError(f"data_type of input {name!r} is {got}; expected {spec.datatype.config}")
    shape, wanted = tuple(said.dims), spec.shape[1:] if is_batched else spec.shape
    fits = len(shape) == len(wanted) and all(
        size > 0 and most in {-1, size} for size, most in zip(shape, wanted, strict=True)
    )
    if not fits:
        raise ValueError(f"dims of input {name!r} are {list(shape)}; expected {list(wanted)}, -1 being any size")
    kind = said.WhichOneof("input_data_type")
    if kind == "input_data_file":
        return _from_file(folder / FOLDER, said.input_data_file, shape, spec.datatype)
    if kind == "random_data":
        return _random(shape, spec.datatype)
    if kind == "zero_data":
        return datatypes.zeros(shape, spec.datatype)
    raise ValueError(f"input {name!r} names no data; expected zero_data, random_data or input_data_file")


def _from_file(
    folder: pathlib.Path, filename: str, shape: tuple[int, ...], datatype: datatypes.Datatype
) -> NDArray[np.generic]:
    """The elements one after another, little-endian, each string behind its length in 4 bytes, as in Triton."""
    path = (folder / filename).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"input_data_file {filename!r} leaves {folder}")
    content = path.read_bytes()
    if datatype is datatypes.STRING:
        return _texts(path, content, shape)
    dtype = datatype.numpy
    size_bytes = math.prod(shape) * dtype.itemsize
    if len(content) != size_bytes:
        raise ValueError(f"{path} has {len(content)} bytes; dims {list(shape)} of {dtype} need {size_bytes}")
    return np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype).reshape(shape)


def _texts(path: pathlib.Path, content: bytes, shape: tuple[int, ...]) -> NDArray[np.generic]:
    elements: list[str] = []
    position = 0
    while position < len(content):
        start = position + 4
        position = start + int.from_bytes(content[position:start], "little")
        elements.append(content[start:position].decode())
    if position != len(content) or len(elements) != math.prod(shape):
        raise ValueError(f"{path} has {len(elements)} strings in {len(content)} bytes; dims {list(shape)} need others")
    return np.array(elements, np.object_).reshape(shape)


def _random(shape: tuple[int, ...], datatype: datatypes.Datatype) -> NDArray[np.generic]:
    """The same values every time: floats from 0 to 1, bytes from 0 to 255, other integers 0 and 1, also as strings."""
    generator, dtype = np.random.default_rng(0), datatype.numpy
    if datatype is datatypes.BF16:
        return datatypes.patterns(generator.random(shape))
    if dtype.kind == "f":
        return generator.random(shape).astype(dtype)
    if datatype is datatypes.STRING:
        return generator.integers(0, 2, shape).astype(np.str_).astype(np.object_)
    return generator.integers(0, 256 if dtype == np.uint8 else 2, shape).astype(dtype)
