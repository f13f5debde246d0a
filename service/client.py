"""A small client: images in, labels and probabilities out. Needs only numpy, grpc and the messages.

Path: files → **client** → server. Any Triton or KServe v2 client works as well; see README.md.
"""

import dataclasses
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from protos import inference_pb2

_METHOD = "/inference.GRPCInferenceService/"
_DTYPES = {"FP32": np.float32, "FP64": np.float64, "INT64": np.int64, "INT32": np.int32, "UINT8": np.uint8}


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """One class of an answer: its score (a probability where the model gives one), index and label."""

    score: float
    index: int
    label: str


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """What a client has to know of a model: where images go in and where class scores come out."""

    model: str
    image_input: str
    output: str


def image_request(
    signature: Signature, files: list[bytes], *, request_id: str = "", classes: int = 0
) -> inference_pb2.ModelInferRequest:
    """Return a request with encoded images; `classes` > 0 asks for that many best classes."""
    request = inference_pb2.ModelInferRequest(model_name=signature.model, id=request_id)
    request.inputs.add(name=signature.image_input, datatype="BYTES", shape=[len(files)])
    request.raw_input_contents.append(
        b"".join(part for file in files for part in (len(file).to_bytes(4, "little"), file))
    )
    output = request.outputs.add(name=signature.output)
    if classes:
        output.parameters["classification"].int64_param = classes
    return request


def predictions(response: inference_pb2.ModelInferResponse) -> list[list[Prediction]]:
    """Return the best classes of each image, best first, from an answer to `classes` > 0."""
    per_image = response.outputs[0].shape[-1]
    raw, position, best = response.raw_output_contents[0], 0, []
    while position < len(raw):
        stop = position + 4 + int.from_bytes(raw[position : position + 4], "little")
        score, index, *label = raw[position + 4 : stop].decode().split(":", 2)
        best.append(Prediction(float(score), int(index), label[0] if label else index))
        position = stop
    return [best[first : first + per_image] for first in range(0, len(best), per_image)]


def tensors(response: inference_pb2.ModelInferResponse) -> Mapping[str, NDArray[Any]]:
    """Return the outputs of an answer as arrays, by name."""
    return {
        output.name: np.frombuffer(raw, _DTYPES[output.datatype]).reshape(tuple(output.shape))
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


class Client:
    """A connection to one server.

    Mutable state: the channel; `async with` opens and closes it.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        """Open the channel; the first call connects."""
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.aio.insecure_channel(self._address, options)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()

    async def infer(
        self, request: inference_pb2.ModelInferRequest, timeout_s: float | None = None
    ) -> inference_pb2.ModelInferResponse:
        """Send one request.

        Raises:
            grpc.aio.AioRpcError: the server's status and sentence.
        """
        response: inference_pb2.ModelInferResponse = await self._unary("ModelInfer", timeout_s)(request)
        return response

    def stream(
        self, requests: AsyncIterator[inference_pb2.ModelInferRequest]
    ) -> AsyncIterator[inference_pb2.ModelStreamInferResponse]:
        """Send many requests over one stream; answers come as they finish: match them by id."""
        call = self._open().stream_stream(
            _METHOD + "ModelStreamInfer",
            request_serializer=inference_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=inference_pb2.ModelStreamInferResponse.FromString,
        )
        answers: AsyncIterator[inference_pb2.ModelStreamInferResponse] = aiter(call(requests))
        return answers

    async def signature(self, model: str) -> Signature:
        """Ask the server where images go in and class scores come out.

        Raises:
            grpc.aio.AioRpcError: no such model, or no server.
            ValueError: the model takes no images.
        """
        described = await self._unary("ModelMetadata")(inference_pb2.ModelMetadataRequest(name=model))
        image_input = described.properties.get("image_input") or _first_uint8(described.inputs)
        if not image_input:
            raise ValueError(f"model {model!r} takes no images; it was not exported with an image input")
        names = [output.name for output in described.outputs]
        return Signature(model, image_input, "probabilities" if "probabilities" in names else names[0])

    async def statistics(self, model: str) -> inference_pb2.ModelStatistics:
        """Return the server's counts for a model."""
        response = await self._unary("ModelStatistics")(inference_pb2.ModelStatisticsRequest(name=model))
        statistics: inference_pb2.ModelStatistics = response.model_stats[0]
        return statistics

    def _unary(self, method: str, timeout_s: float | None = None) -> Any:
        call = self._open().unary_unary(
            _METHOD + method,
            request_serializer=getattr(inference_pb2, f"{method}Request").SerializeToString,
            response_deserializer=getattr(inference_pb2, f"{method}Response").FromString,
        )
        return lambda request: call(request, timeout=timeout_s)

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            raise RuntimeError("use the client inside `async with Client(address)`")
        return self._channel


def _first_uint8(inputs: Iterable[Any]) -> str:
    return next((tensor.name for tensor in inputs if tensor.datatype == "UINT8" and len(tensor.shape) == 4), "")
