"""The gRPC port: the inference service, grpc.health.v1 and reflection on one grpc.aio server.

Path: network → **server** → inference, image_service, describe, repository, controls.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from protos import inference_pb2, pool
from service import errors
from service.wire import controls, describe, failures, image_service, inference, messages, passage, regions, repository

SERVICE = "inference.GRPCInferenceService"
LIVENESS = "liveness"
"""The health service name that says only that the process lives."""

# A message over the limit should get our sentence, not gRPC's, so the transport takes somewhat more.
_TRANSPORT_FACTOR = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """How large one message is, and how many of one stream are unanswered, at most."""

    message_bytes_max: int
    stream_messages_max: int
    allows_shared_memory: bool = False
    """Whether clients may have the server map memory of this machine."""


class GrpcPort:
    """The gRPC server. `start` listens, `set_ready` tells health, `close` drains."""

    def __init__(
        self, way: passage.Passage, described: describe.Describe, models: repository.Repository, limits: Limits
    ) -> None:
        self._server = grpc.aio.server(options=_options(limits.message_bytes_max))
        self._health = health.aio.HealthServicer()
        shared = regions.Regions(are_allowed=limits.allows_shared_memory)
        calls = inference.Inference(way, shared, stream_messages_max=limits.stream_messages_max)
        parser = messages.Parser(limits.message_bytes_max)
        pictures = image_service.ImageService(
            way, message_bytes_max=limits.message_bytes_max, stream_messages_max=limits.stream_messages_max
        )
        handlers = _handlers(calls, described, models, controls.Controls(shared, way.tracer), parser)
        self._server.add_generic_rpc_handlers((handlers, pictures.handlers()))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(_reflected_names(), self._server, pool=_reflection_pool())

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port.

        Raises:
            PortTaken: somebody else listens there.
        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise errors.PortTaken(address, "--grpc-port") from error
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self.set_ready((), is_ready=False)
        await self._server.start()
        return bound

    async def set_ready(self, models: Iterable[str], *, is_ready: bool) -> None:
        """Tell those who check or watch health: overall ("") and each model."""
        state = health_pb2.HealthCheckResponse.SERVING if is_ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE, *models):
            await self._health.set(name, state)

    async def set_model(self, name: str, *, is_ready: bool) -> None:
        """Tell those who check or watch one model."""
        state = health_pb2.HealthCheckResponse.SERVING if is_ready else health_pb2.HealthCheckResponse.NOT_SERVING
        await self._health.set(name, state)

    async def close(self, grace_s: float) -> None:
        """Take no new calls, let open ones end within the grace period, then cut them off."""
        await self._server.stop(grace_s)


def _options(message_bytes_max: int) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # else a second server silently shares the port
        ("grpc.max_receive_message_length", message_bytes_max * _TRANSPORT_FACTOR),
        ("grpc.max_send_message_length", -1),
    ]


def _handlers(
    calls: inference.Inference,
    described: describe.Describe,
    models: repository.Repository,
    others: controls.Controls,
    parser: messages.Parser,
) -> Any:
    behaviours: dict[str, Callable[..., Any]] = {
        "ServerLive": described.server_live,
        "ServerReady": described.server_ready,
        "ModelReady": described.model_ready,
        "ServerMetadata": described.server_metadata,
        "ModelMetadata": described.model_metadata,
        "ModelConfig": described.model_config,
        "ModelStatistics": described.model_statistics,
        "RepositoryIndex": models.index,
        "RepositoryModelLoad": models.load,
        "RepositoryModelUnload": models.unload,
    }
    unary = {name: failures.told(behaviour) for name, behaviour in behaviours.items()} | others.calls()
    handlers: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(call, getattr(inference_pb2, f"{name}Request").FromString)
        for name, call in unary.items()
    }
    handlers["ModelInfer"] = grpc.unary_unary_rpc_method_handler(calls.infer, request_deserializer=parser)
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(calls.stream, request_deserializer=parser)
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


def _reflected_names() -> tuple[str, ...]:
    return (
        SERVICE,
        image_service.SERVICE,
        health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
        reflection.SERVICE_NAME,
    )


def _reflection_pool() -> Any:
    for file in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        pool.POOL.AddSerializedFile(file.serialized_pb)  # adding the same file again changes nothing
    return pool.POOL
