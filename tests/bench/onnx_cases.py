"""The test models that ship inside the onnx package, with the runs recorded for them.

Path: onnx.backend.test → **onnx_cases** → conformance, tests of the wire.
"""

import dataclasses
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.test import loader, runner

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "real")
_IR_VERSION_MAX, _OPSET_MAX = 13, 26
"""ONNX Runtime 1.31 reads no newer files. Those that say so are tried as the newest that it reads."""

Values = dict[str, Any]
"""Tensor name → array; None or a list, where it is an optional or a sequence."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One test model with its recorded runs: inputs and outputs."""

    name: str
    model: onnx.ModelProto
    runs: Sequence[tuple[Values, Values]]
    rtol: float
    atol: float


def of_kind(kind: str) -> Iterator[Case]:
    """The test models of a kind."""
    with warnings.catch_warnings():  # onnx overflows on purpose while it makes its values
        warnings.simplefilter("ignore")
        found = loader.load_model_tests(kind=kind)
    for test in found:
        model = test.model or onnx.load(_graph_path(test))
        _make_readable(model)
        runs = test.data_sets or _stored(test, model)
        inputs, outputs = ([value.name for value in values] for values in (_fed(model), model.graph.output))
        named = [(_named(inputs, ins), _named(outputs, outs)) for ins, outs in runs]
        yield Case(test.name, model, named, test.rtol, test.atol)


def _make_readable(model: onnx.ModelProto) -> None:
    model.ir_version = min(model.ir_version, _IR_VERSION_MAX)
    for opset in model.opset_import:
        if opset.domain in {"", "ai.onnx"}:
            opset.version = min(opset.version, _OPSET_MAX)


def _fed(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs, those that have defaults last: so the recorded values come in order, with or without them."""
    defaults = {tensor.name for tensor in model.graph.initializer}
    return sorted(model.graph.input, key=lambda value: value.name in defaults)


def _named(names: Sequence[str], values: Sequence[Any]) -> Values:
    return dict(zip(names, map(_array, values), strict=False))


def _array(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _graph_path(test: Any) -> pathlib.Path:
    """`real` tests that the package carries without weights have a path below its own folder instead of a URL."""
    if test.model_dir:
        return pathlib.Path(test.model_dir) / "model.onnx"
    return pathlib.Path(onnx.__file__).parent.parent / test.url


def _stored(test: Any, model: onnx.ModelProto) -> Iterator[tuple[list[Any], list[Any]]]:
    if test.model_dir is None:
        path = _graph_path(test)
        dummies = [runner.Runner.generate_dummy_data(value) for value in _fed(model)[:1]]
        yield dummies, [_read(path.with_name(f"{path.stem}_output_0.pb"), model.graph.output[0])]
        return
    for folder in sorted(pathlib.Path(test.model_dir).glob("test_data_set*")):
        yield tuple(
            [
                _read(folder / f"{role}_{number}.pb", value)
                for number, value in enumerate(values)
                if (folder / f"{role}_{number}.pb").exists()
            ]
            for role, values in (("input", _fed(model)), ("output", model.graph.output))
        )  # type: ignore[misc]  # two roles


def _read(path: pathlib.Path, value: onnx.ValueInfoProto) -> Any:
    if value.type.WhichOneof("value") != "tensor_type":
        return None  # a sequence or an optional: refused at load
    return onnx.numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))
