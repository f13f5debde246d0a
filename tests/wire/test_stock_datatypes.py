"""Every datatype of the protocol, through both of NVIDIA's clients: raw, typed, in a stream, in shared memory.

One model for each answers what it is asked, so each value has to come back to the bit.
"""

import pathlib
from collections.abc import Iterator

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, shared_memory, triton_to_np_dtype

from service import datatypes
from tests.conftest import RunningServer, running
from tests.wire import by_hand, stock

ONNX = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float", "FP64": "double",
    "BF16": "bfloat16", "BYTES": "string",
}  # fmt: skip
NONFINITE = (np.nan, np.inf, -np.inf)


def values(datatype: str) -> NDArray[np.generic]:
    """Six values of a datatype with its extremes, (2, 3)."""
    dtype = np.dtype(triton_to_np_dtype(datatype))
    if datatype == "BYTES":
        return np.array([[b"", b"plain", "größer 日本 🐦".encode()], [b"nul\0inside", b"x" * 300, b"\n"]], np.object_)
    if datatype == "BOOL":
        return np.array([[True, False, True], [False, False, True]])
    if np.issubdtype(dtype, np.integer):
        most = np.iinfo(dtype)
        return np.array([[most.min, most.max, 0], [1, most.max - 1, most.min + 1]], dtype)
    most = ml_dtypes.finfo(dtype)
    return np.array([[most.max, most.min, -0.0], [most.smallest_subnormal, 1.5, NONFINITE[0]]], dtype)


def same(found: NDArray[np.generic], wanted: NDArray[np.generic]) -> bool:
    if wanted.dtype == np.object_:
        return found.tolist() == wanted.tolist()
    return found.dtype == wanted.dtype and found.tobytes() == wanted.tobytes() and found.shape == wanted.shape


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repository: pathlib.Path = tmp_path_factory.mktemp("repository")
    for datatype, onnx_type in ONNX.items():
        tensors = (
            f'input {{ name: "x" data_type: {_config(datatype)} dims: 3 }} '
            f'output {{ name: "y" data_type: {_config(datatype)} dims: 3 }}'
        )
        body = f"({onnx_type}[N,3] x) => ({onnx_type}[N,3] y) {{ y = Identity(x) }}"
        by_hand.write(repository, datatype, {"1": body}, f"max_batch_size: 4 {tensors} dynamic_batching {{}}")
        by_hand.write(repository, f"{datatype}-unbatched", {"1": body}, "max_batch_size: 0")
    log = tmp_path_factory.mktemp("log") / "server.log"
    with running(repository, log, "--threads", "1", "--device", "cpu", "--allow-client-shm") as server:
        yield server


def _config(datatype: str) -> str:
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def test_none_is_forgotten() -> None:
    assert set(ONNX) == set(datatypes.BY_WIRE)
    assert {np_to_triton_dtype(triton_to_np_dtype(datatype)) for datatype in ONNX} == set(ONNX)


@pytest.mark.parametrize("model", ["{}", "{}-unbatched"], ids=["batched", "unbatched"])
@pytest.mark.parametrize("is_aio", [False, True], ids=["blocking", "asyncio"])
@pytest.mark.parametrize("datatype", ONNX)
def test_values_come_back_to_the_bit(served: RunningServer, datatype: str, is_aio: bool, model: str) -> None:
    client = stock.Stock(served.address, is_aio=is_aio)
    name = model.format(datatype)
    told = client.get_model_metadata(name)
    assert [(one.name, one.datatype, list(one.shape)) for one in (*told.inputs, *told.outputs)] == [
        ("x", datatype, [-1, 3]),
        ("y", datatype, [-1, 3]),
    ]
    sent = values(datatype)
    result = client.infer(name, [by_hand.tensor("x", sent)])
    assert result.get_output("y").datatype == datatype
    assert same(result.as_numpy("y"), sent)
    client.end()


@pytest.mark.parametrize("datatype", ONNX)
def test_values_come_back_in_a_stream(served: RunningServer, datatype: str) -> None:
    heard = stock.Answers()
    with triton.InferenceServerClient(served.address) as client:
        client.start_stream(heard)
        for _ in range(5):
            client.async_stream_infer(datatype, [by_hand.tensor("x", values(datatype)[:1])])
        for _ in range(5):
            assert same(heard.next().as_numpy("y"), values(datatype)[:1])
        client.stop_stream()


@pytest.mark.parametrize("datatype", datatypes.CONTENTS)
def test_typed_contents_come_back_raw(served: RunningServer, datatype: str) -> None:
    sent = values(datatype)
    request = service_pb2.ModelInferRequest(model_name=datatype)
    given = request.inputs.add(name="x", datatype=datatype, shape=sent.shape)
    getattr(given.contents, datatypes.CONTENTS[datatype]).extend(sent.ravel().tolist())
    with grpc.insecure_channel(served.address) as channel:
        response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert same(triton.InferResult(response).as_numpy("y"), sent)


@pytest.mark.parametrize("datatype", ONNX)
def test_values_come_back_through_shared_memory(served: RunningServer, datatype: str) -> None:
    """Strings go in; out they come in the message, for their length is not known before."""
    sent = values(datatype)
    is_text = datatype == "BYTES"
    raw = by_hand.tensor("x", sent)._get_content()
    key = f"/fovea-datatypes-{datatype}"
    memory = shared_memory.create_shared_memory_region("both", key, 2048)
    try:
        with triton.InferenceServerClient(served.address) as client:
            client.register_system_shared_memory("both", key, 2048)
            shared_memory.set_shared_memory_region(memory, [np.frombuffer(raw, np.uint8)])
            given = triton.InferInput("x", list(sent.shape), datatype)
            given.set_shared_memory("both", len(raw))
            wanted = triton.InferRequestedOutput("y")
            wanted.set_shared_memory("both", 1024, offset=1024)
            if is_text:
                with pytest.raises(InferenceServerException, match="strings, which do not go into shared memory"):
                    client.infer(datatype, [given], outputs=[wanted])
                wanted.unset_shared_memory()
            result = client.infer(datatype, [given], outputs=[wanted])
            client.unregister_system_shared_memory("both")
            if is_text:
                assert same(result.as_numpy("y"), sent)
            else:
                found = bytes(shared_memory.get_contents_as_numpy(memory, np.uint8, [len(raw)], offset=1024))
                assert found == raw
                assert result.get_output("y").parameters["shared_memory_byte_size"].int64_param == len(raw)
    finally:
        shared_memory.destroy_shared_memory_region(memory)


@pytest.mark.parametrize("datatype", sorted(ONNX.keys() - {"BYTES"}))
def test_best_classes_of_every_number(served: RunningServer, datatype: str) -> None:
    sent = np.array([[0, 1, 0], [1, 0, 0]]).astype(triton_to_np_dtype(datatype))
    with triton.InferenceServerClient(served.address) as client:
        wanted = [triton.InferRequestedOutput("y", class_count=1)]
        best = client.infer(datatype, [by_hand.tensor("x", sent)], outputs=wanted).as_numpy("y")
    assert best.tolist() == [[b"1.000000:1"], [b"1.000000:0"]]


async def test_no_rows_and_other_datatypes_are_refused(served: RunningServer) -> None:
    async with triton_aio.InferenceServerClient(served.address) as client:
        empty = by_hand.tensor("x", np.empty((0, 3), np.float32))
        with pytest.raises(InferenceServerException, match="at least one row"):
            await client.infer("FP32", [empty])
        assert (await client.infer("FP32-unbatched", [empty])).as_numpy("y").shape == (0, 3)
        for datatype in ONNX.keys() - {"FP32"}:
            with pytest.raises(InferenceServerException, match="expected FP32"):
                await client.infer("FP32", [by_hand.tensor("x", values(datatype))])
