"""A serving module to an ONNX graph.

Path: serving → **trace** → passes.
"""

import contextlib
import io
import logging
import warnings

import onnx
import torch
from torch import nn

OPSET = 20
INPUT = "image"
OUTPUTS = ("logits", "probabilities")


def trace(module: nn.Module, image_shape_hwc: tuple[int, int, int]) -> onnx.ModelProto:
    """Return the graph: input `image` uint8 ("batch", H, W, C), outputs `logits`, `probabilities`.

    The example has two rows: with one, the exporter may take the batch for a constant.
    """
    example = torch.zeros((2, *image_shape_hwc), dtype=torch.uint8)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        # torch.onnx and torch.export warn of their own internals (deprecations, copyreg, pytree);
        # nothing that a person exporting a model could act on.
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: "batch"},),
            external_data=False,
            verbose=False,
        )
    assert program is not None, "torch.onnx.export returns the program when dynamo is on"
    return program.model_proto
