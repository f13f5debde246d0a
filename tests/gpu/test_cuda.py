"""Models on CUDA: the CPU's answers at every batch size, in every precision, with CUDA graphs and without."""

import asyncio
import pathlib

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper

from protos import manifest_pb2, model_config_pb2
from service import errors
from service.models import goldens, placement
from service.runtime import cuda, instances, knobs, providers, session
from tests.gpu import cuda_only
from tests.service.runtime import graphs

pytestmark = cuda_only.PYTESTMARK

FP32, FP16, EXACT = 2e-3, 2e-2, 1e-5
"""Largest difference from the CPU, relative: with TF32 (10 bits of mantissa), in float16, in plain float32."""


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return graphs.convnet(tmp_path / "m.onnx")


@pytest.mark.parametrize("with_graphs", [False, True])
@pytest.mark.parametrize(("half", "tolerance"), [(False, FP32), (True, FP16)])
def test_every_count_of_rows_gets_the_cpu_s_answer(
    tmp_path: pathlib.Path, half: bool, tolerance: float, with_graphs: bool
) -> None:
    path = graphs.convnet(tmp_path / "m.onnx", half=half)
    loaded = cuda_only.on_cuda(path, 8, knobs.Knobs(cuda_graphs=with_graphs))
    for rows in range(1, 9):
        for seed in (1, 2, 3):  # both lanes, and a graph's second replay with other bytes
            image = {"image": graphs.pixels(rows, 10 * rows + seed)}
            cuda_only.assert_close(loaded.run(image, cuda_only.ALL), cuda_only.on_cpu(path, image), tolerance)
    loaded.close()


@pytest.mark.parametrize("with_graphs", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_batches_that_overlap_keep_their_rows_apart(path: pathlib.Path, count: int, with_graphs: bool) -> None:
    loaded = cuda_only.on_cuda(path, 8, knobs.Knobs(instances=count, cuda_graphs=with_graphs))
    assert loaded.in_flight == 2 * count

    async def one(seed: int, places: asyncio.Semaphore) -> None:
        rows = 1 + seed % 8
        image = graphs.pixels(rows, seed)
        bucket = next(size for size in loaded.buckets if size >= rows)
        async with places:
            requests = [{"image": image[row : row + 1]} for row in range(rows)]
            result = await loaded.run_batch(requests, cuda_only.ALL, bucket)
        cuda_only.assert_close(result.outputs, cuda_only.on_cpu(path, {"image": image}), FP32)

    async def many() -> None:
        places = asyncio.Semaphore(loaded.in_flight)
        await asyncio.gather(*(one(seed, places) for seed in range(100)))

    asyncio.run(many())
    loaded.close()


def test_every_bucket_is_warm_and_timed_before_the_first_request(path: pathlib.Path) -> None:
    heard: list[tuple[int, int]] = []
    loaded = instances.Instances("m", path, cuda_only.options())
    measured = loaded.warm(12, lambda done, total: heard.append((done, total)))
    assert (measured.pads, tuple(measured.seconds)) == (True, (1, 2, 4, 8, 12))
    assert heard[-1] == (5, 5)
    loaded.close()


def test_goldens_of_the_cpu_are_reproduced_at_every_bucket(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    image = {"image": graphs.pixels(3)}
    outputs = {f"output.{name}": rows for name, rows in cuda_only.on_cpu(path, image).items()}
    np.savez(tmp_path / "golden.npz", **{"input.image": image["image"]}, **outputs)
    manifest = manifest_pb2.Manifest(tolerances=[manifest_pb2.Tolerance(provider=providers.CUDA, relative=FP32)])
    loaded = cuda_only.on_cuda(path, 8)
    replayed = goldens.replay("m", tmp_path, manifest, loaded, providers.CUDA)
    assert replayed is not None
    assert replayed.runs == 9
    loaded.close()


def test_without_tf32_float32_is_exact(path: pathlib.Path) -> None:
    loaded = cuda_only.on_cuda(path, 4, use_tf32="0")
    image = {"image": graphs.pixels(4)}
    cuda_only.assert_close(loaded.run(image, cuda_only.ALL), cuda_only.on_cpu(path, image), EXACT)
    loaded.close()


@pytest.mark.parametrize(
    ("option", "value"),
    [("prefer_nhwc", "1"), ("cudnn_conv_use_max_workspace", "0"), ("cudnn_conv_algo_search", "EXHAUSTIVE")],
)
def test_tuned_options_do_not_change_the_answers(path: pathlib.Path, option: str, value: str) -> None:
    loaded = cuda_only.on_cuda(path, 4, **{option: value})
    image = {"image": graphs.pixels(3)}
    cuda_only.assert_close(loaded.run(image, cuda_only.ALL), cuda_only.on_cpu(path, image), FP32)
    loaded.close()


def test_the_options_are_what_onnx_runtime_uses(path: pathlib.Path) -> None:
    text = 'parameters { key: "gpu_mem_limit" value { string_value: "1073741824" } }'
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    placed = placement.of("m", config, cuda_only.options())
    loaded = session.Session("m", path, placed.options, placed.knobs)
    used = loaded._session.get_provider_options()[providers.CUDA]
    wanted = {
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "gpu_mem_limit": "1073741824",
        "use_tf32": "1",
        "enable_cuda_graph": "0",
    }
    assert {name: used[name] for name in wanted} == wanted


def test_all_nodes_are_on_cuda_and_that_is_reported(path: pathlib.Path) -> None:
    loaded = cuda_only.on_cuda(path, 2)
    assert loaded.properties["nodes_on_cpu"] == "0"
    loaded.close()


def test_a_convolution_that_cuda_leaves_to_the_cpu_keeps_the_model_out(tmp_path: pathlib.Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("ConvInteger", ["x", "w"], ["y"], name="on the CPU")],
        "int8",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["n", 4, 6, 6])],
        [numpy_helper.from_array(np.ones((4, 3, 3, 3), np.uint8), "w")],
    )
    path = graphs.save(graph, tmp_path / "m.onnx")
    assert onnx.load(path).graph.node[0].op_type == "ConvInteger"
    with pytest.raises(errors.ModelLoadError, match=r"leaves 1 of its convolutions to the CPU \(on the CPU"):
        cuda_only.on_cuda(path, 2)


def test_a_memory_limit_that_is_too_small_is_told_at_load(tmp_path: pathlib.Path) -> None:
    path = graphs.convnet(tmp_path / "m.onnx", side=256)
    with pytest.raises(errors.ModelLoadError, match="cannot be served"):
        cuda_only.on_cuda(path, 64, gpu_mem_limit="1048576")


def test_images_of_any_size_run_without_buckets(tmp_path: pathlib.Path) -> None:
    path = graphs.convnet(tmp_path / "m.onnx", side="s")
    loaded = cuda_only.on_cuda(path, 4)
    assert (loaded.buckets, loaded.pads) == ((), False)
    image = {"image": graphs.pixels(2)}
    cuda_only.assert_close(loaded.run(image, cuda_only.ALL), cuda_only.on_cpu(path, image), FP32)
    loaded.close()


def test_cuda_graphs_of_images_of_any_size_are_refused(tmp_path: pathlib.Path) -> None:
    path = graphs.convnet(tmp_path / "m.onnx", side="s")
    with pytest.raises(errors.ModelLoadError, match="CUDA graphs"):
        cuda_only.on_cuda(path, 4, knobs.Knobs(cuda_graphs=True))


def test_a_model_can_stay_on_the_cpu(path: pathlib.Path) -> None:
    config = model_config_pb2.ModelConfig(instance_group=[{"kind": "KIND_CPU"}])
    placed = placement.of("m", config, cuda_only.options())
    loaded = instances.Instances("m", path, placed.options, placed.knobs)
    assert not loaded.warm(2, lambda done, total: None).pads
    loaded.close()


def test_bytes_survive_the_way_to_the_device_and_back(path: pathlib.Path) -> None:
    device = cuda.Cuda(cuda.load())
    device.use()
    free, total = device.memory_bytes()
    assert 0 < free <= total
    pinned, stream = cuda.PinnedArrays(device), device.new_stream()
    there, back = pinned.array((1000,), np.dtype(np.uint8)), pinned.array((1000,), np.dtype(np.uint8))
    there[...] = np.arange(1000) % 251
    tensor = session.Session("m", path, cuda_only.options()).device_tensor((1000,), np.dtype(np.uint8))
    device.to_device(tensor.address, there, stream)
    device.to_host(back, tensor.address, stream)
    device.synchronise(stream)
    assert np.array_equal(there, back)
    pinned.close()
    device.end_stream(stream)
