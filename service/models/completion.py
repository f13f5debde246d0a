"""A config checked against the loaded graph, and completed with what the graph says.

Path: config and session → **completion** → lifecycle, and wire's ModelConfig.
"""

from collections.abc import Sequence

from protos import model_config_pb2
from service import datatypes, errors
from service.models import config as model_config


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
    effective.platform, effective.backend = model_config.PLATFORM, model_config.BACKEND
    effective.default_model_filename = effective.default_model_filename or "model.onnx"
    is_batched = effective.max_batch_size > 0
    _complete_tensors(model, effective.input, inputs, is_batched)
    _complete_tensors(model, effective.output, outputs, is_batched)
    return effective


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
