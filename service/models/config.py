"""A model's config.pbtxt, read.

Path: repository → **config** → placement, completion, policy.

Every field of ModelConfig has a treatment. HONOURED: it does what Triton's documentation says.
NOTED: it has no effect on answers; a warning says so. REFUSED: it would change answers or
scheduling, and Fovea does not do it; the model is not loaded. A test walks the descriptor. Of
`parameters` the known names are honoured (see placement); the others are noted.
"""

import enum
import pathlib
from collections.abc import Iterator

from google.protobuf import json_format, text_format
from google.protobuf.message import Message

from protos import model_config_pb2
from service import errors

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
    "version_policy": H,
    "max_batch_size": H,
    "input.name": H,
    "input.data_type": H,
    "input.format": N,
    "input.dims": H,
    "input.reshape": H,
    "input.is_shape_tensor": R,
    "input.allow_ragged_batch": R,
    "input.optional": H,
    "input.is_non_linear_format_io": R,
    "output.name": H,
    "output.data_type": H,
    "output.dims": H,
    "output.reshape": H,
    "output.label_filename": H,
    "output.is_shape_tensor": R,
    "output.is_non_linear_format_io": R,
    "batch_input": R,
    "batch_output": R,
    "optimization.graph": H,
    "optimization.priority": N,
    "optimization.cuda.graphs": H,
    "optimization.cuda.busy_wait_events": N,
    "optimization.cuda.graph_spec": R,
    "optimization.cuda.output_copy_stream": N,
    "optimization.execution_accelerators": H,
    "optimization.input_pinned_memory": N,
    "optimization.output_pinned_memory": N,
    "optimization.gather_kernel_buffer_threshold": N,
    "optimization.eager_batching": N,
    "dynamic_batching.preferred_batch_size": H,
    "dynamic_batching.max_queue_delay_microseconds": H,
    "dynamic_batching.preserve_ordering": R,
    "dynamic_batching.priority_levels": H,
    "dynamic_batching.default_priority_level": H,
    "dynamic_batching.default_queue_policy": H,
    "dynamic_batching.priority_queue_policy": H,
    "sequence_batching": R,
    "ensemble_scheduling": R,
    "instance_group.name": H,
    "instance_group.count": H,
    "instance_group.gpus": H,
    "instance_group.kind": H,
    "instance_group.profile": R,
    "instance_group.rate_limiter": N,
    "instance_group.passive": R,
    "instance_group.secondary_devices": R,
    "instance_group.host_policy": N,
    "default_model_filename": H,
    "cc_model_filenames": R,
    "metric_tags": N,
    "parameters": H,
    "model_warmup": H,
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
    return config, _examine(model, str(path), config)


def from_json(model: str, text: str) -> tuple[model_config_pb2.ModelConfig, list[str]]:
    """Read the JSON that stands for config.pbtxt when a model is loaded by a call; as `read`.

    Raises:
        ModelLoadError: the text does not parse, or sets a field that is refused.
    """
    config = model_config_pb2.ModelConfig()
    try:
        json_format.Parse(text, config)
    except json_format.ParseError as error:
        raise errors.ModelLoadError(model, f"the parameter 'config' is no ModelConfig in JSON: {error}") from error
    return config, _examine(model, "the parameter 'config'", config)


def _examine(model: str, source: str, config: model_config_pb2.ModelConfig) -> list[str]:
    """The names of the noted fields that are set; raises for what is refused."""
    fields = list(_set_fields(config))
    refused = [field for field in fields if TREATMENTS[field] is R]
    if refused:
        raise errors.ModelLoadError(
            model, f"{source} sets {', '.join(refused)}, which Fovea does not support; remove it to serve the model"
        )
    _check_identity(model, source, config)
    return [field for field in fields if TREATMENTS[field] is N]


def _set_fields(message: Message, prefix: str = "") -> Iterator[str]:
    """Names of the fields that are set, as in TREATMENTS."""
    for field, value in message.ListFields():
        name = prefix + field.name
        if name in TREATMENTS:
            yield name
            continue
        for part in value if field.is_repeated else [value]:
            yield from _set_fields(part, f"{name}.")


def _check_identity(model: str, source: str, config: model_config_pb2.ModelConfig) -> None:
    if config.name not in {"", model}:
        raise errors.ModelLoadError(model, f"{source} says name: {config.name!r}, but the folder is {model!r}")
    if config.platform not in {"", PLATFORM} or config.backend not in {"", BACKEND}:
        raise errors.ModelLoadError(
            model,
            f"{source} says platform {config.platform!r}, backend {config.backend!r}; "
            f"Fovea serves platform {PLATFORM!r} or backend {BACKEND!r}",
        )
    if config.max_batch_size < 0:
        raise errors.ModelLoadError(model, f"{source} says max_batch_size {config.max_batch_size}; expected 0 or more")
