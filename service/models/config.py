"""A model's config.pbtxt: read, checked against the loaded graph, completed.

Path: repository → **config** → lifecycle.

Every field of ModelConfig has a treatment. HONOURED: it does what Triton's documentation says.
NOTED: it has no effect on answers; a warning says so. REFUSED: it would change answers or
scheduling, and Fovea does not do it; the model is not loaded. A test walks the descriptor.
"""

import enum
import pathlib
from collections.abc import Iterator, Sequence

from google.protobuf import text_format
from google.protobuf.message import Message

from protos import model_config_pb2
from service import datatypes, errors
from service.batching import planner

PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"


class Treatment(enum.Enum):
    """What Fovea does with a field that is set."""

    HONOURED = "honoured"
    NOTED = "noted"
    REFUSED = "refused"


H, N, R = Treatment.HONOURED, Treatment.NOTED, Treatment.REFUSED

TREATMENTS: dict[str, Treatment] = {
    "name": H,
    "platform": H,
    "backend": H,
    "runtime": N,
    "version_policy": R,
    "max_batch_size": H,
    "input.name": H,
    "input.data_type": H,
    "input.format": N,
    "input.dims": H,
    "input.reshape": R,
    "input.is_shape_tensor": R,
    "input.allow_ragged_batch": R,
    "input.optional": R,
    "input.is_non_linear_format_io": R,
    "output.name": H,
    "output.data_type": H,
    "output.dims": H,
    "output.reshape": R,
    "output.label_filename": H,
    "output.is_shape_tensor": R,
    "output.is_non_linear_format_io": R,
    "batch_input": R,
    "batch_output": R,
    "optimization": N,
    "dynamic_batching.preferred_batch_size": N,
    "dynamic_batching.max_queue_delay_microseconds": H,
    "dynamic_batching.preserve_ordering": R,
    "dynamic_batching.priority_levels": R,
    "dynamic_batching.default_priority_level": R,
    "dynamic_batching.default_queue_policy": R,
    "dynamic_batching.priority_queue_policy": R,
    "sequence_batching": R,
    "ensemble_scheduling": R,
    "instance_group": N,
    "default_model_filename": H,
    "cc_model_filenames": R,
    "metric_tags": N,
    "parameters": N,
    "model_warmup": N,
    "model_operations": R,
    "model_transaction_policy": R,
    "model_repository_agents": R,
    "response_cache": N,
    "model_metrics": N,
}


def read(model: str, path: pathlib.Path) -> tuple[model_config_pb2.ModelConfig | None, list[str]]:
    """Read config.pbtxt.

    Returns:
        The config, or None if there is no file; and the names of noted fields that are set.

    Raises:
        ModelLoadError: the text does not parse, or sets a field that is refused.
    """
    if not path.exists():
        return None, []
    config = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(path.read_text(), config)
    except (text_format.ParseError, UnicodeDecodeError, OSError) as error:
        raise errors.ModelLoadError(model, f"{path} cannot be read: {error}") from error
    fields = list(_set_fields(config))
    refused = [field for field in fields if TREATMENTS[field] is R]
    if refused:
        raise errors.ModelLoadError(
            model, f"{path} sets {', '.join(refused)}, which Fovea does not support; remove it to serve the model"
        )
    _check_identity(model, path, config)
    return config, [field for field in fields if TREATMENTS[field] is N]


def complete(
    model: str,
    config: model_config_pb2.ModelConfig | None,
    inputs: Sequence[datatypes.TensorSpec],
    outputs: Sequence[datatypes.TensorSpec],
) -> model_config_pb2.ModelConfig:
    """Return the effective config: what the file says, checked, and what the graph says for the rest.

    Raises:
        ModelLoadError: file and graph contradict each other.
    """
    effective = model_config_pb2.ModelConfig()
    if config is not None:
        effective.CopyFrom(config)
    effective.name = model
    effective.platform, effective.backend = PLATFORM, BACKEND
    effective.default_model_filename = effective.default_model_filename or "model.onnx"
    is_batched = effective.max_batch_size > 0
    _complete_tensors(model, effective.input, inputs, is_batched)
    _complete_tensors(model, effective.output, outputs, is_batched)
    return effective


def policy(config: model_config_pb2.ModelConfig) -> planner.Policy:
    """Return what the config says about batching."""
    if config.max_batch_size == 0:
        return planner.Policy(batch_samples_max=1, merges_requests=False, has_batch_axis=False)
    return planner.Policy(
        batch_samples_max=config.max_batch_size,
        merges_requests=config.HasField("dynamic_batching"),
        delay_s=config.dynamic_batching.max_queue_delay_microseconds / 1e6,
    )


def _set_fields(message: Message, prefix: str = "") -> Iterator[str]:
    """Names of the fields that are set, as in TREATMENTS."""
    for field, value in message.ListFields():
        name = prefix + field.name
        if name in TREATMENTS:
            yield name
            continue
        for part in value if field.is_repeated else [value]:
            yield from _set_fields(part, f"{name}.")


def _check_identity(model: str, path: pathlib.Path, config: model_config_pb2.ModelConfig) -> None:
    if config.name not in {"", model}:
        raise errors.ModelLoadError(model, f"{path} says name: {config.name!r}, but the folder is {model!r}")
    if config.platform not in {"", PLATFORM} or config.backend not in {"", BACKEND}:
        raise errors.ModelLoadError(
            model,
            f"{path} says platform {config.platform!r}, backend {config.backend!r}; "
            f"Fovea serves platform {PLATFORM!r} or backend {BACKEND!r}",
        )
    if config.max_batch_size < 0:
        raise errors.ModelLoadError(model, f"{path} says max_batch_size {config.max_batch_size}; expected 0 or more")


def _complete_tensors(model: str, entries, specs: Sequence[datatypes.TensorSpec], is_batched: bool) -> None:  # type: ignore[no-untyped-def]  # entries: a repeated field, which has no public type
    known = {spec.name: spec for spec in specs}
    for entry in entries:
        if entry.name not in known:
            raise errors.ModelLoadError(
                model,
                f"config.pbtxt names tensor {entry.name!r}, which the graph does not have"
                f"{errors.nearest(entry.name, known)}; it has {', '.join(known)}",
            )
    present = {entry.name: entry for entry in entries}
    for spec in specs:
        entry = present[spec.name] if spec.name in present else entries.add(name=spec.name)
        _complete_tensor(model, entry, spec, is_batched)


def _complete_tensor(model: str, entry, spec: datatypes.TensorSpec, is_batched: bool) -> None:  # type: ignore[no-untyped-def]  # entry: ModelInput or ModelOutput
    graph_type = model_config_pb2.DataType.Value(spec.datatype.config)
    if entry.data_type not in {model_config_pb2.TYPE_INVALID, graph_type}:
        said = model_config_pb2.DataType.Name(entry.data_type)
        raise errors.ModelLoadError(
            model, f"config.pbtxt says {said} for {spec.name!r}; the graph has {spec.datatype.config}"
        )
    entry.data_type = graph_type
    if is_batched and (not spec.shape or spec.shape[0] != -1):
        raise errors.ModelLoadError(
            model,
            f"config.pbtxt says max_batch_size > 0, but the first dimension of {spec.name!r} is not free: "
            f"{list(spec.shape)}; export it with a dynamic batch, or set max_batch_size: 0",
        )
    dims = list(spec.shape[1:] if is_batched else spec.shape)
    said_dims = list(entry.dims)
    if said_dims and not _dims_agree(said_dims, dims):
        raise errors.ModelLoadError(
            model, f"config.pbtxt says dims {said_dims} for {spec.name!r}; the graph has {dims}"
        )
    if not said_dims:
        entry.dims.extend(dims)


def _dims_agree(said: Sequence[int], graph: Sequence[int]) -> bool:
    return len(said) == len(graph) and all(a == b or -1 in {a, b} for a, b in zip(said, graph, strict=True))
