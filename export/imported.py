"""An .onnx file of somebody's as a source: optimised, checked against itself as it was, wrapped.

Path: disk → **imported** → sources. The optimiser is onnxscript's: constants folded, BatchNorm folded.
"""

import hashlib
import pathlib

import onnx
import onnxscript.optimizer
from google.protobuf import message
from onnx import shape_inference

from export import errors, options, preprocessing, reference, signature, subject
from export.passes import edges

_T = onnx.TensorProto
CHECKED = frozenset(
    {_T.BOOL, _T.UINT8, _T.UINT16, _T.UINT32, _T.UINT64, _T.INT8, _T.INT16, _T.INT32, _T.INT64}
    | {_T.FLOAT16, _T.FLOAT, _T.DOUBLE}
)
"""Types of elements that inputs can be made up in."""

OPSET_MIN = 13
"""Below it, operators that the passes rewrite have other forms."""


def source(path: pathlib.Path, chosen: options.Options) -> subject.Source:
    """Return the source.

    Raises:
        UnsupportedNetwork: no ONNX model, or one that cannot be exported as it was asked.
        OptionError: an option that an .onnx file does not have.
    """
    _check(chosen)
    content, model = _read(path)
    if chosen.input_size:
        _pin(path, model, chosen.input_size)
    _let_out(model, chosen.stages)
    if chosen.has_probabilities or chosen.tops:
        _name_logits(model)
    described = None
    if chosen.layout_asked == signature.UINT8_NHWC:
        described = _as_image(model, chosen)
    original = onnx.ModelProto()
    original.CopyFrom(model)
    optimised: onnx.ModelProto = onnxscript.optimizer.optimize(model)
    outputs = tuple(v.name for v in optimised.graph.output if not v.name.startswith(signature.FEATURES))
    facts = subject.Facts(
        name=path.stem,
        origin=path.name,
        weights_source=path.name,
        weights_sha256=hashlib.sha256(content).hexdigest(),
        outputs=outputs,
        stages={},
        parameters={},
        preprocessing=described,
        network=None,
        batch_max=32 if _has_batch(optimised) else 0,
        classes=_classes(optimised),
        notes=("Compared with the file as it was, run without any optimisation; there is no float64 of it.",),
    )
    return subject.Source(facts, optimised, reference.GraphReference(original, described))


def _check(chosen: options.Options) -> None:
    asked = {
        "--weights": bool(chosen.weights),
        "--classes": chosen.classes is not None,
        "--any-size": chosen.is_any_size,
        "--transform-input": chosen.transform_input is not None,
    }
    wrong = [flag for flag, is_asked in asked.items() if is_asked]
    if wrong:
        raise errors.OptionError(f"{', '.join(wrong)}: an .onnx file has its weights and its shape already")
    if chosen.layout_asked != signature.UINT8_NHWC and (chosen.mean or chosen.std):
        raise errors.OptionError("--mean and --std go into the graph of an .onnx file only with --input uint8-nhwc")


def _read(path: pathlib.Path) -> tuple[bytes, onnx.ModelProto]:
    try:
        content = path.read_bytes()
        model = onnx.load_from_string(content)
        onnx.checker.check_model(model)
        model = shape_inference.infer_shapes(model, strict_mode=True)
    except OSError as error:
        raise errors.UnsupportedNetwork(f"{path} cannot be read: {error.strerror}") from error
    except (message.DecodeError, onnx.checker.ValidationError, shape_inference.InferenceError) as error:
        reason = str(error).partition("\n")[0]
        raise errors.UnsupportedNetwork(
            f"{path} is no valid ONNX model: {reason}; expected one file with its weights inside"
        ) from error
    opset = next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 0)
    if opset < OPSET_MIN:
        raise errors.UnsupportedNetwork(
            f"{path} has opset {opset}; at least {OPSET_MIN} is needed: convert it with onnx.version_converter, "
            "or export it again"
        )
    _refuse_odd(path, model)
    return content, model


def _refuse_odd(path: pathlib.Path, model: onnx.ModelProto) -> None:
    """Refuse inputs and outputs that cannot be checked: no tensors, text, half of an exotic type, no dimensions."""
    inputs = _taken(model)
    odd = [value.name for value in (*inputs, *model.graph.output) if value.type.WhichOneof("value") != "tensor_type"]
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*inputs, *model.graph.output)}
    odd += [name for name, kind in kinds.items() if kind not in CHECKED]
    odd += [value.name for value in inputs if not value.type.tensor_type.shape.dim]
    if odd or not inputs:
        what = f"{', '.join(dict.fromkeys(odd))} cannot be checked" if inputs else "the graph has no inputs"
        raise errors.UnsupportedNetwork(
            f"{path}: {what}; inputs and outputs must be tensors of numbers (no text, bfloat16, sequences), "
            "inputs with at least one dimension"
        )


def _taken(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller gives: old files list their weights as inputs too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _pin(path: pathlib.Path, model: onnx.ModelProto, shape_chw: tuple[int, int, int]) -> None:
    """Fix the free sizes of images to those that are checked: only what was verified is served."""
    for value in _taken(model):
        dims = value.type.tensor_type.shape.dim
        if len(dims) != 4:
            continue
        wrong = [size for dim, size in zip(dims[1:], shape_chw, strict=True) if dim.dim_value not in (0, size)]
        if wrong:
            has = "x".join(str(dim.dim_value or "?") for dim in dims[1:])
            raise errors.OptionError(
                f"--input-size {'x'.join(map(str, shape_chw))}: input {value.name!r} of {path} is {has}; leave it out"
            )
        for dim, size in zip(dims[1:], shape_chw, strict=True):
            dim.dim_value = size


def _let_out(model: onnx.ModelProto, stages: tuple[str, ...]) -> None:
    """Make tensors outputs named "features:<tensor>"."""
    known = {value.name: value for value in model.graph.value_info}
    for stage in stages:
        if stage not in known:
            raise errors.UnknownStage(stage, f"the graph has no tensor of that name{errors.nearest(stage, known)}")
        model.graph.output.add().CopyFrom(known[stage])
        edges.rename(model, stage, signature.FEATURES + stage)


def _name_logits(model: onnx.ModelProto) -> None:
    """Name the one output (N, K) `logits`, which scores are made of."""
    found = _class_scores(model)
    if len(found) != 1:
        raise errors.OptionError(
            "probabilities and best classes need one float output (N, classes); the graph has "
            f"{', '.join(value.name for value in found) or 'none'}"
        )
    edges.rename(model, found[0].name, signature.LOGITS)


def _class_scores(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    values = [value for value in model.graph.output if value.type.tensor_type.elem_type in kinds]
    return [value for value in values if len(value.type.tensor_type.shape.dim) == 2]


def _as_image(model: onnx.ModelProto, chosen: options.Options) -> preprocessing.Preprocessing:
    """Make the graph's one input the image, and return how pixels become it."""
    taken = _taken(model)
    dims = taken[0].type.tensor_type.shape.dim if taken else []
    is_float = bool(taken) and taken[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    if len(taken) != 1 or not is_float or len(dims) != 4 or not dims[0].dim_param:
        raise errors.OptionError(
            "--input uint8-nhwc needs a graph with one float32 input (N, C, H, W), N dynamic; "
            f"this one takes {', '.join(value.name for value in taken) or 'nothing'}"
        )
    sizes = [dim.dim_value for dim in dims[1:]]
    shape_chw = (sizes[0], sizes[1], sizes[2])
    shape_chw = chosen.input_size or shape_chw
    if shape_chw[0] not in {1, 3}:
        raise errors.OptionError(f"--input uint8-nhwc needs 1 or 3 channels; the graph has {shape_chw[0]}")
    dims[0].dim_param = signature.BATCH
    for value in model.graph.output:
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = signature.BATCH
    edges.rename(model, taken[0].name, signature.INPUT)
    return subject.normalised(preprocessing.plain(shape_chw), chosen)


def _has_batch(model: onnx.ModelProto) -> bool:
    """Whether the first dimension of every input and output is free; whether it is a batch, `verify` finds out."""
    values = [*model.graph.input, *model.graph.output]
    dims = [value.type.tensor_type.shape.dim for value in values]
    return all(len(shape) > 0 and bool(shape[0].dim_param) for shape in dims)


def _classes(model: onnx.ModelProto) -> int:
    found = _class_scores(model)
    return int(found[0].type.tensor_type.shape.dim[1].dim_value) if len(found) == 1 else 0
