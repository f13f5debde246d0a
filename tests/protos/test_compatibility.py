"""Our messages are the stock client's on the wire, and both live in one process."""

import subprocess
import sys

import pytest
from google.protobuf.descriptor import Descriptor, FileDescriptor
from tritonclient.grpc import model_config_pb2 as stock_config
from tritonclient.grpc import service_pb2 as stock_service

from protos import inference_pb2, model_config_pb2

# Ours alone: from the Open Inference Protocol, unknown to Triton's clients, which skip it.
OURS_ALONE = {("inference.ModelMetadataResponse", "properties")}


def fields(message: Descriptor) -> dict[str, tuple[object, ...]]:
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.message_type and field.message_type.full_name,
            field.enum_type and field.enum_type.full_name,
            field.containing_oneof and field.containing_oneof.name,
        )
        for field in message.fields
        if (message.full_name, field.name) not in OURS_ALONE
    }


def compare(ours: Descriptor, stock: Descriptor) -> None:
    assert ours.full_name == stock.full_name
    assert fields(ours) == fields(stock)
    for name, enum in stock.enum_types_by_name.items():
        assert enum.values_by_name.keys() == ours.enum_types_by_name[name].values_by_name.keys()
    for name, nested in stock.nested_types_by_name.items():
        compare(ours.nested_types_by_name[name], nested)


def test_every_message_of_model_config_is_triton_s() -> None:
    stock: FileDescriptor = stock_config.DESCRIPTOR
    ours: FileDescriptor = model_config_pb2.DESCRIPTOR
    assert stock.message_types_by_name.keys() == ours.message_types_by_name.keys()
    for name, message in stock.message_types_by_name.items():
        compare(ours.message_types_by_name[name], message)


def test_every_message_and_call_that_we_declare_is_triton_s() -> None:
    stock: FileDescriptor = stock_service.DESCRIPTOR
    for name, message in inference_pb2.DESCRIPTOR.message_types_by_name.items():
        compare(message, stock.message_types_by_name[name])
    theirs = stock.services_by_name["GRPCInferenceService"].methods_by_name
    for name, method in inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name.items():
        assert method.input_type.full_name == theirs[name].input_type.full_name
        assert method.output_type.full_name == theirs[name].output_type.full_name
        assert (method.client_streaming, method.server_streaming) == (
            theirs[name].client_streaming,
            theirs[name].server_streaming,
        )


@pytest.mark.parametrize(
    "order", ["import service.wire.server, tritonclient.grpc", "import tritonclient.grpc, service.wire.server"]
)
def test_tritonclient_imports_beside_us_in_either_order(order: str) -> None:
    result = subprocess.run([sys.executable, "-W", "error", "-c", order], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
