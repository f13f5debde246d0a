"""What the outputs of a run say to people: best classes, feature maps, filter responses.

Path: image_service → **verdicts** → messages of protos/images.proto.
"""

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protos import images_pb2
from service import errors
from service.images import sheets
from service.models import description
from service.wire import replies

TOP_K = 5
PROBABILITIES, LOGITS, FEATURES = "probabilities", "logits", "features:"
"""Names of outputs, as the export gives them; the last is a prefix of stages' names."""

Outputs = Sequence[tuple[str, NDArray[np.generic]]]
"""Those that were asked for, by name, (1, ...), in that order."""


def of_scores(request: images_pb2.ClassifyRequest, model: description.Description) -> list[str]:
    """Return the output with class scores.

    Raises:
        BadRequest: there is none.
    """
    for name in (PROBABILITIES, LOGITS):
        if name in model.outputs:
            return [name]
    flat = [name for name, spec in model.outputs.items() if len(spec.shape) == 2 and spec.datatype.numpy.kind == "f"]
    if len(flat) != 1:
        raise errors.BadRequest(
            f"model {model.name!r} is no classifier; its outputs are {', '.join(model.outputs)}; "
            "ask for Features or Filter, or send its tensors to inference.GRPCInferenceService",
            "model",
        )
    return flat


async def classify(
    request: images_pb2.ClassifyRequest, model: description.Description, outputs: Outputs
) -> images_pb2.ClassifyResponse:
    """Return the best classes, best first."""
    ((name, values),) = outputs
    scores = values.reshape(-1).astype(np.float32)
    if name == LOGITS:
        scores = _softmax(scores)
    is_probability = name in {PROBABILITIES, LOGITS}
    kind = images_pb2.SCORE_KIND_PROBABILITY if is_probability else images_pb2.SCORE_KIND_RAW
    labels = model.labels.get(name) or next(iter(model.labels.values()), [])
    response = images_pb2.ClassifyResponse(score_kind=kind)
    for index in np.argsort(-scores, kind="stable")[: request.top_k or TOP_K].tolist():
        label = labels[index] if index < len(labels) else str(index)
        response.classes.add(label=label, index=index, score=float(scores[index]))
    return response


def of_layers(request: images_pb2.FeaturesRequest, model: description.Description) -> list[str]:
    """Return the outputs of the layers that are asked for, in that order.

    Raises:
        BadRequest: a layer that the model does not give.
    """
    return _maps_named(model, request.layers, "layers")


async def features(
    request: images_pb2.FeaturesRequest, model: description.Description, outputs: Outputs
) -> images_pb2.FeaturesResponse:
    """Return the feature maps, in the order asked for."""
    return images_pb2.FeaturesResponse(maps=await _maps(outputs, request.form))


def of_responses(request: images_pb2.FilterRequest, model: description.Description) -> list[str]:
    """Return the outputs of the filters' responses that are asked for, in that order.

    Raises:
        BadRequest: a response that the bank does not give.
    """
    return _maps_named(model, request.responses, "responses")


async def filtered(
    request: images_pb2.FilterRequest, model: description.Description, outputs: Outputs
) -> images_pb2.FilterResponse:
    """Return the responses, in the order asked for."""
    return images_pb2.FilterResponse(maps=await _maps(outputs, request.form))


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """In float64, shifted by the largest, so that nothing overflows."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    shares: NDArray[np.float32] = (powers / powers.sum()).astype(np.float32)
    return shares


def _maps_named(model: description.Description, asked: Sequence[str], field: str) -> list[str]:
    """The outputs that are maps: all, or those asked for in a field by their names, the export's prefix aside."""
    maps = [name for name, spec in model.outputs.items() if len(spec.shape) == 4 and spec.datatype.numpy.kind == "f"]
    if not maps:
        raise errors.BadRequest(
            f"model {model.name!r} gives no maps, only {', '.join(model.outputs)}; "
            "export it with them: fovea export NAME --outputs features:STAGE",
            "model",
        )
    if not asked:
        return maps
    by_name = {name.removeprefix(FEATURES): name for name in maps}
    replies.require_once([name.removeprefix(FEATURES) for name in asked], field)
    outputs = [by_name.get(name.removeprefix(FEATURES), "") for name in asked]
    for name, output in zip(asked, outputs, strict=True):
        if not output:
            raise errors.BadRequest(
                f"model {model.name!r} gives no maps {name!r}{errors.nearest(name, by_name)}; "
                f"it gives {', '.join(by_name)}",
                errors.path(field, name),
            )
    return outputs


async def _maps(outputs: Outputs, form: "images_pb2.Form") -> list[images_pb2.Map]:
    """The maps of one image. Pictures are drawn on another thread: it takes milliseconds."""
    named = [(name.removeprefix(FEATURES), values[0]) for name, values in outputs]
    if form == images_pb2.FORM_PNG:
        return await asyncio.to_thread(lambda: [_map(name, maps, is_drawn=True) for name, maps in named])
    return [_map(name, maps, is_drawn=False) for name, maps in named]


def _map(name: str, maps_chw: NDArray[np.floating], *, is_drawn: bool) -> images_pb2.Map:
    channels, height, width = maps_chw.shape
    low, high = sheets.span(maps_chw)
    made = images_pb2.Map(name=name, channels=channels, height=height, width=width, low=low, high=high)
    if is_drawn:
        made.png = sheets.png(maps_chw, low, high)
    else:
        made.tensor = np.ascontiguousarray(maps_chw, "<f4").tobytes()
    return made
