"""The configurations worth trying, as edits of a model's config.pbtxt. Pure.

Path: search → **candidates** → config.pbtxt.
"""

import dataclasses
from collections.abc import Callable

from protos import model_config_pb2
from service.runtime import rehearsal, trial

Config = model_config_pb2.ModelConfig


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration, and what is special about it."""

    name: str
    config: Config


Edit = Callable[[Config], None]


def edited(start: Candidate, name: str, edit: Edit) -> Candidate:
    """Return the candidate with one more edit; its name tells what was added."""
    config = Config()
    config.CopyFrom(start.config)
    edit(config)
    return Candidate(name if start.name == "as it is" else f"{start.name}, {name}", config)


def layouts(cores: int) -> list[tuple[str, Edit]]:
    """Instances x threads for the CPU: those that loading a model tries too."""
    return [
        (f"{one.instances} x {one.threads} threads", _layout(one.instances, one.threads))
        for one in sorted(trial.candidates(cores), key=lambda one: one.instances)
    ]


def cuda_options() -> list[list[tuple[str, Edit]]]:
    """The dimensions of the CUDA provider, tried one after the other."""
    return [
        [("graphs", _graphs), ("no graphs", _no_graphs)],
        [(f"search {name}", _cuda("cudnn_conv_algo_search", name)) for name in ("HEURISTIC", "EXHAUSTIVE", "DEFAULT")],
        [("NHWC", _cuda("prefer_nhwc", "1"))],
        [("small workspace", _cuda("cudnn_conv_use_max_workspace", "0"))],
    ]


def buckets(max_batch_size: int) -> list[tuple[str, Edit]]:
    """Sets of batch sizes for CUDA: the powers of two, and only every second and every third of them."""
    powers = rehearsal.powers_of_two(max_batch_size)
    sets = {tuple(sorted({*powers[::step], max_batch_size})) for step in (1, 2, 3)}
    return [(f"buckets {' '.join(map(str, sizes))}", _preferred(sizes)) for sizes in sorted(sets, key=len)]


def delays(run_s: float, configured_us: int) -> list[tuple[str, Edit]]:
    """Delays worth trying: none, a quarter of a run, all of it; without the configured one, which is tried as it is.

    Args:
        run_s: what a run of one sample takes on the device, so without any delay.
        configured_us: the model's delay.
    """
    microseconds = sorted({round(run_s * share * 1e6) for share in (0.0, 0.25, 1.0)} - {configured_us})
    return [(f"delay {us} µs" if us else "no delay", _delay(us)) for us in microseconds]


def pinned(start: Candidate, layout: trial.Candidate) -> Candidate:
    """Return the candidate with the layout that loading it has chosen, so that loading it again tries no others."""
    return dataclasses.replace(edited(start, "", _layout(layout.instances, layout.threads)), name=start.name)


def _layout(count: int, threads: int) -> Edit:
    def edit(config: Config) -> None:
        del config.instance_group[:]
        config.instance_group.add(count=count, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
        config.parameters["intra_op_thread_count"].string_value = str(threads)

    return edit


def _delay(microseconds: int) -> Edit:
    def edit(config: Config) -> None:
        config.dynamic_batching.max_queue_delay_microseconds = microseconds

    return edit


def _preferred(sizes: tuple[int, ...]) -> Edit:
    def edit(config: Config) -> None:
        config.dynamic_batching.preferred_batch_size[:] = sizes

    return edit


def _graphs(config: Config) -> None:
    config.optimization.cuda.graphs = True


def _no_graphs(config: Config) -> None:
    config.optimization.cuda.graphs = False


def _cuda(option: str, value: str) -> Edit:
    def edit(config: Config) -> None:
        accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
        cuda = next((entry for entry in accelerators if entry.name == "cuda"), None) or accelerators.add(name="cuda")
        cuda.parameters[option] = value

    return edit
