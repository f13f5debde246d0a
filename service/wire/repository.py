"""RepositoryIndex, RepositoryModelLoad and RepositoryModelUnload: Triton's model control.

Path: client → **repository** → control.

The index is for everybody. Loading and unloading is for those who may control the server: see security.guard.
"""

from typing import Any

import grpc

from protos import inference_pb2
from service import control, errors
from service.models import handed
from service.wire.security import guard

Context = grpc.aio.ServicerContext[Any, Any]
Parameters = Any
"""The map of a request: name → ModelRepositoryParameter. Protobuf gives it no public type."""

_CONFIG, _FILE = "config", "file:"
_UNLOAD_DEPENDENTS = "unload_dependents"


class Repository:
    """The calls about the model repository. What they raise is told by failures.told."""

    def __init__(self, models: control.Control, watch: guard.Guard) -> None:
        self._control = models
        self._guard = watch

    async def index(
        self, request: inference_pb2.RepositoryIndexRequest, context: Context
    ) -> inference_pb2.RepositoryIndexResponse:
        """Every model of the repository, its versions, their states and why."""
        _check_repository(request.repository_name)
        entries = await self._control.index(only_ready=request.ready)
        return inference_pb2.RepositoryIndexResponse(
            models=[
                inference_pb2.RepositoryIndexResponse.ModelIndex(
                    name=entry.name, version=entry.version, state=entry.state.value, reason=entry.reason
                )
                for entry in entries
            ]
        )

    async def load(
        self, request: inference_pb2.RepositoryModelLoadRequest, context: Context
    ) -> inference_pb2.RepositoryModelLoadResponse:
        """Load a model, or load it again; answered when it serves."""
        self._check_control(request, context)
        await self._control.load(request.model_name, _handed(request.parameters))
        return inference_pb2.RepositoryModelLoadResponse()

    async def unload(
        self, request: inference_pb2.RepositoryModelUnloadRequest, context: Context
    ) -> inference_pb2.RepositoryModelUnloadResponse:
        """Serve a model no longer; answered when what was accepted for it is answered."""
        self._check_control(request, context)
        _check_unload(request.parameters)
        await self._control.unload(request.model_name)
        return inference_pb2.RepositoryModelUnloadResponse()

    def _check_control(self, request: Any, context: Context) -> None:
        """Check that this caller may load and unload here."""
        self._guard.require_control(context.peer(), request.model_name)
        if self._control.mode is control.Mode.NONE:
            raise errors.ControlOff
        _check_repository(request.repository_name)


def _check_repository(name: str) -> None:
    if name:
        raise errors.NotSupported(
            f"repository_name is {name!r}; this server has one repository, without a name: leave it empty"
        )


def _handed(parameters: Parameters) -> handed.Handed:
    """What a load hands over.

    Raises:
        BadRequest: a parameter that is not known, or of another type.
    """
    config: str | None = None
    files: dict[str, bytes] = {}
    for name, value in parameters.items():
        if name == _CONFIG:
            config = _value(name, value, "string_param")
        elif name.startswith(_FILE):
            files[name.removeprefix(_FILE)] = _value(name, value, "bytes_param")
        else:
            raise _unknown(name, f"{_CONFIG!r} and '{_FILE}<version>/<file>'")
    return handed.Handed(config, files)


def _check_unload(parameters: Parameters) -> None:
    for name, value in parameters.items():
        if name != _UNLOAD_DEPENDENTS:
            raise _unknown(name, repr(_UNLOAD_DEPENDENTS))
        _value(name, value, "bool_param")


def _value(name: str, parameter: Any, wanted: str) -> Any:
    got = parameter.WhichOneof("parameter_choice")
    if got != wanted:
        sentence = f"parameter {name!r} is a {got or 'nothing'}; expected a {wanted}"
        raise errors.BadRequest(sentence, errors.path("parameters", name))
    return getattr(parameter, wanted)


def _unknown(name: str, known: str) -> errors.BadRequest:
    return errors.BadRequest(f"parameter {name!r} is not known; expected {known}", errors.path("parameters", name))
