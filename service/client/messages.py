"""Requests for images and what comes back: classes with scores, and what a model's metadata says of its images.

Path: caller → **messages** → calls → **messages** → caller.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos import inference_pb2
from service import datatypes
from service.client import arrays, context

Request = inference_pb2.ModelInferRequest


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


def signature(described: inference_pb2.ModelMetadataResponse, model: str) -> Signature:
    """Return where images go in and class scores come out.

    Raises:
        ValueError: the model takes no images.
    """
    image_input = described.properties.get("image_input") or _first_uint8(described.inputs)
    if not image_input:
        raise ValueError(f"model {model!r} takes no images; send it arrays with infer_tensors")
    names = [output.name for output in described.outputs]
    return Signature(model, image_input, "probabilities" if "probabilities" in names else names[0])


def _first_uint8(inputs: Iterable[Any]) -> str:
    return next((tensor.name for tensor in inputs if tensor.datatype == "UINT8" and len(tensor.shape) == 4), "")


def image_request(signature: Signature, files: list[bytes], *, request_id: str = "", classes: int = 0) -> Request:
    """Return a request with encoded images; `classes` > 0 asks for that many best classes."""
    request = _request(signature, request_id, classes)
    request.inputs.add(name=signature.image_input, datatype="BYTES", shape=[len(files)])
    request.raw_input_contents.append(datatypes.join_bytes(files))
    return request


def pixel_request(
    signature: Signature, images_nhwc: NDArray[np.uint8], *, request_id: str = "", classes: int = 0
) -> Request:
    """Return a request with pixels, (N, H, W, C) uint8; `classes` > 0 asks for that many best classes."""
    request = _request(signature, request_id, classes)
    arrays.add_input(request, signature.image_input, images_nhwc)
    return request


def _request(signature: Signature, request_id: str, classes: int) -> Request:
    request = Request(model_name=signature.model, id=request_id)
    output = request.outputs.add(name=signature.output)
    if classes:
        output.parameters["classification"].int64_param = classes
    return request


def predictions(response: inference_pb2.ModelInferResponse) -> list[list[Prediction]]:
    """Return the best classes of each image, best first, from an answer to `classes` > 0."""
    best = [_prediction(element) for element in arrays.split_bytes(response.raw_output_contents[0])]
    per_image = response.outputs[0].shape[-1]
    return [best[first : first + per_image] for first in range(0, len(best), per_image)]


def _prediction(element: bytes) -> Prediction:
    score, index, *label = element.decode().split(":", 2)
    return Prediction(float(score), int(index), label[0] if label else index)


def images_nhwc(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return pixels as a batch: (H, W, C) becomes (1, H, W, C), (N, H, W, C) stays.

    Raises:
        TypeError: not uint8.
        ValueError: another number of dimensions, or no image.
    """
    if image.dtype != np.uint8:
        raise TypeError(f"pixels have dtype {image.dtype}; expected uint8; convert them, or send them by infer_tensors")
    if image.ndim not in {3, 4} or not image.size:
        raise ValueError(
            f"pixels have shape {image.shape}; expected (H, W, C) or (N, H, W, C); "
            "a grey image has C = 1: image[:, :, None]"
        )
    return image if image.ndim == 4 else image[None]


class Outgoing:
    """A request as bytes, serialised once however often it is sent.

    What differs each time is appended: of a field, and of an entry of a map, that comes twice, the last one counts.
    It belongs to the trace of whoever makes it, unless the request says another itself.
    """

    __slots__ = ("_message", "_timeout_us", "_trace", "_urgency", "own_id")

    def __init__(self, request: Request, priority: int = 0) -> None:
        self.own_id = request.id
        self._message = request.SerializeToString()
        self._timeout_us = request.parameters["timeout"].int64_param if "timeout" in request.parameters else 0
        self._urgency = priority
        self._trace = () if context.PARENT in request.parameters else context.current()

    def unary(self) -> bytes:
        """Return the message of a unary call, whose deadline and trace are the call's."""
        if not self._urgency:
            return self._message
        added = Request()
        added.parameters["priority"].uint64_param = self._urgency
        return self._message + added.SerializeToString()

    def streamed(self, wire_id: str, remaining_s: float) -> bytes:
        """Return the message in a stream: under the stream's own id, with the rest of the deadline and the trace."""
        added = Request(id=wire_id)
        remaining_us = max(1, int(remaining_s * 1e6))
        added.parameters["timeout"].int64_param = min(remaining_us, self._timeout_us or remaining_us)
        if self._urgency:
            added.parameters["priority"].uint64_param = self._urgency
        for name, value in self._trace:
            added.parameters[name].string_param = value
        return self._message + added.SerializeToString()
