"""Which execution provider runs the models: decided once, at start, out loud.

Path: settings → **providers** → session.

ONNX Runtime itself falls back from CUDA to the CPU with a log line. Here `cuda` means CUDA or no
start, and `auto` says which was taken and why.
"""

import ctypes
import dataclasses
import logging
from typing import Literal

from service import errors

log = logging.getLogger(__name__)

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"

# What the CUDA provider of ONNX Runtime >= 1.27 loads: CUDA 13 and cuDNN 9.
_CUDA_LIBRARIES = (
    "libcudart.so.13",
    "libcublas.so.13",
    "libcublasLt.so.13",
    "libcufft.so.12",
    "libcudnn.so.9",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Provider:
    """The provider that was chosen, its options for ONNX Runtime, and the reason in words."""

    name: str
    options: dict[str, str]
    reason: str


def choose(device: Literal["auto", "cuda", "cpu"]) -> Provider:
    """Return the provider for `--device`.

    Raises:
        ProviderUnavailable: `cuda` was asked for and something is missing.
    """
    if device == "cpu":
        return cpu("--device cpu")
    missing = _missing_for_cuda()
    if missing is None:
        return Provider(CUDA, _cuda_options(), "an NVIDIA device and all CUDA libraries were found")
    if device == "cuda":
        raise errors.ProviderUnavailable(device, missing)
    log.warning("running on the CPU: --device auto found no usable CUDA: %s", missing)
    return cpu(f"no usable CUDA: {missing}")


def cpu(reason: str) -> Provider:
    """Return the CPU provider, with the reason for it."""
    return Provider(CPU, {}, reason)


def _cuda_options() -> dict[str, str]:
    return {
        "device_id": "0",
        # EXHAUSTIVE, the default, searches again for every new batch size: hundreds of ms each.
        "cudnn_conv_algo_search": "HEURISTIC",
        # All batch sizes are run at load, so the arena knows its size; doubling would only waste memory.
        "arena_extend_strategy": "kSameAsRequested",
        # ONNX Runtime's default too: named, because float32 on tensor cores is what the manifest's tolerance is for.
        "use_tf32": "1",
    }


def _missing_for_cuda() -> str | None:
    """What CUDA lacks here, as half a sentence; None if nothing."""
    from service.runtime import session  # noqa: PLC0415 - loads ONNX Runtime, which `--device cpu` needs later

    if CUDA not in session.built_in_providers():
        return "the installed ONNX Runtime has no CUDA provider (install onnxruntime-gpu)"
    driver = _load("libcuda.so.1")
    if driver is None:
        return "libcuda.so.1 is not there (no NVIDIA driver, or the container was started without the GPU)"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the NVIDIA driver shows no device (check nvidia-smi and CUDA_VISIBLE_DEVICES)"
    session.preload_cuda_libraries()
    absent = [name for name in _CUDA_LIBRARIES if _load(name) is None]
    if absent:
        return f"{', '.join(absent)} cannot be loaded (pip install 'onnxruntime-gpu[cuda,cudnn]')"
    return None


def _load(library: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(library)
    except OSError:
        return None
