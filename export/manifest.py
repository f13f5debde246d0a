"""What a graph says of itself (its manifest), and what its folder says (config.pbtxt).

Path: pipeline → **manifest** → bundle. The service reads both.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence

import onnx
from google.protobuf import json_format

from export import precision, signature, subject
from protos import manifest_pb2, model_config_pb2

KEY = "fovea.manifest"
PLATFORM = "onnxruntime_onnx"
LABELS = "labels.txt"

TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime-gpu", "onnxruntime", "fovea")


def tools() -> dict[str, str]:
    """Return the versions of what makes the file; of two names for one thing, the installed one."""
    found = {}
    for name in TOOLS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def manifest(
    facts: subject.Facts, chosen: precision.Precision, layout: str, labels: Sequence[str]
) -> manifest_pb2.Manifest:
    """Return the manifest of one precision of a source."""
    made = manifest_pb2.Manifest(
        architecture=facts.origin,
        weights_source=facts.weights_source,
        weights_sha256=facts.weights_sha256,
        labels_sha256=hashlib.sha256(labels_text(labels).encode()).hexdigest() if labels else "",
        precision=chosen.name,
        tolerances=[
            manifest_pb2.Tolerance(provider=provider, relative=relative)
            for provider, relative in chosen.tolerances.items()
        ],
        providers=list(chosen.tolerances),
        tools=tools(),
    )
    described = facts.preprocessing
    if described is not None:
        made.normalization.mean.extend(described.mean)
        made.normalization.std.extend(described.std)
        made.normalization.transform_input = described.transform_input
        if layout == signature.UINT8_NHWC:
            made.image.CopyFrom(described.spec(signature.INPUT))
    return made


def content(model: onnx.ModelProto, described: manifest_pb2.Manifest) -> bytes:
    """Return the bytes of model.onnx, with the manifest in it; equal for equal arguments."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    text = json.dumps(json_format.MessageToDict(described), sort_keys=True, separators=(",", ":"))
    whole.metadata_props.add(key=KEY, value=text)
    return whole.SerializeToString(deterministic=True)


def config(name: str, model: onnx.ModelProto, batch_max: int, labels: Sequence[str]) -> model_config_pb2.ModelConfig:
    """Return the configuration that Triton and Fovea read: names, types and dims of the graph.

    Dims leave out the batch where `batch_max` > 0; free ones are -1.
    """
    made = model_config_pb2.ModelConfig(name=name, platform=PLATFORM, max_batch_size=batch_max)
    weights = {tensor.name for tensor in model.graph.initializer}
    for entries, values in ((made.input, model.graph.input), (made.output, model.graph.output)):
        for value in values:
            if value.name in weights:
                continue
            dims = [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim]
            kind = model_config_pb2.DataType.Value(_TYPES[value.type.tensor_type.elem_type])
            entries.add(name=value.name, data_type=kind, dims=dims[1:] if batch_max else dims)
    for output in made.output:
        if labels and is_class_scores(output.name, list(output.dims), len(labels)):
            output.label_filename = LABELS
    if batch_max:
        made.dynamic_batching.SetInParent()
    return made


def is_class_scores(name: str, dims: Sequence[int], classes: int) -> bool:
    """Whether an output has one number for each class."""
    return name in {signature.LOGITS, signature.PROBABILITIES} or (len(dims) == 1 and dims[0] == classes)


def labels_text(labels: Sequence[str]) -> str:
    """Return labels.txt: a line for each class."""
    return "".join(f"{label}\n" for label in labels)


_TYPES = {
    kind: f"TYPE_{'FP' + name[5:] if name.startswith('FLOAT1') else name}"
    for name, kind in onnx.TensorProto.DataType.items()
    if name in {"BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FLOAT16"}
} | {
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.DOUBLE: "TYPE_FP64",
    onnx.TensorProto.BFLOAT16: "TYPE_BF16",
    onnx.TensorProto.STRING: "TYPE_STRING",
}
