"""The options of ONNX Runtime's CUDA provider that a config.pbtxt may set, and their values.

Path: models.placement → **cuda_options** → session.

ONNX Runtime 1.31 names an unknown option only in an error of its own, and takes several spellings;
here they are checked first. Not offered: the device (there is one), streams and allocators (addresses
in this process).
"""

from collections.abc import Mapping

from service import errors

_SWITCH = {"0": "0", "1": "1", "false": "0", "true": "1"}

_CHOICES: Mapping[str, Mapping[str, str]] = {
    "arena_extend_strategy": {
        **{name.lower(): name for name in ("kNextPowerOfTwo", "kSameAsRequested")},
        "0": "kNextPowerOfTwo",
        "1": "kSameAsRequested",
    },
    "cudnn_conv_algo_search": {
        **{name.lower(): name for name in ("EXHAUSTIVE", "HEURISTIC", "DEFAULT")},
        "0": "EXHAUSTIVE",
        "1": "HEURISTIC",
        "2": "DEFAULT",
    },
    **dict.fromkeys(
        (
            "cudnn_conv1d_pad_to_nc1d",
            "cudnn_conv_use_max_workspace",
            "do_copy_in_default_stream",
            "enable_cuda_graph",
            "fuse_conv_bias",
            "prefer_nhwc",
            "tunable_op_enable",
            "tunable_op_tuning_enable",
            "use_ep_level_unified_stream",
            "use_tf32",
        ),
        _SWITCH,
    ),
}
_NUMBERS = ("gpu_mem_limit", "sdpa_kernel", "tunable_op_max_tuning_duration_ms")

NAMES = (*_CHOICES, *_NUMBERS)
"""All of them."""


def value(model: str, name: str, said: str) -> str:
    """Return an option's value as ONNX Runtime wants it.

    Args:
        model: for the error.
        name: the option.
        said: as in config.pbtxt; Triton's numbers are understood.

    Raises:
        ModelLoadError: no such option (names the nearest), or not one of its values.
    """
    if name in _NUMBERS:
        if said.isascii() and said.isdigit():
            return said
        raise errors.ModelLoadError(model, f"config.pbtxt sets {name} to {said!r}; expected a whole number")
    if name not in _CHOICES:
        raise errors.ModelLoadError(
            model,
            f"config.pbtxt sets {name!r}, which is no option of the CUDA provider that can be set here"
            f"{errors.nearest(name, NAMES)}; there are {', '.join(sorted(NAMES))}",
        )
    if said.lower() not in _CHOICES[name]:
        raise errors.ModelLoadError(
            model, f"config.pbtxt sets {name} to {said!r}; expected one of {', '.join(_CHOICES[name])}"
        )
    return _CHOICES[name][said.lower()]
