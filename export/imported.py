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
    return content, model


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
    found = [value.name for value in model.graph.output if len(value.type.tensor_type.shape.dim) == 2]
    if len(found) != 1:
        raise errors.OptionError(
            f"probabilities and best classes need one output (N, classes); the graph has {', '.join(found) or 'none'}"
        )
    edges.rename(model, found[0], signature.LOGITS)


def _as_image(model: onnx.ModelProto, chosen: options.Options) -> preprocessing.Preprocessing:
    """Make the graph's one input the image, and return how pixels become it."""
    taken = [value for value in model.graph.input if value.name not in {t.name for t in model.graph.initializer}]
    dims = taken[0].type.tensor_type.shape.dim if taken else []
    is_float = bool(taken) and taken[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    if len(taken) != 1 or not is_float or len(dims) != 4 or not dims[0].dim_param:
        raise errors.OptionError(
            "--input uint8-nhwc needs a graph with one float32 input (N, C, H, W), N dynamic; "
            f"this one takes {', '.join(value.name for value in taken) or 'nothing'}"
        )
    sizes = [dim.dim_value for dim in dims[1:]]
    shape_chw = (sizes[0], sizes[1], sizes[2])
    if chosen.input_size:
        shape_chw = chosen.input_size
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
    for value in model.graph.output:
        dims = value.type.tensor_type.shape.dim
        if value.name == signature.LOGITS and len(dims) == 2:
            return int(dims[1].dim_value)
    return 0
