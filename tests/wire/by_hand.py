"""Model repositories laid out by hand, as Triton's documentation shows them, around graphs of a few nodes.

The graphs are written in ONNX's text form; none of them comes from Fovea's export.
"""

import pathlib
from collections.abc import Mapping

import onnx
import tritonclient.grpc as triton
from numpy.typing import NDArray
from onnx import parser
from tritonclient.utils import np_to_triton_dtype

# The sum and the difference, as the model `simple` of Triton's examples has them.
SIMPLE = "(int32[N,16] INPUT0, int32[N,16] INPUT1) => (int32[N,16] OUTPUT0, int32[N,16] OUTPUT1) { OUTPUT0 = Add(INPUT0, INPUT1) OUTPUT1 = Sub(INPUT0, INPUT1) }"  # noqa: E501  # one graph
# Squares zeros as often as it is told, 15 µs a time: a run that lasts.
LASTING = """(int64[] times, float[64,64] x) => (float[64,64] y) {
    go = Constant<value = bool {1}>()
    y = Loop(times, go, x) <body = once (int64 i, bool on, float[64,64] v) => (bool next, float[64,64] w) {
        next = Identity(on)  w = MatMul(v, v) }> }"""


def graph(body: str) -> onnx.ModelProto:
    """A model from its inputs, outputs and nodes in ONNX's text form."""
    return parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> graph {body}')


def write(
    repository: pathlib.Path,
    name: str,
    versions: Mapping[str, str],
    config: str = "",
    *,
    filename: str = "model.onnx",
    labels: Mapping[str, str] | None = None,
) -> pathlib.Path:
    """Write a model: version → graph, and config.pbtxt unless it is empty; its folder.

    `labels`: file name → text. A file name with a slash makes the model a directory, of which it is the main file.
    """
    folder = repository / name
    for version, body in versions.items():
        path = folder / version / filename
        path.parent.mkdir(parents=True)
        onnx.save(graph(body), path)
    if config:
        (folder / "config.pbtxt").write_text(config)
    for label_file, text in (labels or {}).items():
        (folder / label_file).write_text(text)
    return folder


def tensor(name: str, values: NDArray[object], datatype: str = "") -> triton.InferInput:
    """An input of a stock client."""
    made = triton.InferInput(name, list(values.shape), datatype or np_to_triton_dtype(values.dtype))
    made.set_data_from_numpy(values)
    return made
