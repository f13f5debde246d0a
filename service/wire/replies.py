"""Outputs to a response: raw tensors, or the best classes with their labels.

Path: engine → **replies** → client.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from protos import inference_pb2
from service import errors
from service.models import description
from service.wire import tensors


class Requested(NamedTuple):
    """One requested output; `classes` > 0 asks for that many best classes instead of the tensor."""

    name: str
    classes: int


def requested(request: inference_pb2.ModelInferRequest, model: description.Description) -> list[Requested]:
    """Return the outputs that a request asks for; all, if it names none.

    Raises:
        BadRequest: an unknown output, a parameter that is not known, or classes < 1.
    """
    if not request.outputs:
        return [Requested(name, 0) for name in model.outputs]
    return [_requested(output, model) for output in request.outputs]


def _requested(
    output: inference_pb2.ModelInferRequest.InferRequestedOutputTensor, model: description.Description
) -> Requested:
    if output.name not in model.outputs:
        raise errors.BadRequest(
            f"model {model.name!r} has no output {output.name!r}{errors.nearest(output.name, model.outputs)}; "
            f"its outputs: {', '.join(model.outputs)}"
        )
    if not output.parameters:
        return Requested(output.name, 0)
    classes = 0
    for name, parameter in output.parameters.items():
        if name == "classification":
            classes = parameter.int64_param
            if parameter.WhichOneof("parameter_choice") != "int64_param" or classes < 1:
                raise errors.BadRequest("parameter 'classification' must be an int64 of at least 1")
        elif name not in {"binary_data"}:  # of the HTTP protocol; some clients send it along
            raise errors.BadRequest(
                f"output {output.name!r} has parameter {name!r}, which is not supported; known: classification"
            )
    return Requested(output.name, classes)


def response(
    request_id: str,
    model: description.Description,
    wanted: list[Requested],
    outputs: Mapping[str, NDArray[np.generic]],
) -> inference_pb2.ModelInferResponse:
    """Return the response: one raw_output_contents entry per output, in the order asked for."""
    reply = inference_pb2.ModelInferResponse(model_name=model.name, model_version=model.version, id=request_id)
    for output in wanted:
        values = outputs[output.name]
        if output.classes:
            elements, shape = _classify(values, output, model)
            reply.outputs.add(name=output.name, datatype="BYTES", shape=shape)
            reply.raw_output_contents.append(tensors.join_bytes(elements))
        else:
            datatype = model.outputs[output.name].datatype.wire
            reply.outputs.add(name=output.name, datatype=datatype, shape=values.shape)
            reply.raw_output_contents.append(values.tobytes())
    return reply


def _classify(
    values: NDArray[np.generic], output: Requested, model: description.Description
) -> tuple[list[bytes], list[int]]:
    """The best classes as "value:index:label", best first; equal values in order of index."""
    rows = values.reshape(len(values), -1) if model.is_batched else values.reshape(1, -1)
    count = min(output.classes, rows.shape[1])
    labels = model.labels.get(output.name, [])
    best = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :count]
    elements = [
        f"{float(row[index]):.6f}:{index}{f':{labels[index]}' if index < len(labels) else ''}".encode()
        for row, indices in zip(rows, best, strict=True)
        for index in indices.tolist()
    ]
    return elements, [len(rows), count] if model.is_batched else [count]
