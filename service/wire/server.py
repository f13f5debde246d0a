"""The gRPC port: the inference service, grpc.health.v1 and reflection on one grpc.aio server.

Path: network → **server** → inference, image_service, describe, repository, controls.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from protos import inference_pb2, pool
from service import errors
from service.wire import (
    controls,
    describe,
    failures,
    image_service,
    inference,
    messages,
    passage,
    regions,
    repository,
    transport,
)
from service.wire.security import certificates, guard

SERVICE = "inference.GRPCInferenceService"
Behaviour = Callable[[Any, Any], Awaitable[Any]]
"""Answers a request in its context with a message."""

LIVENESS = "liveness"
"""The health service name that says only that the process lives."""


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """Who is let in, and how."""

    watch: guard.Guard
    tls: certificates.Certificates | None = None
    """None for plain text."""
    allows_shared_memory: bool = False
    """Whether clients may have the server map memory of this machine."""


class Ports(NamedTuple):
    """Where the server listens: for all calls, and in plain text for probes, if it does."""

    grpc: int
    health: int | None


class GrpcPort:
    """The gRPC server. `start` listens, `set_ready` tells health, `close` drains.

    Mutable state: the plain server for probes, set by `start`.
    """

    def __init__(
        self,
        way: passage.Passage,
        described: describe.Describe,
        models: repository.Repository,
        limits: transport.Transport,
        access: Access,
    ) -> None:
        self._access = access
        self._limits = limits
        self._server = grpc.aio.server(options=limits.options(), compression=limits.answers)
        self._plain: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()
        shared = regions.Regions(are_allowed=access.allows_shared_memory)
        calls = inference.Inference(way, shared, stream_messages_max=limits.stream_messages_max)
        parser = messages.Parser(limits.message_bytes_max)
        pictures = image_service.ImageService(
            way, message_bytes_max=limits.message_bytes_max, stream_messages_max=limits.stream_messages_max
        )
        others = controls.Controls(shared, access.watch, way.tracer)
        handlers = _handlers(calls, _behaviours(described, models, access.watch), others, parser)
        for handler in (handlers, pictures.handlers(), _reflection()):
            self._server.add_generic_rpc_handlers((access.watch.guarded(handler),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def start(self, host: str, port: int, health_port: int | None = None) -> Ports:
        """Listen, and return the ports.

        Raises:
            PortTaken: somebody else listens there.
        """
        credentials = None if self._access.tls is None else self._access.tls.credentials()
        bound = _listen(self._server, host, port, "--grpc-port", credentials)
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self.set_ready((), is_ready=False)
        await self._server.start()
        self._access.watch.start()
        return Ports(bound, None if health_port is None else await self._start_plain(host, health_port))

    async def _start_plain(self, host: str, port: int) -> int:
        self._plain = grpc.aio.server(options=self._limits.options())
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._plain)
        bound = _listen(self._plain, host, port, "--health-port")
        await self._plain.start()
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
        servers = [server for server in (self._server, self._plain) if server is not None]
        await asyncio.gather(self._access.watch.aclose(), *(server.stop(grace_s) for server in servers))


def _listen(
    server: grpc.aio.Server, host: str, port: int, flag: str, credentials: grpc.ServerCredentials | None = None
) -> int:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise errors.PortTaken(address, flag) from error


def _behaviours(
    described: describe.Describe, models: repository.Repository, watch: guard.Guard
) -> dict[str, Behaviour]:
    """The calls that are no inference; those about a model are for callers who may use it."""

    def of_model(answer: Behaviour) -> Behaviour:
        async def call(request: Any, context: Any) -> Any:
            if request.name:
                watch.require_model(request.name)
            return await answer(request, context)

        return call

    async def statistics(request: Any, context: Any) -> Any:
        response = await described.model_statistics(request, context)
        theirs = [one for one in response.model_stats if watch.may_use(one.name)]
        return inference_pb2.ModelStatisticsResponse(model_stats=theirs)

    return {
        "ServerLive": described.server_live,
        "ServerReady": described.server_ready,
        "ServerMetadata": described.server_metadata,
        "ModelReady": of_model(described.model_ready),
        "ModelMetadata": of_model(described.model_metadata),
        "ModelConfig": of_model(described.model_config),
        "ModelStatistics": of_model(statistics),
        "RepositoryIndex": models.index,
        "RepositoryModelLoad": models.load,
        "RepositoryModelUnload": models.unload,
    }


def _handlers(
    calls: inference.Inference, behaviours: dict[str, Behaviour], others: controls.Controls, parser: messages.Parser
) -> Any:
    unary = {name: failures.told(behaviour) for name, behaviour in behaviours.items()} | others.calls()
    handlers: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(call, getattr(inference_pb2, f"{name}Request").FromString)
        for name, call in unary.items()
    }
    handlers["ModelInfer"] = grpc.unary_unary_rpc_method_handler(calls.infer, request_deserializer=parser)
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(calls.stream, request_deserializer=parser)
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


def _reflection() -> Any:
    """The handler of reflection; grpc_reflection would register its own, past the guard."""
    servicer = reflection.aio.ReflectionServicer(_reflected_names(), pool=_reflection_pool())
    call = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(reflection.SERVICE_NAME, {"ServerReflectionInfo": call})


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
