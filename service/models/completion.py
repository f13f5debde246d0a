"""A config checked against the loaded graph, and completed with what the graph says.

Path: config and session → **completion** → lifecycle, and wire's ModelConfig.
"""

import dataclasses
import logging
from collections.abc import Iterable, Sequence

from protos import model_config_pb2
from service import datatypes, errors
from service.models import config as model_config
from service.models import independence

log = logging.getLogger(__name__)

BATCHING = "batching"
"""The key of ModelConfig.parameters under which stands why a model without a config is batched, or is not."""


@dataclasses.dataclass(frozen=True, slots=True)
class Graph:
    """A graph's inputs, those that it has values for, and its outputs."""

    inputs: Sequence[datatypes.TensorSpec]
    optional: Sequence[datatypes.TensorSpec]
    outputs: Sequence[datatypes.TensorSpec]


Entry = model_config_pb2.ModelInput | model_config_pb2.ModelOutput


def complete(
    model: str,
    config: model_config_pb2.ModelConfig | None,
    graph: Graph,
    verdict: independence.Verdict | None = None,
) -> model_config_pb2.ModelConfig:
    """Return the effective config: what the file says, checked, and what the graph says for the rest.

    Args:
        model: its name.
        config: of the file, if there is one.
        graph: its tensors.
        verdict: whether the model may be batched, if no file says it.

    Raises:
        ModelLoadError: file and graph contradict each other.
    """
    effective = model_config_pb2.ModelConfig()
    if config is not None:
        effective.CopyFrom(config)
    effective.name = model
    effective.platform, effective.backend = model_config.PLATFORM, model_config.BACKEND
    effective.default_model_filename = effective.default_model_filename or "model.onnx"
    if verdict is not None:
        _set_batching(model, effective, verdict)
    is_batched = effective.max_batch_size > 0
    if is_batched and not graph.inputs:
        raise errors.ModelLoadError(
            model, "config.pbtxt says max_batch_size > 0 for a graph without inputs; set max_batch_size: 0"
        )
    _complete_tensors(model, effective.input, (*graph.inputs, *(() if is_batched else graph.optional)), is_batched)
    _complete_tensors(model, effective.output, graph.outputs, is_batched)
    _complete_optional(model, effective, {spec.name for spec in graph.optional})
    return effective


def narrowed(
    specs: Sequence[datatypes.TensorSpec], config: model_config_pb2.ModelConfig, entries: Iterable[Entry]
) -> dict[str, datatypes.TensorSpec]:
    """Return the graph's tensors by name, no freer than a completed config says: its dims may fix what is free.

    Scalars and tensors without a declared rank stay as they are.
    """
    batch = (-1,) if config.max_batch_size > 0 else ()
    said = {entry.name: (*batch, *entry.dims) for entry in entries}
    return {spec.name: _narrowed(spec, said.get(spec.name, spec.shape)) for spec in specs}


def _narrowed(spec: datatypes.TensorSpec, said: Sequence[int]) -> datatypes.TensorSpec:
    if len(spec.shape) != len(said):
        return spec
    shape = tuple(graph if config == -1 else config for config, graph in zip(said, spec.shape, strict=True))
    return dataclasses.replace(spec, shape=shape)


def _set_batching(model: str, effective: model_config_pb2.ModelConfig, verdict: independence.Verdict) -> None:
    effective.max_batch_size = verdict.rows_max
    effective.parameters[BATCHING].string_value = verdict.reason
    if verdict.rows_max:
        effective.dynamic_batching.SetInParent()
        log.info("model %s: no config.pbtxt; batched: %s", model, verdict.reason)
    else:
        log.warning("model %s: no config.pbtxt; not batched: %s", model, verdict.reason)


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
    is_known = bool(spec.shape)  # scalars and tensors without a declared rank look the same in ONNX Runtime
    if said_dims and is_known and not _dims_agree(said_dims, dims):
        raise errors.ModelLoadError(
            model, f"config.pbtxt says dims {said_dims} for {spec.name!r}; the graph has {dims}"
        )
    if not said_dims:
        entry.dims.extend(dims)


def _complete_optional(model: str, effective: model_config_pb2.ModelConfig, names: set[str]) -> None:
    for entry in effective.input:
        if entry.optional and entry.name not in names:
            raise errors.ModelLoadError(
                model,
                f"config.pbtxt says that input {entry.name!r} is optional, but the graph has no values for it; "
                "give it an initializer of that name, or remove `optional`",
            )
        entry.optional = entry.name in names


def _dims_agree(said: Sequence[int], graph: Sequence[int]) -> bool:
    return len(said) == len(graph) and all(a == b or -1 in {a, b} for a, b in zip(said, graph, strict=True))
