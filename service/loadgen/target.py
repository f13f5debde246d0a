"""The server that a load run speaks to: its channel, what a model takes, and its counts before and after.

Path: plan → **target** → payloads, senders.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio

from protos import inference_pb2
from service import errors
from service.client import access

METHOD = "/inference.GRPCInferenceService/"

_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),  # a refusal is counted, not sent again behind our back
    ("grpc.use_local_subchannel_pool", 1),
    # All addresses of a name get their share, not the first alone: a headless Service is one name for all replicas.
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
]

_ASK_WITHIN_S = 10.0

_SERVE_HINT = "is `fovea serve` running and ready there?"
_TLS_HINT = "if it is up, it may want TLS, which is not what it was spoken to with"


def _speaks_tls(details: str) -> bool:
    """Whether a connection came about and was then given up: so does a TLS server that hears plain text."""
    return any(words in details for words in ("Socket closed", "Connection reset", "failed to receive", "SETTINGS"))


def _is_for_good(error: grpc.aio.AioRpcError) -> bool:
    """Whether gRPC found the message too large. A deadline that is too short is for good, too, but measured."""
    return "larger than max" in (error.details() or "")


# Says that the server is busy, or the deadline short: that is measured, and no mistake.
_BUSY = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED})


@dataclasses.dataclass(frozen=True, slots=True)
class Tensor:
    """An input of a model; `shape` without the batch, -1 where a request decides."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Described:
    """What a model takes. `images_max` 0: one sample a request, without a batch dimension."""

    model: str
    inputs: tuple[Tensor, ...]
    image_input: str
    images_max: int


@dataclasses.dataclass(frozen=True, slots=True)
class Counts:
    """A model's ModelStatistics: nanoseconds and counts by stage, and runs by batch size."""

    stages: Mapping[str, tuple[int, int]]
    batches: Mapping[int, int]


def of_answers(model: str, metadata: Any, config: Any) -> Described:
    """Return what a model takes, from the answers to ModelMetadata and ModelConfig."""
    first = 1 if config.max_batch_size else 0
    inputs = tuple(Tensor(one.name, one.datatype, tuple(one.shape)[first:]) for one in metadata.inputs)
    return Described(model, inputs, metadata.properties.get("image_input", ""), config.max_batch_size)


def open_channel(address: str) -> Any:
    """Open a channel with the TLS and the token of the environment, which all processes of the generator share.

    Raises:
        StartupError: a file that it names cannot be used.
    """
    try:
        chosen = access.of_environment()
        credentials = chosen.credentials()
    except ValueError as error:
        raise errors.StartupError(f"{error} (FOVEA_CLIENT_* in the environment)") from error
    opened = (
        grpc.aio.insecure_channel(address, _OPTIONS)
        if credentials is None
        else grpc.aio.secure_channel(address, credentials, _OPTIONS)
    )
    return access.Bearing(opened, chosen.token) if chosen.token else opened


class Target:
    """One server and one of its models.

    Mutable state: gRPC's channel; `close` ends it.
    """

    def __init__(self, address: str, model: str) -> None:
        self._address = address
        self._model = model
        self.channel = open_channel(address)

    async def close(self) -> None:
        """Close the channel; open calls are cut off."""
        await self.channel.close()

    async def describe(self) -> Described:
        """Ask what the model takes.

        Raises:
            StartupError: no server there, no such model, or it is not ready.
        """
        metadata = await self._ask("ModelMetadata")
        return of_answers(self._model, metadata, (await self._ask("ModelConfig")).config)

    async def name(self) -> str:
        """Ask for the server's name and version; empty where it does not say."""
        try:
            metadata = await self._ask("ServerMetadata")
        except errors.StartupError:  # only a line of the report
            return ""
        return f"{metadata.name} {metadata.version}".strip()

    async def probe(self, request: bytes, give_up_s: float) -> bytes:
        """Send one request and return the answer's bytes, so that a mistake shows before the load does.

        A server that is too busy to answer gives no bytes.

        Raises:
            StartupError: the request is refused, or its answer has not one content for each output.
        """
        call: Any = self.channel.unary_unary(METHOD + "ModelInfer")
        try:
            answer: bytes = await call(request, timeout=give_up_s)
        except grpc.aio.AioRpcError as error:
            if error.code() in _BUSY and not _is_for_good(error):
                return b""
            raise errors.StartupError(f"the first request failed: {self._explain(error)}") from error
        outputs = inference_pb2.ModelInferResponse.FromString(answer)
        if not outputs.outputs or len(outputs.outputs) != len(outputs.raw_output_contents):
            raise errors.StartupError(
                f"the first answer has {len(outputs.outputs)} outputs and {len(outputs.raw_output_contents)} contents; "
                "expected one content for each output"
            )
        return answer

    async def counts(self) -> Counts:
        """Ask for the model's counts; empty where the server keeps none."""
        try:
            statistics = (await self._ask("ModelStatistics")).model_stats[0]
        except (errors.StartupError, IndexError):  # the load itself was measured; this is beside it
            return Counts({}, {})
        stages = {
            name: (duration.count, duration.ns)
            for name in ("success", "queue", "compute_input", "compute_infer", "compute_output")
            for duration in (getattr(statistics.inference_stats, name),)
        }
        return Counts(stages, {one.batch_size: one.compute_infer.count for one in statistics.batch_stats})

    async def _ask(self, method: str) -> Any:
        call = self.channel.unary_unary(
            METHOD + method,
            request_serializer=getattr(inference_pb2, f"{method}Request").SerializeToString,
            response_deserializer=getattr(inference_pb2, f"{method}Response").FromString,
        )
        fields = {} if method == "ServerMetadata" else {"name": self._model}
        try:
            return await call(getattr(inference_pb2, f"{method}Request")(**fields), timeout=_ASK_WITHIN_S)
        except grpc.aio.AioRpcError as error:
            raise errors.StartupError(self._explain(error)) from error

    def _explain(self, error: grpc.aio.AioRpcError) -> str:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            hint = _TLS_HINT if _speaks_tls(error.details() or "") else _SERVE_HINT
            return f"no answer from {self._address}: {error.details()}; {hint}"
        return f"{self._address} says {error.code().name}: {error.details()}"
