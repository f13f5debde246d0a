"""Where and how a model runs, as its config.pbtxt says: instance groups, optimization, Triton's parameters.

Path: config → **placement** → runtime.
"""

import dataclasses
from collections.abc import Iterable, Mapping

from protos import model_config_pb2
from service import errors
from service.runtime import cuda_options, knobs, providers, reshape, session

_GROUP = model_config_pb2.ModelInstanceGroup
_LEVELS = {
    -1: knobs.GraphLevel.BASIC,
    0: knobs.GraphLevel.ALL,
    1: knobs.GraphLevel.EXTENDED,
    2: knobs.GraphLevel.OFF,
}
# Triton's older place for provider options: the top-level `parameters`.
_CUDA_PARAMETERS = ("cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy", "do_copy_in_default_stream")
_GRAPHS = "enable_cuda_graph"


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """The provider and threads for one model, its knobs, and what its config sets without effect here."""

    options: session.Options
    knobs: knobs.Knobs
    noted: tuple[str, ...]


def of(model: str, config: model_config_pb2.ModelConfig | None, options: session.Options) -> Placement:
    """Return how the model is to run.

    Args:
        model: its name.
        config: what its config.pbtxt says; None without one.
        options: the server's.

    Raises:
        ModelLoadError: it asks for what is not there, not known or not supported.
    """
    config = config or model_config_pb2.ModelConfig()
    instances = _instances(model, config.instance_group)
    options = session.Options(_provider(model, config.instance_group, options.provider), options.threads)
    is_cuda = options.provider.name == providers.CUDA
    parameters = {name: said.string_value for name, said in config.parameters.items()}
    cuda = _cuda_options(model, config, parameters)
    wants_graphs = cuda.pop(_GRAPHS, "0") == "1" or config.optimization.cuda.graphs
    if is_cuda:
        chosen = {**options.provider.options, **cuda, _GRAPHS: str(int(wants_graphs))}
        options = session.Options(dataclasses.replace(options.provider, options=chosen), options.threads)
    read = _Parameters(model, parameters)
    wanted = knobs.Knobs(
        instances=instances,
        threads=read.number("intra_op_thread_count"),
        cuda_graphs=wants_graphs and is_cuda,
        preferred_rows=tuple(sorted(set(config.dynamic_batching.preferred_batch_size))),
        graph_level=_level(model, config.optimization.graph.level),
        runs_branches_in_parallel=read.switch("execution_mode", default=False),
        branch_threads=read.number("inter_op_thread_count"),
        uses_arena=read.switch("enable_mem_arena", default=True),
        uses_memory_pattern=read.switch("enable_mem_pattern", default=True),
        reshapes=_reshapes(model, config),
    )
    without_effect = [] if is_cuda else sorted(cuda) + ["optimization.cuda.graphs"] * wants_graphs
    unknown = sorted(parameters.keys() - read.known - set(_CUDA_PARAMETERS))
    return Placement(options, wanted, (*without_effect, *(f"parameters[{name!r}]" for name in unknown)))


class _Parameters:
    """Triton's parameters for ONNX Runtime, read by name. Mutable state: `known`, the names asked for."""

    def __init__(self, model: str, said: Mapping[str, str]) -> None:
        self.known: set[str] = set()
        self._model = model
        self._said = said

    def number(self, name: str) -> int:
        """A count; 0 if it is not set."""
        said = self._ask(name, "0")
        if not (said.isascii() and said.isdigit()):
            raise errors.ModelLoadError(
                self._model, f"config.pbtxt sets parameters[{name!r}] to {said!r}; expected a whole number"
            )
        return int(said)

    def switch(self, name: str, *, default: bool) -> bool:
        """0 or 1."""
        said = self._ask(name, str(int(default)))
        if said not in {"0", "1"}:
            raise errors.ModelLoadError(
                self._model, f"config.pbtxt sets parameters[{name!r}] to {said!r}; expected 0 or 1"
            )
        return said == "1"

    def _ask(self, name: str, default: str) -> str:
        self.known.add(name)
        return self._said.get(name, default).strip()


def _reshapes(model: str, config: model_config_pb2.ModelConfig) -> dict[str, reshape.Reshape]:
    """The tensors whose shape in requests is not the graph's."""
    batch = (-1,) if config.max_batch_size > 0 else ()
    tensors: list[model_config_pb2.ModelInput | model_config_pb2.ModelOutput] = [*config.input, *config.output]
    found = {}
    for tensor in tensors:
        if not tensor.HasField("reshape"):
            continue
        found[tensor.name] = reshape.Reshape((*batch, *tensor.dims), (*batch, *tensor.reshape.shape))
        if not found[tensor.name].fits:
            raise errors.ModelLoadError(
                model,
                f"config.pbtxt reshapes {tensor.name!r} from dims {list(tensor.dims)} to "
                f"{list(tensor.reshape.shape)}; expected as many elements, and as many free dimensions (-1), in both",
            )
    return found


def _instances(model: str, groups: Iterable[model_config_pb2.ModelInstanceGroup]) -> int:
    """How many instances the groups have together; 0: nothing is said."""
    counts = [group.count for group in groups]
    if any(count < 0 for count in counts):
        raise errors.ModelLoadError(model, f"config.pbtxt says instance_group.count {min(counts)}; expected 1 or more")
    return sum(counts)


def _provider(
    model: str, groups: Iterable[model_config_pb2.ModelInstanceGroup], provider: providers.Provider
) -> providers.Provider:
    kinds = {group.kind for group in groups} - {_GROUP.KIND_AUTO, _GROUP.KIND_MODEL}
    if len(kinds) > 1:
        raise errors.ModelLoadError(
            model, "config.pbtxt has instance groups on the CPU and on GPUs; Fovea runs a model on one of them"
        )
    gpus = sorted({gpu for group in groups for gpu in group.gpus})
    if gpus and (gpus != [0] or kinds == {_GROUP.KIND_CPU}):
        raise errors.ModelLoadError(
            model,
            f"config.pbtxt says instance_group.gpus {gpus}; Fovea uses the first GPU that it sees, [0]: "
            "start one server for each GPU, with CUDA_VISIBLE_DEVICES",
        )
    if kinds == {_GROUP.KIND_GPU} and provider.name != providers.CUDA:
        raise errors.ModelLoadError(
            model,
            f"config.pbtxt says instance_group.kind KIND_GPU, but this server runs on the CPU ({provider.reason}); "
            "use KIND_AUTO to serve it on whatever there is",
        )
    if kinds == {_GROUP.KIND_CPU} and provider.name != providers.CPU:
        return providers.cpu("instance_group.kind KIND_CPU")
    return provider


def _cuda_options(model: str, config: model_config_pb2.ModelConfig, parameters: Mapping[str, str]) -> dict[str, str]:
    """The CUDA provider's options that the config sets, checked; those of the accelerator win."""
    accelerators = config.optimization.execution_accelerators
    for accelerator in accelerators.cpu_execution_accelerator:
        raise errors.ModelLoadError(
            model,
            f"config.pbtxt asks for the CPU accelerator {accelerator.name!r}; Fovea runs ONNX Runtime's own "
            "CPU provider: remove it",
        )
    said = {name: parameters[name] for name in _CUDA_PARAMETERS if name in parameters}
    for accelerator in accelerators.gpu_execution_accelerator:
        if accelerator.name != "cuda":
            raise errors.ModelLoadError(
                model,
                f"config.pbtxt asks for the GPU accelerator {accelerator.name!r}; "
                "Fovea supports 'cuda', with the parameters of ONNX Runtime's CUDA provider",
            )
        said |= accelerator.parameters
    return {name: cuda_options.value(model, name, value) for name, value in said.items()}


def _level(model: str, level: int) -> knobs.GraphLevel:
    if level not in _LEVELS:
        raise errors.ModelLoadError(
            model,
            f"config.pbtxt says optimization.graph.level {level}; "
            "expected -1 (basic), 0 (all), 1 (extended) or 2 (off)",
        )
    return _LEVELS[level]
