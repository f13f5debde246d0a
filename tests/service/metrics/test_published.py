"""What a scrape says, read by prometheus-client's parser, for numbers given by hand."""

import pathlib

import pytest
from prometheus_client import parser

from service import errors, metrics
from service.batching import queue
from service.metrics import machine
from service.runtime import nvml
from tests.service.runtime import fake_nvml

STAGES = metrics.Stages(decode_s=0.002, queue_s=0.003, gather_s=0.00002, run_s=0.004, reply_s=0.00005, total_s=0.01)
MODEL = {"model": 'a"b\\c', "version": "3"}


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def watched(requests: int = 0) -> metrics.Watched:
    return metrics.Watched(lambda: queue.Waiting(3 * requests, requests, 0.5 * requests), lambda: {1: 0.1, 4: 0.2}, 2)


def published(clock: Clock, waiting: int = 0) -> tuple[metrics.Metrics, metrics.ModelMetrics]:
    served = metrics.Metrics(clock)
    numbers = served.numbers(*MODEL.values())
    served.add(numbers, watched(waiting))
    return served, numbers


def values(served: metrics.Metrics) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Name → labels beside the model's → value. It fails if a family comes twice or a line is malformed."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    families = list(parser.text_string_to_metric_families(served.exposition().decode()))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        for sample in family.samples:
            assert sample.labels.get("model", MODEL["model"]) == MODEL["model"]
            own = MODEL if "model" in sample.labels else {}
            rest = tuple(sorted((key, said) for key, said in sample.labels.items() if key not in own))
            # The parser gives every counter the ending that Triton's do not have.
            name = sample.name.removesuffix("_total") if sample.name.startswith("nv_") else sample.name
            found.setdefault(name, {})[rest] = sample.value
    return found


def test_every_stage_is_a_histogram() -> None:
    served, numbers = published(Clock())
    numbers.ran(3, 4, STAGES.gather_s, STAGES.run_s)
    numbers.succeeded(1, STAGES, had_images=True)
    numbers.succeeded(2, STAGES, had_images=False)
    found = values(served)
    expected = {"decode": (1, 0.002), "queue": (2, 0.006), "reply": (2, 0.0001), "request": (2, 0.02)}
    for stage, (count, total_s) in (expected | {"copy": (1, 0.00002), "run": (1, 0.004)}).items():
        assert found[f"fovea_{stage}_duration_seconds_count"][()] == count
        assert found[f"fovea_{stage}_duration_seconds_sum"][()] == pytest.approx(total_s)
    reply = found["fovea_reply_duration_seconds_bucket"]
    assert (reply[("le", "2.5e-05"),], reply[("le", "5e-05"),], reply[("le", "+Inf"),]) == (0, 2, 2)
    assert found["fovea_padding_rows_total"][()] == 1
    assert found["fovea_batch_size_sum"][()] == 3


def test_triton_names_count_what_triton_counts() -> None:
    served, numbers = published(Clock(), waiting=7)
    numbers.ran(5, 5, STAGES.gather_s, STAGES.run_s)
    numbers.succeeded(4, STAGES, had_images=True)
    numbers.succeeded(1, STAGES, had_images=True)
    numbers.failed("RESOURCE_EXHAUSTED", 1.0, errors.QueueFull("m", "9 samples", 0.1))
    numbers.failed("DEADLINE_EXCEEDED", 1.0, errors.DeadlineExceeded("m", 0.2))
    numbers.failed("CANCELLED", 1.0)
    numbers.failed("INTERNAL", 1.0, errors.RunFailed("m"))
    numbers.failed("INVALID_ARGUMENT", 1.0, errors.BadRequest("no"))
    found = values(served)
    assert found["nv_inference_request_success"][()] == 2
    assert found["nv_inference_count"][()] == 5
    assert found["nv_inference_exec_count"][()] == 1
    assert found["nv_inference_pending_request_count"][()] == 7
    assert {labels[0][1]: count for labels, count in found["nv_inference_request_failure"].items()} == {
        "REJECTED": 2, "CANCELED": 1, "BACKEND": 1, "OTHER": 1,
    }  # fmt: skip
    microseconds = {
        "request": 20_000, "queue": 6_000, "compute_input": 4_040, "compute_infer": 8_000, "compute_output": 100,
    }  # fmt: skip
    for name, total in microseconds.items():
        assert found[f"nv_inference_{name}_duration_us"][()] == total
    lines = served.exposition().decode().splitlines()
    assert 'nv_inference_count{model="a\\"b\\\\c",version="3"} 5' in lines
    kinds = {line.split()[2]: line.split()[3] for line in lines if line.startswith("# TYPE nv_")}
    assert kinds["nv_inference_count"] == "counter"
    assert kinds["nv_inference_pending_request_count"] == "gauge"


def test_what_is_shed_is_told_by_its_reason_and_what_is_wrong_is_not_shed() -> None:
    served, numbers = published(Clock())
    assert set(values(served)["fovea_shed_total"].values()) == {0.0}  # there before the first one: see CODES
    numbers.failed("RESOURCE_EXHAUSTED", 0.1, errors.QueueFull("m", "9 samples", 0.1))
    numbers.failed("RESOURCE_EXHAUSTED", 0.1, errors.TooLate("m", 0.2, 0.1, None))
    numbers.failed("DEADLINE_EXCEEDED", 0.1, errors.DeadlineExceeded("m", 0.2))
    numbers.failed("RESOURCE_EXHAUSTED", 0.1, errors.RateExceeded("token mary", 10.0, 0.1))
    numbers.failed("RESOURCE_EXHAUSTED", 0.1, errors.CallerFull("token mary", 5, 4, 0.1))
    numbers.failed("RESOURCE_EXHAUSTED", 0.1, errors.MessageTooLarge(2, 1))
    numbers.failed("INTERNAL", 0.1, errors.RunFailed("m"))
    shed = {labels[0][1]: count for labels, count in values(served)["fovea_shed_total"].items()}
    assert shed == {"queue_full": 1, "too_late": 1, "deadline": 1, "rate": 1, "caller": 1, "other": 0}


def test_saturation_costs_instances_and_what_waits_are_looked_at() -> None:
    clock = Clock()
    served, numbers = published(clock, waiting=2)
    served.watch("decode", lambda now_s: now_s / 4)
    numbers.occupied(0.5, 0.0)
    clock.now_s = 8.0
    found = values(served)
    assert found["fovea_model_busy_seconds_total"][()] == pytest.approx(4.0)
    assert found["fovea_model_saturation_ratio"][()] == pytest.approx(0.5)
    assert found["fovea_saturation_ratio"] == {
        (("resource", "device"),): pytest.approx(0.5),
        (("resource", "decode"),): pytest.approx(0.25),
    }
    assert found["fovea_run_cost_seconds"] == {(("rows", "1"),): 0.1, (("rows", "4"),): 0.2}
    assert found["fovea_instances"][()] == 2
    assert found["fovea_queue_samples"][()] == 6
    assert found["fovea_queue_requests"][()] == 2
    assert found["fovea_queue_oldest_age_seconds"][()] == 1.0


def test_a_version_that_is_replaced_counts_on_and_one_that_is_gone_is_not_published() -> None:
    served, numbers = published(Clock(), waiting=1)
    numbers.succeeded(1, STAGES, had_images=False)
    (before,), again = numbers.watched, watched(4)
    assert served.numbers(*MODEL.values()) is numbers
    served.add(numbers, again)
    assert values(served)["fovea_queue_requests"][()] == 5
    served.remove(numbers, before)
    assert values(served)["fovea_requests_total"][("code", "OK"),] == 1
    served.remove(numbers, again)
    assert "fovea_queue_requests" not in values(served)
    assert served.totals() == metrics.Totals(1, 0)
    assert served.numbers(*MODEL.values()) is not numbers


def test_build_provider_and_readiness() -> None:
    served, _ = published(Clock())
    served.provider = "CPUExecutionProvider"
    found = values(served)
    assert found["fovea_ready"][()] == 0
    assert found["fovea_provider_info"][("provider", "CPUExecutionProvider"),] == 1
    ((labels, one),) = found["fovea_build_info"].items()
    assert one == 1
    assert all(said for _, said in labels), labels
    assert {"version", "python", "onnxruntime"} < dict(labels).keys()


def test_the_gpu_is_told_under_tritons_names_and_what_it_does_not_tell_is_left_out() -> None:
    served, _ = published(Clock())
    assert not [name for name in values(served) if "gpu" in name or "energy" in name]
    library = fake_nvml.FakeNvml()
    served.gpu = nvml.find_in(library, fake_nvml.PLACE)
    library.energy_mj += 7_000
    found = values(served)
    labels = (("gpu_uuid", fake_nvml.UUID),)
    assert found["nv_gpu_utilization"] == {labels: 0.37}
    assert found["nv_gpu_memory_total_bytes"] == {labels: 80 << 30}
    assert found["nv_gpu_memory_used_bytes"] == {labels: 5 << 30}
    assert found["nv_gpu_power_usage"] == {labels: 312.5}
    assert found["nv_gpu_power_limit"] == {labels: 700.0}
    assert found["nv_energy_consumption"] == {labels: pytest.approx(7.0)}  # since the server started
    library.fails.add("nvmlDeviceGetUtilizationRates")  # as for a MIG slice
    assert "nv_gpu_utilization" not in values(served)
    assert values(served)["nv_gpu_memory_total_bytes"] == {labels: 80 << 30}


def test_a_gpu_that_nvml_does_not_know_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert nvml.find_in(fake_nvml.FakeNvml(), "0000:99:00.0") is None
    assert "no metrics of the GPU: NVML answers 6 for the GPU at 0000:99:00.0" in caplog.text


def test_the_machine_is_read_from_proc(tmp_path: pathlib.Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  1000 kB\nMemFree:  1 kB\nMemAvailable:  400 kB\n")
    stat = tmp_path / "stat"
    stat.write_text("cpu  10 0 10 80 0 0 0 0 0 0\ncpu0 1 1 1 1\n")
    host = machine.Machine(tmp_path)
    assert host.read() == (pytest.approx(0.2), 1_024_000, 614_400)
    stat.write_text("cpu  40 0 40 120 0 0 0 0 0 0\n")
    assert host.read().utilization == pytest.approx(0.6)
    assert host.read().utilization == pytest.approx(0.6)  # no tick has passed
    assert machine.Machine(tmp_path / "nothing").read() is None
    real = machine.Machine().read()
    assert real is not None
    assert 0 <= real.utilization <= 1
    assert 0 < real.memory_used_bytes < real.memory_total_bytes
