"""What config.pbtxt says about where and how to run; every key is honoured, noted or refused by name."""

import pathlib

import pytest
from google.protobuf import text_format

from protos import model_config_pb2
from service import errors
from service.models import placement
from service.runtime import cuda_options, knobs, providers, session

CPU = session.Options(providers.Provider(providers.CPU, {}, "--device cpu"), 0)
CUDA = session.Options(providers.Provider(providers.CUDA, {"device_id": "0", "use_tf32": "1"}, "there"), 0)


def of(text: str, options: session.Options = CPU) -> placement.Placement:
    return placement.of("m", text_format.Parse(text, model_config_pb2.ModelConfig()), options)


def accelerator(parameters: str, name: str = "cuda") -> str:
    body = f'name: "{name}" {parameters}'
    return f"optimization {{ execution_accelerators {{ gpu_execution_accelerator {{ {body} }} }} }}"


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}'


def test_without_a_config_everything_is_the_default() -> None:
    placed = placement.of("m", None, CPU)
    assert (placed.options, placed.knobs, placed.noted) == (CPU, knobs.Knobs(), ())


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("instance_group { count: 3 }", "instances", 3),
        ("instance_group { count: 1 } instance_group { count: 2 kind: KIND_CPU }", "instances", 3),
        (parameter("intra_op_thread_count", "2"), "threads", 2),
        (parameter("execution_mode", "1"), "runs_branches_in_parallel", True),
        (parameter("inter_op_thread_count", "4"), "branch_threads", 4),
        (parameter("enable_mem_arena", "0"), "uses_arena", False),
        (parameter("enable_mem_pattern", "0"), "uses_memory_pattern", False),
        ("optimization { graph { level: -1 } }", "graph_level", knobs.GraphLevel.BASIC),
        ("optimization { graph { level: 1 } }", "graph_level", knobs.GraphLevel.EXTENDED),
        ("optimization { graph { level: 2 } }", "graph_level", knobs.GraphLevel.OFF),
        ("dynamic_batching { preferred_batch_size: [8, 4, 8] }", "preferred_rows", (4, 8)),
    ],
)
def test_a_knob_is_turned(text: str, field: str, value: object) -> None:
    placed = of(text)
    assert getattr(placed.knobs, field) == value
    assert placed.noted == ()


@pytest.mark.parametrize(
    ("text", "option", "value"),
    [
        (accelerator('parameters { key: "cudnn_conv_algo_search" value: "EXHAUSTIVE" }'), None, "EXHAUSTIVE"),
        (accelerator('parameters { key: "prefer_nhwc" value: "true" }'), "prefer_nhwc", "1"),
        (accelerator('parameters { key: "use_tf32" value: "0" }'), "use_tf32", "0"),
        (accelerator('parameters { key: "gpu_mem_limit" value: "4294967296" }'), "gpu_mem_limit", "4294967296"),
        (parameter("cudnn_conv_algo_search", "2"), "cudnn_conv_algo_search", "DEFAULT"),
        (parameter("arena_extend_strategy", "0"), "arena_extend_strategy", "kNextPowerOfTwo"),
        (parameter("do_copy_in_default_stream", "1"), "do_copy_in_default_stream", "1"),
        ("optimization { cuda { graphs: true } }", "enable_cuda_graph", "1"),
        (accelerator('parameters { key: "enable_cuda_graph" value: "1" }'), "enable_cuda_graph", "1"),
        ("", "enable_cuda_graph", "0"),
    ],
)
def test_a_cuda_option_reaches_the_provider(text: str, option: str | None, value: str) -> None:
    placed = of(text, CUDA)
    assert placed.options.provider.options[option or "cudnn_conv_algo_search"] == value
    assert placed.options.provider.options["device_id"] == "0"
    assert placed.knobs.cuda_graphs == (placed.options.provider.options["enable_cuda_graph"] == "1")
    assert placed.noted == ()


def test_the_accelerator_s_word_comes_before_the_parameters_word() -> None:
    text = parameter("gpu_mem_limit", "1") + accelerator('parameters { key: "gpu_mem_limit" value: "2" }')
    assert of(text, CUDA).options.provider.options["gpu_mem_limit"] == "2"


def test_cuda_s_knobs_have_no_effect_on_the_cpu_and_are_noted() -> None:
    text = parameter("gpu_mem_limit", "1") + "optimization { cuda { graphs: true } }"
    placed = of(text)
    assert placed.noted == ("gpu_mem_limit", "optimization.cuda.graphs")
    assert placed.options == CPU
    assert not placed.knobs.cuda_graphs


def test_a_parameter_that_nobody_knows_is_noted() -> None:
    assert of(parameter("max_tokens", "5")).noted == ("parameters['max_tokens']",)


@pytest.mark.parametrize("kind", ["KIND_AUTO", "KIND_MODEL"])
def test_the_server_s_device_is_taken_when_the_config_leaves_it_open(kind: str) -> None:
    for options in (CPU, CUDA):
        assert of(f"instance_group {{ kind: {kind} }}", options).options.provider.name == options.provider.name


def test_a_model_can_stay_on_the_cpu_of_a_cuda_server() -> None:
    placed = of("instance_group { kind: KIND_CPU }", CUDA)
    assert (placed.options.provider.name, placed.options.provider.options) == (providers.CPU, {})
    assert "KIND_CPU" in placed.options.provider.reason


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("instance_group { kind: KIND_GPU }", CPU, "KIND_GPU, but this server runs on the CPU"),
        ("instance_group { gpus: 1 }", CUDA, r"gpus \[1\]; .*CUDA_VISIBLE_DEVICES"),
        ("instance_group { gpus: 0 kind: KIND_CPU }", CUDA, r"gpus \[0\]"),
        ("instance_group { kind: KIND_CPU } instance_group { kind: KIND_GPU }", CUDA, "on the CPU and on GPUs"),
        ("instance_group { count: -1 }", CPU, "instance_group.count -1; expected 1 or more"),
        ("optimization { graph { level: 3 } }", CPU, "graph.level 3; expected -1"),
        (parameter("intra_op_thread_count", "two"), CPU, r"'intra_op_thread_count'\] to 'two'; expected a whole"),
        (parameter("enable_mem_arena", "yes"), CPU, "to 'yes'; expected 0 or 1"),
        (accelerator("", "tensorrt"), CUDA, "GPU accelerator 'tensorrt'; Fovea supports 'cuda'"),
        (
            'optimization { execution_accelerators { cpu_execution_accelerator { name: "openvino" } } }',
            CPU,
            "CPU accelerator 'openvino'",
        ),
        (
            accelerator('parameters { key: "cudnn_conv_algo_serach" value: "1" }'),
            CPU,
            "did you mean 'cudnn_conv_algo_search'",
        ),
        (accelerator('parameters { key: "device_id" value: "1" }'), CUDA, "'device_id', which is no option"),
        (accelerator('parameters { key: "use_tf32" value: "maybe" }'), CUDA, "use_tf32 to 'maybe'; expected one of 0"),
        (parameter("gpu_mem_limit", "4 GB"), CUDA, "gpu_mem_limit to '4 GB'; expected a whole number"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(text: str, options: session.Options, sentence: str) -> None:
    with pytest.raises(errors.ModelLoadError, match=sentence):
        of(text, options)


def test_every_cuda_option_is_one_that_the_installed_provider_knows() -> None:
    import onnxruntime

    library = pathlib.Path(onnxruntime.__file__).parent / "capi/libonnxruntime_providers_cuda.so"
    if not library.exists():
        pytest.skip("NOT RUN: this ONNX Runtime has no CUDA provider")
    content = library.read_bytes()
    assert [name for name in cuda_options.NAMES if b"\0" + name.encode() + b"\0" not in content] == []
