"""The same numbers under Triton's names, for dashboards and autoscalers written for Triton.

Path: counts, machine, nvml → **triton** → published.

Names, labels, units and meanings as in Triton's docs/user_guide/metrics.md: times are microseconds, summed up over
the requests that succeeded; what a batch took counts for each request in it; utilisations are 0 to 1.

The lines are written here, because prometheus-client ends counters' names in `_total` and Triton does not.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from service.metrics import counts, machine
from service.runtime import nvml

_REJECTED = "REJECTED"
_REASONS = {
    "CANCELLED": "CANCELED",
    "INTERNAL": "BACKEND",
    "RESOURCE_EXHAUSTED": _REJECTED,
    "DEADLINE_EXCEEDED": _REJECTED,
}
"""Triton's reasons of a failure by our codes: REJECTED by the scheduler, CANCELED, by the BACKEND; else OTHER."""
_ALL_REASONS = (_REJECTED, "CANCELED", "BACKEND", "OTHER")

_OF_MODELS: tuple[tuple[str, str, str, Callable[[counts.ModelMetrics], int]], ...] = (
    ("nv_inference_request_success", "counter", "Requests answered with OK.", lambda m: m.success.count),
    ("nv_inference_count", "counter", "Samples answered with OK.", lambda m: m.samples),
    ("nv_inference_exec_count", "counter", "Runs of the model.", lambda m: m.runs),
    ("nv_inference_request_duration_us", "counter", "Requests, in all.", lambda m: m.success.ns // 1000),
    ("nv_inference_queue_duration_us", "counter", "Requests' waiting.", lambda m: m.queue.ns // 1000),
    (
        "nv_inference_compute_input_duration_us",
        "counter",
        "Decoding and gathering inputs.",
        lambda m: m.compute_input.ns // 1000,
    ),
    ("nv_inference_compute_infer_duration_us", "counter", "Runs.", lambda m: m.compute_infer.ns // 1000),
    ("nv_inference_compute_output_duration_us", "counter", "Making answers.", lambda m: m.compute_output.ns // 1000),
    ("nv_inference_pending_request_count", "gauge", "Requests that wait to run.", lambda m: m.waiting().requests),
)
_OF_GPUS: tuple[tuple[str, str, str, Callable[[nvml.Reading], float | None]], ...] = (
    ("nv_gpu_utilization", "gauge", "Share of the time in which a kernel ran, 0 to 1.", lambda gpu: gpu.utilization),
    ("nv_gpu_memory_total_bytes", "gauge", "Memory of the GPU.", lambda gpu: gpu.memory_total_bytes),
    ("nv_gpu_memory_used_bytes", "gauge", "Memory in use, by anybody.", lambda gpu: gpu.memory_used_bytes),
    ("nv_gpu_power_usage", "gauge", "Power drawn, in watts.", lambda gpu: gpu.power_w),
    ("nv_gpu_power_limit", "gauge", "Power that it may draw, in watts.", lambda gpu: gpu.power_limit_w),
    ("nv_energy_consumption", "counter", "Energy since the server started, in joules.", lambda gpu: gpu.energy_j),
)
_OF_MACHINE: tuple[tuple[str, str, Callable[[machine.Reading], float]], ...] = (
    (
        "nv_cpu_utilization",
        "Share of all cores that is busy, 0 to 1, since the scrape before.",
        lambda m: m.utilization,
    ),
    ("nv_cpu_memory_total_bytes", "Memory of the machine.", lambda m: m.memory_total_bytes),
    ("nv_cpu_memory_used_bytes", "Memory in use, by anybody.", lambda m: m.memory_used_bytes),
)


def exposition(
    models: Sequence[counts.ModelMetrics], gpus: Sequence[nvml.Reading], host: machine.Reading | None
) -> str:
    """Return everything in Prometheus' text format."""
    return "".join(_lines(models, gpus, host))


def _lines(
    models: Sequence[counts.ModelMetrics], gpus: Sequence[nvml.Reading], host: machine.Reading | None
) -> Iterator[str]:
    for name, kind, text, number in _OF_MODELS:
        yield _head(name, kind, text)
        for model in models:
            yield _sample(name, _labels(model), number(model))
    yield _head("nv_inference_request_failure", "counter", "Requests answered with an error.")
    for model in models:
        for reason, count in _failures(model.codes).items():
            yield _sample("nv_inference_request_failure", {**_labels(model), "reason": reason}, count)
    for name, kind, text, reading in _OF_GPUS if gpus else ():
        yield _head(name, kind, text)
        for gpu in gpus:
            value = reading(gpu)
            if value is not None:
                yield _sample(name, {"gpu_uuid": gpu.uuid}, value)
    for name, text, part in _OF_MACHINE if host else ():
        yield _head(name, "gauge", text)
        if host:
            yield _sample(name, {}, part(host))


def _failures(codes: Mapping[str, int]) -> dict[str, int]:
    failures = dict.fromkeys(_ALL_REASONS, 0)
    for code, count in list(codes.items()):
        if code != "OK":
            failures[_REASONS.get(code, "OTHER")] += count
    return failures


def _labels(model: counts.ModelMetrics) -> dict[str, str]:
    return dict(zip(("model", "version"), model.labels, strict=True))


def _head(name: str, kind: str, text: str) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    said = ",".join(f'{label}="{_escaped(said)}"' for label, said in labels.items())
    return f"{name}{{{said}}} {value}\n" if said else f"{name} {value}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
