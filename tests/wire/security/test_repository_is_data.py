"""A model repository is data: nothing in it runs, and nothing in it reaches beyond its folder."""

import ast
import os
import pathlib
from collections.abc import Callable, Iterator

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from protos import inference_pb2, inference_pb2_grpc
from tests.conftest import RunningServer, running
from tests.wire.security.conftest import CONFIG, MODEL, QUICK, asked, lay

ROOT = pathlib.Path(__file__).parents[3]
SECRET = np.full(4, 42.0, np.float32).tobytes()


def with_weights_at(folder: pathlib.Path, location: str, length: int = len(SECRET)) -> None:
    """Write a model that adds a constant, which it says is in another file."""
    constant = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        constant.external_data.add(key=key, value=value)
    write(folder, helper.make_node("Add", ["x", "w"], ["y"]), [constant])


def write(folder: pathlib.Path, node: onnx.NodeProto, constants: list[TensorProto]) -> None:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:], constants)
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("evil", 1)]
    (folder / "1").mkdir(parents=True, exist_ok=True)
    content = helper.make_model(graph, opset_imports=domains, ir_version=9).SerializeToString()
    (folder / "1/model.onnx").write_bytes(content)
    (folder / "config.pbtxt").write_text(CONFIG)


def honest(folder: pathlib.Path, secret: pathlib.Path) -> None:
    with_weights_at(folder, "weights.bin")
    (folder / "1/weights.bin").write_bytes(SECRET)


def climbs(folder: pathlib.Path, secret: pathlib.Path) -> None:
    with_weights_at(folder, os.path.relpath(secret, folder / "1"))


def climbs_within_the_model(folder: pathlib.Path, secret: pathlib.Path) -> None:
    with_weights_at(folder, "../weights.bin")
    (folder / "weights.bin").write_bytes(SECRET)


def is_absolute(folder: pathlib.Path, secret: pathlib.Path) -> None:
    with_weights_at(folder, str(secret))


def is_a_device(folder: pathlib.Path, secret: pathlib.Path) -> None:
    with_weights_at(folder, "/dev/zero")


def is_a_link(folder: pathlib.Path, secret: pathlib.Path) -> None:
    with_weights_at(folder, "weights.bin")
    (folder / "1/weights.bin").symlink_to(secret)


def is_below_a_link(folder: pathlib.Path, secret: pathlib.Path) -> None:
    with_weights_at(folder, f"below/{secret.name}")
    (folder / "1/below").symlink_to(secret.parent)


def is_larger_than_its_file(folder: pathlib.Path, secret: pathlib.Path) -> None:
    with_weights_at(folder, "weights.bin", 1 << 40)
    (folder / "1/weights.bin").write_bytes(SECRET)


def is_an_address_in_memory(folder: pathlib.Path, secret: pathlib.Path) -> None:
    with_weights_at(folder, "*/_ORT_MEM_ADDR_/*")


def has_an_operator_of_its_own(folder: pathlib.Path, secret: pathlib.Path) -> None:
    write(folder, helper.make_node("Evil", ["x"], ["y"], domain="evil"), [])
    (folder / "1/libevil.so").write_bytes(b"\x7fELF")


def names_a_library(folder: pathlib.Path, secret: pathlib.Path) -> None:
    honest(folder, secret)
    library = 'model_operations { op_library_filename: "libevil.so" }'
    (folder / "config.pbtxt").write_text(f"{CONFIG} {library}")


def has_labels_elsewhere(folder: pathlib.Path, secret: pathlib.Path) -> None:
    honest(folder, secret)
    output = 'output [{ name: "y" data_type: TYPE_FP32 dims: [4] label_filename: "labels.txt" }]'
    (folder / "config.pbtxt").write_text(f"{CONFIG} {output}")
    (folder / "labels.txt").symlink_to(secret)


def has_labels_above(folder: pathlib.Path, secret: pathlib.Path) -> None:
    honest(folder, secret)
    path = os.path.relpath(secret, folder)
    output = f'output [{{ name: "y" data_type: TYPE_FP32 dims: [4] label_filename: "{path}" }}]'
    (folder / "config.pbtxt").write_text(f"{CONFIG} {output}")


def has_its_graph_elsewhere(folder: pathlib.Path, secret: pathlib.Path) -> None:
    honest(folder, secret)
    (folder / "config.pbtxt").write_text(f'{CONFIG} default_model_filename: "../../{MODEL}/1/model.onnx"')


Case = Callable[[pathlib.Path, pathlib.Path], None]
REFUSED: dict[Case, str] = {
    climbs: "escapes model directory",
    climbs_within_the_model: "escapes model directory",
    is_absolute: "Absolute path not allowed",
    is_a_device: "Absolute path not allowed",
    is_a_link: "escapes model directory",
    is_below_a_link: "escapes model directory",
    is_larger_than_its_file: "size mismatch",
    is_an_address_in_memory: "Graph::Graph",
    has_an_operator_of_its_own: "evil:Evil(-1) is not a registered function/op",
    names_a_library: "sets model_operations",
    has_labels_elsewhere: "is a link that leaves",
    has_labels_above: "must be a plain file name",
    has_its_graph_elsewhere: "must be a plain file name",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    place = tmp_path_factory.mktemp("data")
    secret = place / "outside/secret.bin"
    secret.parent.mkdir()
    secret.write_bytes(SECRET)
    lay(place / "models")
    for case in (honest, *REFUSED):
        case(place / "models" / case.__name__, secret)
    flags = (*QUICK, "--model-control-mode", "explicit", "--load-model", "*")
    with running(place / "models", place / "log", *flags) as started:
        yield started


def test_weights_in_a_file_beside_the_graph_are_read(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        asked(channel)
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        ready = inference_pb2.ModelReadyRequest(name="honest")
        assert stub.ModelReady(ready, timeout=30).ready


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.__name__)
def test_what_reaches_beyond_its_folder_or_would_run_is_not_served(server: RunningServer, case: Case) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        index = stub.RepositoryIndex(inference_pb2.RepositoryIndexRequest(), timeout=30)
    reasons = {model.name: (model.state, model.reason) for model in index.models}
    state, reason = reasons[case.__name__]
    assert state == "UNAVAILABLE"
    assert REFUSED[case] in reason


def test_nothing_on_the_serving_side_can_run_what_it_reads() -> None:
    """No pickle in any form, no code from text, no libraries of operators, no shell."""
    modules = {
        "pickle",
        "cPickle",
        "_pickle",
        "dill",
        "cloudpickle",
        "joblib",
        "shelve",
        "marshal",
        "runpy",
        "code",
        "imp",
    }
    calls = {"eval", "exec", "compile", "__import__", "register_custom_ops_library", "system", "popen"}
    for path in sorted((*(ROOT / "service").rglob("*.py"), *(ROOT / "protos").rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            assert not modules & _imported(node), where
            if isinstance(node, ast.Call):
                name, owner = _called(node.func)
                assert name not in calls or owner in {"re", "platform"}, where
                given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                if owner in {"np", "numpy"} and name in {"load", "fromfile"}:
                    assert given.get("allow_pickle") == "False" or name == "fromfile", where
                assert given.get("shell") != "True", where


def _imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        return {(node.module or "").partition(".")[0]}
    return set()


def _called(function: ast.expr) -> tuple[str, str]:
    if isinstance(function, ast.Attribute):
        return function.attr, ast.unparse(function.value)
    return (function.id if isinstance(function, ast.Name) else ""), ""
