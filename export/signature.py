"""The names that an exported graph has for the outside: its input, its outputs, its layouts.

Path: **signature** → options, passes, manifest. It loads nothing.
"""

INPUT = "image"
BATCH = "batch"
LOGITS, PROBABILITIES = "logits", "probabilities"
FEATURES = "features:"
"""Feature maps are tensors, and outputs, named "features:<stage>"."""

UINT8_NHWC, FLOAT32_NCHW = "uint8-nhwc", "float32-nchw"
LAYOUTS = (UINT8_NHWC, FLOAT32_NCHW)
"""Of the input: pixels as they are, or normalised values."""


def top_names(count: int) -> tuple[str, str]:
    """Return the names of the two outputs with the `count` best classes: scores float32, classes int64."""
    return f"top{count}_scores", f"top{count}_classes"
