"""A repository that is there at once, certificates, and calls of a stock client."""

import pathlib
from collections.abc import Iterator

import grpc
import numpy as np
import onnx
import pytest
from onnx import parser

from protos import inference_pb2, inference_pb2_grpc
from tests.conftest import RunningServer, running
from tests.wire.security import authority

QUICK = ("--device", "cpu", "--threads", "1")
MODEL = "twice"
CONFIG = "max_batch_size: 8 instance_group [{ count: 1 }]"


def lay(repository: pathlib.Path, name: str = MODEL) -> pathlib.Path:
    """Write a model that doubles four numbers; its folder."""
    graph = parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]> g (float[n, 4] x) => (float[n, 4] y) { y = Add(x, x) }'
    )
    (repository / name / "1").mkdir(parents=True)
    onnx.save(graph, repository / name / "1/model.onnx")
    (repository / name / "config.pbtxt").write_text(CONFIG)
    return repository / name


def request(rows: int = 1, model: str = MODEL, request_id: str = "") -> inference_pb2.ModelInferRequest:
    asked = inference_pb2.ModelInferRequest(model_name=model, id=request_id)
    asked.inputs.add(name="x", datatype="FP32", shape=[rows, 4])
    asked.raw_input_contents.append(np.ones((rows, 4), np.float32).tobytes())
    return asked


def asked(channel: grpc.Channel, token: str = "", rows: int = 1, model: str = MODEL) -> None:
    """Ask for one answer, and look at it."""
    stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    answer = stub.ModelInfer(request(rows, model), metadata=bearer(token), timeout=30)
    assert (np.frombuffer(answer.raw_output_contents[0], np.float32) == 2.0).all()


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),) if token else ()


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("twice")
    lay(path)
    return path


@pytest.fixture(scope="session")
def root() -> authority.Made:
    """The authority of server and clients."""
    return authority.made("root", is_authority=True)


@pytest.fixture(scope="session")
def root_file(root: authority.Made, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("root") / "ca.crt"
    path.write_bytes(root.pem)
    return path


@pytest.fixture(scope="session")
def plain(repository: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server without TLS and tokens."""
    with running(repository, tmp_path_factory.mktemp("plain") / "log", *QUICK) as server:
        yield server
