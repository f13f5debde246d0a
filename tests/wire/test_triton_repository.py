"""A repository laid out by hand as Triton's documentation shows it for ONNX, served to Triton's own client.

Source: https://github.com/triton-inference-server/server, docs/user_guide/model_repository.md, model_configuration.md,
docs/examples/model_repository (`simple`, `simple_string`, `densenet_onnx`, `inception_onnx`), read in November 2026.
"""

import pathlib
import shutil
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
from onnx import helper, numpy_helper
from tritonclient.utils import InferenceServerException

from tests.conftest import RunningServer, running
from tests.wire import by_hand, stock
from tests.wire.repositories import until

WEIGHTS = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
SCALED = "(float[N,4] x) => (float[N,4] y) {{ c = Constant<value = float {{{factor}}}>() y = Mul(x, c) }}"
X = np.arange(4, dtype=np.float32)[None]
TENSORS = """
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
"""
IMAGES = "(float[N,3,8,8] data_0) => (float[N,10,1,1] fc6_1) { k = Constant<value = int64[3] {1, 2, 3}>() m = ReduceMean(data_0, k) z = Constant<value = float[1,10,1,1] {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}>() fc6_1 = Mul(m, z) }"  # noqa: E501  # one graph
DENSENET = """
name: "densenet_onnx"
platform: "onnxruntime_onnx"
max_batch_size : 1
input [
  {
    name: "data_0"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, 8, 8 ]
  }
]
output [
  {
    name: "fc6_1"
    data_type: TYPE_FP32
    dims: [ 10 ]
    reshape { shape: [ 10, 1, 1 ] }
    label_filename: "densenet_labels.txt"
  }
]
"""


def scaled(factor: int) -> str:
    return SCALED.format(factor=factor)


def lay(repository: pathlib.Path) -> None:
    """Folder by folder, as the documentation goes."""
    labels = {"labels.txt": stock.LABELS}
    by_hand.write(repository, "simple", {"1": by_hand.SIMPLE}, stock.SIMPLE_CONFIG, labels=labels)
    text = by_hand.SIMPLE.replace("int32", "string").replace("Add", "StringConcat").replace("Sub", "StringConcat")
    by_hand.write(repository, "simple_string", {"1": text}, 'backend: "onnxruntime" max_batch_size: 8')
    by_hand.write(repository, "densenet_onnx", {"1": IMAGES}, DENSENET, labels={"densenet_labels.txt": stock.LABELS})
    by_hand.write(repository, "no_config", {"1": scaled(1)})
    versions = {str(number): scaled(number) for number in (1, 2, 3, 11)} | dict.fromkeys(("03", "notes"), scaled(0))
    for name, policy in {
        "newest": "",
        "latest": "version_policy: { latest: { num_versions: 2}}",
        "specific": "version_policy: { specific: { versions: [1,3]}}",
        "all": "version_policy: { all { }}",
    }.items():
        config = f'platform: "onnxruntime_onnx" max_batch_size: 8 {TENSORS} {policy}'
        by_hand.write(repository, name, versions, config)
    by_hand.write(
        repository, "unbatched", {"1": scaled(2)}, f"max_batch_size: 0 {TENSORS.replace('[ 4 ]', '[ -1, 4 ]')}"
    )
    by_hand.write(repository, "fixed", {"1": scaled(2)}, f"max_batch_size: 0 {TENSORS.replace('[ 4 ]', '[ 2, 4 ]')}")
    by_hand.write(repository, "renamed", {"1": scaled(5)}, 'default_model_filename: "net.onnx"', filename="net.onnx")
    of_files(repository / "of_files/1/model.onnx")
    (repository / "of_files/config.pbtxt").write_text('backend: "onnxruntime" max_batch_size: 4')
    row = "(float[N] x) => (float[N] y) { y = Neg(x) }"
    reshaped = "dims: [ 1 ] reshape: { shape: [ ] }"
    by_hand.write(
        repository,
        "reshaped",
        {"1": row},
        f'max_batch_size: 8 input [ {{ name: "x" data_type: TYPE_FP32 {reshaped} }} ] '
        f'output [ {{ name: "y" data_type: TYPE_FP32 {reshaped} }} ] dynamic_batching {{ }}',
    )
    (repository / "reshaped/configs").mkdir()
    (repository / "reshaped/configs/h100.pbtxt").write_text("max_batch_size: 1")


def of_files(folder: pathlib.Path, factor: float = 1) -> None:
    """A model of several files: a folder called model.onnx, its weights beside the main file."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "of_files",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(WEIGHTS * np.float32(factor), "w")],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repository = tmp_path_factory.mktemp("repository")
    lay(repository)
    with running(repository, tmp_path_factory.mktemp("log") / "log", "--threads", "1", "--device", "cpu") as server:
        yield server


@pytest.fixture
def client(served: RunningServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(served.address) as connection:
        yield connection


def ask(client: triton.InferenceServerClient, model: str, values: np.ndarray, version: str = "") -> np.ndarray:
    return client.infer(model, [by_hand.tensor("x", values)], model_version=version).as_numpy("y")


def test_all_of_it_is_served(client: triton.InferenceServerClient) -> None:
    index = {(one.name, one.version): one.state for one in client.get_model_repository_index().models}
    assert set(index.values()) == {"READY"}
    assert {name for name, _ in index} == {
        "simple", "simple_string", "densenet_onnx", "no_config", "newest", "latest", "specific", "all", "unbatched",
        "fixed", "renamed", "of_files", "reshaped",
    }  # fmt: skip


def test_the_examples_of_two_tensors(client: triton.InferenceServerClient) -> None:
    result = client.infer("simple", stock.inputs())
    stock.assert_answers(result)
    words = np.array([[f"{number}".encode() for number in range(16)]], np.object_)
    asked = [by_hand.tensor(f"INPUT{number}", words) for number in range(2)]
    result = client.infer("simple_string", asked)
    assert result.as_numpy("OUTPUT0").tolist() == [[word * 2 for word in words[0]]]


@pytest.mark.parametrize(
    ("model", "versions"),
    [("newest", [11]), ("latest", [3, 11]), ("specific", [1, 3]), ("all", [1, 2, 3, 11])],
)
def test_version_policies(client: triton.InferenceServerClient, model: str, versions: list[int]) -> None:
    assert list(client.get_model_metadata(model).versions) == list(map(str, versions))
    for version in (1, 2, 3, 11):
        assert client.is_model_ready(model, str(version)) == (version in versions)
        if version in versions:
            assert (ask(client, model, X, str(version)) == X * version).all()
        else:
            with pytest.raises(InferenceServerException, match=f"version '{version}' of model '{model}' is not served"):
                ask(client, model, X, str(version))
    assert (ask(client, model, X) == X * versions[-1]).all()


def test_without_a_batch_the_shape_is_the_dims(client: triton.InferenceServerClient) -> None:
    for model, shape in (("unbatched", [-1, 4]), ("fixed", [2, 4])):
        assert client.get_model_config(model).config.max_batch_size == 0
        told = client.get_model_metadata(model)
        assert [list(tensor.shape) for tensor in (*told.inputs, *told.outputs)] == [shape, shape]
        assert (ask(client, model, np.repeat(X, 2, axis=0)) == np.repeat(X, 2, axis=0) * 2).all()
    with pytest.raises(InferenceServerException, match=r"got shape \[1, 4\]; expected shape \[2, 4\]"):
        ask(client, "fixed", X)


def test_a_file_of_another_name(client: triton.InferenceServerClient) -> None:
    assert (ask(client, "renamed", X) == X * 5).all()
    assert client.get_model_config("renamed").config.default_model_filename == "net.onnx"


def test_a_model_of_several_files(client: triton.InferenceServerClient) -> None:
    x = np.eye(6, dtype=np.float32)[:3]
    assert (ask(client, "of_files", x) == WEIGHTS[:3]).all()


def test_the_example_of_images_with_labels(client: triton.InferenceServerClient) -> None:
    """As the quick start asks its densenet: one image, best classes with labels; the graph's 1x1 is not seen."""
    image = np.ones((1, 3, 8, 8), np.float32)
    wanted = [triton.InferRequestedOutput("fc6_1", class_count=3)]
    best = client.infer("densenet_onnx", [by_hand.tensor("data_0", image)], outputs=wanted).as_numpy("fc6_1")
    assert best.tolist() == [[b"9.000000:9:class 9", b"8.000000:8:class 8", b"7.000000:7:class 7"]]
    assert list(client.get_model_metadata("densenet_onnx").outputs[0].shape) == [-1, 10]
    whole = client.infer("densenet_onnx", [by_hand.tensor("data_0", image)]).as_numpy("fc6_1")
    assert whole.tolist() == [list(range(10))]
    config = client.get_model_config("densenet_onnx").config
    assert list(config.output[0].reshape.shape) == [10, 1, 1]


def test_rows_that_are_numbers(client: triton.InferenceServerClient) -> None:
    """The documentation's reason for `reshape`: [ batch ] in the graph is [ batch, 1 ] in requests."""
    assert list(client.get_model_metadata("reshaped").inputs[0].shape) == [-1, 1]
    rows = np.arange(6, dtype=np.float32)[:, None]
    assert (ask(client, "reshaped", rows) == -rows).all()
    heard = stock.Answers()
    for number in range(20):
        client.async_infer("reshaped", [by_hand.tensor("x", rows + number)], heard, request_id=str(number))
    for _ in range(20):
        result = heard.next()
        assert (result.as_numpy("y") == -rows - int(result.get_response().id)).all()
    with pytest.raises(InferenceServerException, match=r"got shape \[6\]; expected shape \[-1, 1\]"):
        ask(client, "reshaped", rows[:, 0])


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        ("dims: [ 2 ] reshape { shape: [ ] }", r"reshapes 'x' from dims \[2\] to \[\]; expected as many elements"),
        ("dims: [ -1 ] reshape { shape: [ 1 ] }", r"expected as many elements, and as many free dimensions"),
        ("dims: [ 1 ] reshape { shape: [ 1, 1 ] }", r"reshapes 'x' to \[-1, 1, 1\]; the graph has \[-1\]"),
    ],
)
def test_reshapes_that_do_not_fit_are_refused(tmp_path: pathlib.Path, tensor: str, sentence: str) -> None:
    row = "(float[N] x) => (float[N] y) { y = Neg(x) }"
    by_hand.write(tmp_path / "models", "wrong", {"1": row}, f'max_batch_size: 2 input {{ name: "x" {tensor} }}')
    flags = ("--model-control-mode", "explicit")
    with (
        running(tmp_path / "models", tmp_path / "log", *flags) as server,
        triton.InferenceServerClient(server.address) as client,
        pytest.raises(InferenceServerException, match=sentence),
    ):
        client.load_model("wrong")


def test_a_change_of_any_of_its_files_is_seen(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "models/of_files/1/model.onnx"
    of_files(folder)
    x = np.eye(6, dtype=np.float32)[:1]
    flags = ("--model-control-mode", "poll", "--repository-poll-s", "0.1", "--threads", "1")
    with (
        running(tmp_path / "models", tmp_path / "log", *flags) as server,
        triton.InferenceServerClient(server.address) as client,
    ):
        assert (ask(client, "of_files", x) == WEIGHTS[:1]).all()
        of_files(tmp_path / "new", 2)
        shutil.copy(tmp_path / "new/weights.bin", folder / "weights.bin.new")
        (folder / "weights.bin.new").replace(folder / "weights.bin")
        until(lambda: bool((ask(client, "of_files", x) == WEIGHTS[:1] * 2).all()), "the new weights")
