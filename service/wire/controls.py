"""The calls that change how the server works, but not its models: shared memory, tracing, logging.

Path: client → **controls** → regions, trace_settings, logging.

CUDA's shared memory is not there yet: unregistering is nothing to do (perf_analyzer always begins with
it), registering is UNIMPLEMENTED.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from protos import inference_pb2
from service import errors
from service.tracing import trace
from service.wire import failures, regions, stream, trace_settings
from service.wire.security import guard

Context = grpc.aio.ServicerContext[Any, Any]

_LEVELS = (("log_info", logging.INFO), ("log_warning", logging.WARNING), ("log_error", logging.ERROR))


class Controls:
    """The calls, for those who may control the server. Holds nothing of its own."""

    def __init__(self, shared: regions.Regions, watch: guard.Guard, tracer: trace.Tracer | None = None) -> None:
        self._regions = shared
        self._guard = watch
        self._trace_settings = trace_settings.TraceSettings(tracer)

    def calls(self) -> dict[str, Callable[[Any, Context], Awaitable[bytes]]]:
        """Return the calls by their names; their answers are serialized."""
        answers: dict[str, Callable[[Any], Any]] = {
            "SystemSharedMemoryStatus": self.system_status,
            "SystemSharedMemoryRegister": self.system_register,
            "SystemSharedMemoryUnregister": self.system_unregister,
            "CudaSharedMemoryStatus": lambda _: inference_pb2.CudaSharedMemoryStatusResponse(),
            "CudaSharedMemoryRegister": self.cuda_register,
            "CudaSharedMemoryUnregister": lambda _: inference_pb2.CudaSharedMemoryUnregisterResponse(),
            "TraceSetting": self._trace_settings.answer,
            "LogSettings": self.log_settings,
        }
        return {name: self._call(answer) for name, answer in answers.items()}

    def _call(self, answer: Callable[[Any], Any]) -> Callable[[Any, Context], Awaitable[bytes]]:
        async def call(request: Any, context: Context) -> Any:
            self._guard.require_control(context.peer())
            if isinstance(request, inference_pb2.SystemSharedMemoryRegisterRequest):
                return self.system_register(request, stream.caller(context))
            return answer(request)

        return failures.told(call)

    def system_status(
        self, request: inference_pb2.SystemSharedMemoryStatusRequest
    ) -> inference_pb2.SystemSharedMemoryStatusResponse:
        """What is registered."""
        status = inference_pb2.SystemSharedMemoryStatusResponse()
        for name, region in self._regions.registered(request.name).items():
            told = status.regions[name]
            told.name, told.key, told.offset, told.byte_size = name, region.key, region.offset, region.byte_size
        return status

    def system_register(
        self, request: inference_pb2.SystemSharedMemoryRegisterRequest, owner: str = ""
    ) -> inference_pb2.SystemSharedMemoryRegisterResponse:
        """Map a client's memory."""
        self._regions.register(request.name, request.key, request.offset, request.byte_size, owner)
        return inference_pb2.SystemSharedMemoryRegisterResponse()

    def system_unregister(
        self, request: inference_pb2.SystemSharedMemoryUnregisterRequest
    ) -> inference_pb2.SystemSharedMemoryUnregisterResponse:
        """Forget one region, or all."""
        self._regions.unregister(request.name)
        return inference_pb2.SystemSharedMemoryUnregisterResponse()

    def cuda_register(
        self, request: inference_pb2.CudaSharedMemoryRegisterRequest
    ) -> inference_pb2.CudaSharedMemoryRegisterResponse:
        """Not there."""
        raise errors.NotSupported(
            "this server takes no CUDA shared memory; register system shared memory, or send tensors in the message"
        )

    def log_settings(self, request: inference_pb2.LogSettingsRequest) -> inference_pb2.LogSettingsResponse:
        """Change from which level on lines are logged, and say which it is."""
        level = _level(request, logging.getLogger().level)
        logging.getLogger().setLevel(level)
        response = inference_pb2.LogSettingsResponse()
        for name, least in _LEVELS:
            response.settings[name].bool_param = level <= least
        response.settings["log_verbose_level"].uint32_param = int(level <= logging.DEBUG)
        response.settings["log_file"].string_param = ""
        response.settings["log_format"].string_param = "default"
        return response


def _level(request: inference_pb2.LogSettingsRequest, now: int) -> int:
    """The level that the settings asked for make.

    Raises:
        BadRequest: a setting that is not known, or a value of another kind.
    """
    wanted = {name: now <= least for name, least in _LEVELS}
    is_verbose = now <= logging.DEBUG
    for name, value in request.settings.items():
        kind = value.WhichOneof("parameter_choice")
        if name in wanted and kind == "bool_param":
            wanted[name] = value.bool_param
        elif name == "log_verbose_level" and kind == "uint32_param":
            is_verbose = value.uint32_param > 0
        elif name in {"log_file", "log_format"}:
            if value.string_param not in {"", "default"}:
                raise errors.NotSupported(
                    f"{name} {value.string_param!r}: this server logs to stderr, see --log-format"
                )
        else:
            known = ", ".join([*wanted, "log_verbose_level"])
            raise errors.BadRequest(
                f"log setting {name!r} ({kind}) is not known here; booleans and a uint32: {known}",
                errors.path("settings", name),
            )
    if is_verbose:
        return logging.DEBUG
    return next((least for name, least in _LEVELS if wanted[name]), logging.CRITICAL)
