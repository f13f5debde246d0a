"""ONNX Runtime for the export: runs graphs on the CPU provider. Its only importer here, with `precision`.

Path: passes → **runtime** → verify, latency, inspection.
"""

import os
import pathlib
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

# As in service/runtime/session.py: no usage reports to ONNX Runtime's maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

CPU = "CPUExecutionProvider"

_ERRORS_ONLY = 3

Arrays = Mapping[str, NDArray[Any]]


class Session:
    """A graph loaded on the CPU provider, threads not spinning. `run` what it takes; names are the graph's."""

    def __init__(self, model: onnx.ModelProto, *, optimize: bool = True, threads: int = 0) -> None:
        """Load the graph.

        Args:
            model: the graph.
            optimize: at full optimisation, as it is served; otherwise node by node, as it is written.
            threads: 0 means one for each core.

        Raises:
            RuntimeError, ValueError: ONNX Runtime's own, if it cannot load the graph.
        """
        options = _options(optimize)
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU])
        self._session.disable_fallback()
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def run(self, inputs: Arrays, outputs: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
        """Run once; name → output. All outputs, unless some are named."""
        names = list(self.outputs if outputs is None else outputs)
        feeds = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        return dict(zip(names, self._session.run(names, feeds), strict=True))


def optimized(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return what ONNX Runtime makes of the graph on this CPU at full optimisation: for looking at only."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "optimized.onnx"
        options = _options(optimize=True)
        options.optimized_model_filepath = str(path)
        # Saying "for looking at only" as well; otherwise it warns that the file is for this CPU alone.
        options.log_severity_level = _ERRORS_ONLY
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU])
        return onnx.load(path)


def _options(optimize: bool) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _ERRORS_ONLY
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    return options
