"""A network to an ONNX graph with a float32 (N, C, H, W) input.

Path: tapped → **trace** → passes.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence

import onnx
import torch

from export import errors, signature, tapped

OPSET = 20


def trace(
    network: tapped.Tapped, shape_chw: tuple[int, int, int], outputs: Sequence[str], *, is_any_size: bool = False
) -> onnx.ModelProto:
    """Return the graph: input `image` float32 ("batch", C, H, W), and the outputs by name.

    Args:
        network: in eval mode.
        shape_chw: of the example; fixed in the graph unless `is_any_size`.
        outputs: names of all that the network returns, in its order.
        is_any_size: make "height" and "width" dynamic too. Whether the graph is right at other sizes is
            for `verify` to find out: some are exported without complaint and are wrong.

    Raises:
        UnsupportedNetwork: the exporter cannot trace it.
    """
    # With one row the exporter may take the batch for a constant.
    example = torch.zeros((2, *shape_chw))
    dynamic = {0: signature.BATCH, 2: "height", 3: "width"} if is_any_size else {0: signature.BATCH}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _quiet():
        # torch.onnx and torch.export warn of their own internals (deprecations, copyreg, pytree);
        # nothing that a person exporting a model could act on.
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                network.eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[signature.INPUT],
                output_names=list(outputs),
                dynamic_shapes=(dynamic,),
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # torch.onnx wraps whatever went wrong in classes of its own
            raise errors.UnsupportedNetwork(
                f"torch.onnx cannot export the network: {_cause(error)}; a forward without decisions on values, "
                "taking one (N, C, H, W) float32 tensor, can be exported"
            ) from error
    assert program is not None, "torch.onnx.export returns the program when dynamo is on"
    model = program.model_proto
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": OPSET}:  # it gives another one than was asked for without a word
        raise errors.UnsupportedNetwork(f"torch.onnx gave opsets {opsets}; expected only the plain one, {OPSET}")
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lower the exporter's logs for a while."""
    logs = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx.experimental.symbolic_shapes")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def _cause(error: BaseException) -> str:
    """The innermost reason, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
