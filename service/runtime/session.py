"""One model loaded in ONNX Runtime. The only importer of onnxruntime.

Path: runners and pipeline → **session** → ONNX Runtime.
"""

import collections
import ctypes
import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service import datatypes, errors
from service.batching import slots
from service.runtime import cores, division, knobs, providers, reshape, tensors

# ONNX Runtime 1.31 reports usage to its maker and keeps a device id on disk unless told not to before
# it is loaded. A server that others run does neither, unless they ask for it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

WARNING, FATAL = 2, 4
"""ONNX Runtime's log severities."""

_LEVELS = {
    knobs.GraphLevel.OFF: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    knobs.GraphLevel.BASIC: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    knobs.GraphLevel.EXTENDED: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    knobs.GraphLevel.ALL: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_GRAPH_ID = "gpu_graph_id"
_NO_GRAPH = "-1"
_BFLOAT16 = 16
"""onnx.TensorProto.BFLOAT16."""


def built_in_providers() -> list[str]:
    """Return the providers that the installed ONNX Runtime was built with; none need work here."""
    return list(onnxruntime.get_available_providers())


def preload_cuda_libraries() -> None:
    """Load CUDA's libraries from the nvidia-* wheels, where they are installed that way."""
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """Where a session runs, and with how many CPU threads; 0: all that the process may use."""

    provider: providers.Provider
    threads: int


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """Which provider runs how many of the loaded graph's nodes, and which convolutions the CPU runs."""

    nodes: Mapping[str, int]
    convolutions_on_cpu: tuple[str, ...]
    operators: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """How many nodes of each, as ONNX Runtime has optimised them; nodes in the bodies of others do not count."""

    @property
    def nodes_on_cpu(self) -> int:
        """How many nodes the CPU runs."""
        return self.nodes.get(providers.CPU, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceTensor:
    """Memory on the session's device at a fixed address; ONNX Runtime owns it, as long as this lives."""

    value: onnxruntime.OrtValue
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def address(self) -> int:
        """Where it is, for CUDA."""
        return int(self.value.data_ptr())


class Bound:
    """A run whose inputs and outputs stand at fixed addresses. For one thread."""

    def __init__(self, session: onnxruntime.InferenceSession, binding: onnxruntime.IOBinding, graph_id: int) -> None:
        self._session = session
        self._binding = binding
        self._run_options = _run_options()
        # ONNX Runtime's default, and what hand-over relies on: when `run` returns, the outputs are there.
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "0")
        if graph_id:
            self._run_options.add_run_config_entry(_GRAPH_ID, str(graph_id))

    def run(self) -> None:
        """Run, and wait for the device. What ONNX Runtime raises comes through."""
        self._session.run_with_iobinding(self._binding, self._run_options)


class Session:
    """A loaded model.

    Mutable state: ONNX Runtime's own. On the CPU any number of threads may run it; on CUDA one.
    """

    def __init__(self, model: str, path: pathlib.Path, options: Options, wanted: knobs.Knobs | None = None) -> None:
        """Load the model.

        Raises:
            ModelLoadError: ONNX Runtime cannot load it, did not take the provider, or has a tensor
                type that is not served.
        """
        wanted = wanted or knobs.Knobs()
        self._session = _load(model, path, options, wanted)
        self._device = "cuda" if options.provider.name == providers.CUDA else "cpu"
        self.is_on_its_caller = self._device == "cpu" and options.threads == 1 and not wanted.runs_branches_in_parallel
        """Whether a run computes on the thread that called it, and nowhere else."""
        self._run_options = _run_options()
        if wanted.cuda_graphs and self._device == "cuda":
            self._run_options.add_run_config_entry(_GRAPH_ID, _NO_GRAPH)  # addresses differ from run to run here
        self._reshapes = wanted.reshapes
        self.inputs = tensors.specs(model, "input", self._session.get_inputs(), self._reshapes)
        self.outputs = tensors.specs(model, "output", self._session.get_outputs(), self._reshapes)
        self.optional = tensors.optional(self._session.get_overridable_initializers())
        """Inputs that the graph has values for."""
        self._compute = _way(model, self._session, (*self.inputs, *self.optional, *self.outputs))
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.placement = _placement(self._session)

    def run(self, inputs: slots.Tensors, outputs: Iterable[str]) -> dict[str, NDArray[np.generic]]:
        """Run once on this thread; name → output. What ONNX Runtime raises comes through."""
        names = list(outputs)
        if not self._reshapes:
            return dict(zip(names, self._compute(names, dict(inputs), self._run_options), strict=True))
        found = self._compute(names, reshape.into_graph(self._reshapes, inputs), self._run_options)
        answers = zip(names, found, strict=True)
        return {name: reshape.onto_wire(self._reshapes, name, output) for name, output in answers}

    def shrink(self, inputs: slots.Tensors) -> None:
        """Run once more, and give the CPU memory that runs have taken back to the system. Not on CUDA.

        Other threads go on meanwhile. When ONNX Runtime lets a session go, they do not: 28 ms for a ResNet-18
        after batches of 64, and below 1 ms after this. What ONNX Runtime raises comes through.
        """
        options = _run_options()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._compute([spec.name for spec in self.outputs], reshape.into_graph(self._reshapes, inputs), options)

    def device_tensor(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> DeviceTensor:
        """Return new memory on the session's device; what is in it is not defined."""
        value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type, self._device, 0)
        return DeviceTensor(value, shape, dtype)

    def bind(self, inputs: Mapping[str, DeviceTensor], outputs: Mapping[str, DeviceTensor], graph_id: int = 0) -> Bound:
        """Return a run between these addresses.

        Args:
            inputs: for every input of the model.
            outputs: for those that are computed.
            graph_id: the CUDA graph to capture at the first run and replay; 0: none.
        """
        binding = self._session.io_binding()
        for name, tensor in inputs.items():
            if name in self._reshapes:
                binding.bind_input(name, *self._as_in_graph(name, tensor))
            else:
                binding.bind_ortvalue_input(name, tensor.value)
        for name, tensor in outputs.items():
            if name in self._reshapes:
                binding.bind_output(name, *self._as_in_graph(name, tensor))
            else:
                binding.bind_ortvalue_output(name, tensor.value)
        return Bound(self._session, binding, graph_id)

    def _as_in_graph(self, name: str, tensor: DeviceTensor) -> tuple[str, int, Any, list[int], int]:
        """The same memory in the graph's shape, as ONNX Runtime binds it."""
        shape = self._reshapes[name].in_graph(tensor.shape)
        return self._device, 0, tensor.dtype.type, list(shape), tensor.address


def check_placement(model: str, placement: Placement, provider: str) -> None:
    """Refuse a model whose convolutions the CPU would run although the device is another.

    Raises:
        ModelLoadError: names them.
    """
    if provider != providers.CPU and placement.convolutions_on_cpu:
        some = ", ".join(placement.convolutions_on_cpu[:3])
        raise errors.ModelLoadError(
            model,
            f"{provider} leaves {len(placement.convolutions_on_cpu)} of its convolutions to the CPU ({some}, ...); "
            "export it in a precision for this device, or serve it with instance_group { kind: KIND_CPU }",
        )


def _load(model: str, path: pathlib.Path, options: Options, wanted: knobs.Knobs) -> onnxruntime.InferenceSession:
    chosen = options.provider
    asked = [(chosen.name, chosen.options)] + ([] if chosen.name == providers.CPU else [providers.CPU])
    settings = _session_options(options.threads, wanted)
    graph = division.made_safe(model, path)
    if graph is not None:  # its weights may be in files beside it
        settings.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    try:
        session = onnxruntime.InferenceSession(graph or path, settings, providers=asked)
    except Exception as error:  # ONNX Runtime's exceptions have no common base but this
        hint = "; its config.pbtxt asks for CUDA graphs, which need every node on CUDA" * wanted.cuda_graphs
        raise errors.ModelLoadError(model, f"ONNX Runtime cannot load {path}: {error}{hint}") from error
    session.disable_fallback()
    taken = session.get_providers()[0]
    if taken != chosen.name:
        raise errors.ModelLoadError(model, f"ONNX Runtime took {taken} instead of {chosen.name}; its log says why")
    return session


def _run_options() -> onnxruntime.RunOptions:
    """How all runs are made: what is wrong with one is raised, and not also written to stderr past every log."""
    made = onnxruntime.RunOptions()
    made.log_severity_level = FATAL
    return made


def _session_options(threads: int, wanted: knobs.Knobs) -> onnxruntime.SessionOptions:
    made = onnxruntime.SessionOptions()
    made.log_severity_level = WARNING
    made.intra_op_num_threads = threads or cores.available()
    made.inter_op_num_threads = 1
    if wanted.runs_branches_in_parallel:
        made.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
        made.inter_op_num_threads = wanted.branch_threads or made.intra_op_num_threads
    made.graph_optimization_level = _LEVELS[wanted.graph_level]
    made.enable_cpu_mem_arena = wanted.uses_arena
    made.enable_mem_pattern = wanted.uses_memory_pattern and not wanted.runs_branches_in_parallel
    # Spinning threads take cores from decoding and gRPC: 1.75 times slower with two sessions.
    made.add_session_config_entry("session.intra_op.allow_spinning", "0")
    made.add_session_config_entry("session.inter_op.allow_spinning", "0")
    made.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return made


def _placement(session: onnxruntime.InferenceSession) -> Placement:
    nodes: collections.Counter[str] = collections.Counter()
    convolutions: list[str] = []
    operators: collections.Counter[str] = collections.Counter()
    for part in session.get_provider_graph_assignment_info():
        for node in part.get_nodes():
            nodes[part.ep_name] += 1
            operators[node.op_type] += 1
            if part.ep_name == providers.CPU and "Conv" in node.op_type:
                convolutions.append(node.name or node.op_type)
    return Placement(dict(nodes), tuple(convolutions), dict(operators))


_Compute = Callable[
    [Sequence[str], Mapping[str, NDArray[np.generic]], "onnxruntime.RunOptions | None"], Sequence[NDArray[np.generic]]
]
"""Output names, inputs, run options → outputs."""


def _way(model: str, session: onnxruntime.InferenceSession, specs: Sequence[datatypes.TensorSpec]) -> _Compute:
    """How arrays get into the session and out of it: ONNX Runtime's own way, which knows no BF16, or by value."""
    patterns = frozenset(spec.name for spec in specs if spec.datatype is datatypes.BF16)
    strings = [spec.name for spec in specs if spec.datatype is datatypes.STRING]
    if not patterns:
        run: _Compute = session.run
        return run
    if strings:
        raise errors.ModelLoadError(
            model,
            f"it has strings ({', '.join(strings)}) beside BF16 ({', '.join(sorted(patterns))}), which ONNX Runtime's "
            "Python interface cannot pass together; cast the BF16 tensors to float32 in the graph",
        )
    return functools.partial(_run_by_value, session, patterns)


def _run_by_value(
    session: onnxruntime.InferenceSession,
    patterns: frozenset[str],
    names: Sequence[str],
    inputs: Mapping[str, NDArray[np.generic]],
    options: "onnxruntime.RunOptions | None",
) -> list[NDArray[np.generic]]:
    """Run with ONNX Runtime's own tensors; those named in `patterns` are BF16, here and there."""
    make = onnxruntime.OrtValue
    values = {}
    for name, array in inputs.items():
        whole = np.ascontiguousarray(array).reshape(array.shape)  # the former makes scalars vectors
        is_bf16 = name in patterns
        values[name] = (
            make.ortvalue_from_numpy_with_onnx_type(whole, _BFLOAT16) if is_bf16 else make.ortvalue_from_numpy(whole)
        )
    answers = session.run_with_ort_values(names, values, options)
    return [_from_value(answer) for answer in answers]


def _from_value(value: onnxruntime.OrtValue) -> NDArray[np.generic]:
    """A copy of an output in the host's memory, as uint16 if it is BF16, for which ONNX Runtime has no NumPy array."""
    if value.data_type() != datatypes.BF16.ort:
        array: NDArray[np.generic] = value.numpy()
        return array
    if value.device_name() != "cpu":
        raise RuntimeError(f"a BF16 output is on {value.device_name()}, not in the host's memory")
    shape = tuple(value.shape())
    raw = ctypes.string_at(value.data_ptr(), 2 * math.prod(shape)) if math.prod(shape) else b""
    return np.frombuffer(raw, np.uint16).reshape(shape)
