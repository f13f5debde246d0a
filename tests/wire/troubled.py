"""A server with models that make trouble on request: slow, broken, for another device; and what its errors say."""

import dataclasses
import json
import pathlib
import shutil
import time
from typing import Any

import grpc
import onnx
from google.protobuf import message as protobuf_message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from onnx import parser

from protos import images_pb2, inference_pb2
from tests.conftest import Exported

SERVICE = "/inference.GRPCInferenceService/"
EXPLICIT = ("--model-control-mode", "explicit", "--threads", "1", "--device", "cpu")
QUEUE_SAMPLES_MAX = 40
FLAGS = (*EXPLICIT, "--queue-samples-max", str(QUEUE_SAMPLES_MAX), "--message-bytes-max", str(2**20))
LOADED = ("lenet5", "slow", "zeros", "outside")

GRAPHS = {
    # As many products of matrices as it is told; a thousand take more than a second.
    "slow": """slow (int64 n, float[1] x) => (float[400,400] y) {
        shape = Constant<value = int64[2] {400, 400}>()
        wide = Expand(x, shape)
        more = Constant<value = bool {1}>()
        first = MatMul(wide, wide)
        y = Loop(n, more, first) <
            body = product (int64 i, bool on, float[400,400] was) => (bool on2, float[400,400] is) {
            on2 = Identity(on)
            is = MatMul(was, wide)
        }>
    }""",
    # As many zeros as it is told.
    "zeros": """zeros (int64[1] n) => (float[m] y) {
        y = ConstantOfShape(n)
    }""",
    # Runs only for indices 0 and 1.
    "outside": """outside (int64[1] i) => (float[1] y) {
        values = Constant<value = float[2] {1, 2}>()
        y = Gather(values, i)
    }""",
}  # fmt: skip


def lay(exported: Exported, repository: pathlib.Path) -> None:
    """Write the repository."""
    shutil.copytree(exported.repository / "lenet5", repository / "lenet5")
    for name in GRAPHS:
        lay_graph(repository, name)
    shutil.copytree(exported.repository / "lenet5", repository / "elsewhere")
    config = repository / "elsewhere" / "config.pbtxt"
    config.write_text(config.read_text().replace('"lenet5"', '"elsewhere"'))
    path = repository / "elsewhere" / "1" / "model.onnx"
    variant = onnx.load(path)
    (manifest,) = [entry for entry in variant.metadata_props if entry.key == "fovea.manifest"]
    manifest.value = json.dumps(
        json.loads(manifest.value) | {"precision": "fp16", "providers": ["CUDAExecutionProvider"]}
    )
    onnx.save(variant, path)
    (repository / "broken" / "1").mkdir(parents=True)
    (repository / "broken" / "1" / "model.onnx").write_bytes(b"no graph")


def lay_graph(repository: pathlib.Path, name: str) -> None:
    """Write one of the models of `GRAPHS`."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {GRAPHS[name]}')
    (repository / name / "1").mkdir(parents=True)
    onnx.save(model, repository / name / "1" / "model.onnx")


def flags() -> tuple[str, ...]:
    return (*FLAGS, *(part for name in LOADED for part in ("--load-model", name)))


@dataclasses.dataclass(frozen=True)
class Told:
    """How a call failed, as a client with grpcio-status reads it."""

    code: grpc.StatusCode
    sentence: str
    reason: str
    domain: str
    violations: dict[str, str]
    """Field → what was wrong with it."""
    resource: tuple[str, str]
    retry_ms: int | None
    pushback: str | None


def told(error: Any) -> Told:
    """Read an error of either of gRPC's clients; fails unless status and details agree."""
    status = rpc_status.from_call(error)  # raises if code or message differ
    found: dict[type[Any], Any] = {}
    for detail in status.details if status is not None else ():
        for kind in (
            error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo,
            error_details_pb2.ResourceInfo,
        ):  # fmt: skip
            if detail.Is(kind.DESCRIPTOR):
                assert kind not in found
                found[kind] = kind()
                detail.Unpack(found[kind])
    info = found.get(error_details_pb2.ErrorInfo, error_details_pb2.ErrorInfo())
    request = found.get(error_details_pb2.BadRequest, error_details_pb2.BadRequest())
    resource = found.get(error_details_pb2.ResourceInfo, error_details_pb2.ResourceInfo())
    retry = found.get(error_details_pb2.RetryInfo)
    return Told(
        error.code(),
        error.details(),
        info.reason,
        info.domain,
        {violation.field: violation.description for violation in request.field_violations},
        (resource.resource_type, resource.resource_name),
        None if retry is None else retry.retry_delay.ToMilliseconds(),
        dict(error.trailing_metadata() or ()).get("grpc-retry-pushback-ms"),
    )


def call(
    channel: grpc.Channel, request: protobuf_message.Message | bytes, method: str = "", metadata: Any = ()
) -> Told:
    """Make a unary call that has to fail; the method is the one that the message is the request of."""
    raw = request if isinstance(request, bytes) else request.SerializeToString()
    if not method:
        name = type(request).__name__
        is_image = type(request).DESCRIPTOR.file.package == images_pb2.DESCRIPTOR.package
        service = "/fovea.v1.ImageService/" if is_image else SERVICE
        method = service + ("ModelInfer" if name == "ModelInferRequest" else name.removesuffix("Request"))
    try:
        channel.unary_unary(method)(raw, timeout=60, metadata=metadata)
    except grpc.RpcError as error:
        return told(error)
    raise AssertionError("the call was answered")


def pixels(samples: int = 1, **parameters: Any) -> inference_pb2.ModelInferRequest:
    """A request to LeNet-5."""
    request = inference_pb2.ModelInferRequest(model_name="lenet5")
    request.inputs.add(name="image", datatype="UINT8", shape=(samples, 32, 32, 1))
    request.raw_input_contents.append(bytes(samples * 32 * 32))
    for name, value in parameters.items():
        kind = {int: "int64_param", str: "string_param", bool: "bool_param"}[type(value)]
        setattr(request.parameters[name], kind, value)
    return request


def bad_shape() -> inference_pb2.ModelInferRequest:
    """One whose input has another shape than the model's."""
    request = pixels()
    request.inputs[0].shape[1] = 31
    return request


def slow(products: int, timeout_us: int = 0, request_id: str = "") -> inference_pb2.ModelInferRequest:
    """A request that takes as long as so many products of matrices."""
    request = inference_pb2.ModelInferRequest(model_name="slow", id=request_id)
    request.inputs.add(name="n", datatype="INT64", shape=()).contents.int64_contents.append(products)
    request.inputs.add(name="x", datatype="FP32", shape=(1,)).contents.fp32_contents.append(0.0)
    if timeout_us:
        request.parameters["timeout"].int64_param = timeout_us
    return request


def zeros(count: int, classes: int = 0) -> inference_pb2.ModelInferRequest:
    """A request for so many zeros, or for the best of them."""
    request = inference_pb2.ModelInferRequest(model_name="zeros")
    request.inputs.add(name="n", datatype="INT64", shape=(1,)).contents.int64_contents.append(count)
    if classes:
        request.outputs.add(name="y").parameters["classification"].int64_param = classes
    return request


def image(file: bytes) -> inference_pb2.ModelInferRequest:
    """A request with an encoded image."""
    request = inference_pb2.ModelInferRequest(model_name="lenet5")
    request.inputs.add(name="image", datatype="BYTES", shape=(1,)).contents.bytes_contents.append(file)
    return request


def until(found: Any, seconds: float = 60.0) -> Any:
    """Call until the answer is true."""
    give_up_s = time.monotonic() + seconds
    while time.monotonic() < give_up_s:
        if answer := found():
            return answer
        time.sleep(0.02)  # between looks at another process
    raise AssertionError("it did not come to pass")
