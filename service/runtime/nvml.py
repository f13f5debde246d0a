"""What the GPU that runs the models says of itself: memory, utilisation, power.

Path: the driver's libnvidia-ml → **nvml** → metrics. The only user of that library, by ctypes: it comes with every
driver, and the few calls are no reason for a package.

NVML counts all GPUs of the machine, CUDA those that CUDA_VISIBLE_DEVICES shows; so the GPU is found by its place on
the PCI bus.
"""

import ctypes
import logging
from typing import Any, NamedTuple

from service.runtime import cuda

log = logging.getLogger(__name__)

LIBRARY = "libnvidia-ml.so.1"

_UUID_BYTES = 96  # NVML_DEVICE_UUID_V2_BUFFER_SIZE
_NUMBER, _LARGE = ctypes.c_uint, ctypes.c_ulonglong


class _Memory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = (("total", _LARGE), ("free", _LARGE), ("used", _LARGE))


class _Utilization(ctypes.Structure):
    """nvmlUtilization_t: percent of the last sample period, 1 s or less."""

    _fields_ = (("gpu", _NUMBER), ("memory", _NUMBER))


_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "nvmlInit_v2": (),
    "nvmlDeviceGetHandleByPciBusId_v2": (ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p)),
    "nvmlDeviceGetUUID": (ctypes.c_void_p, ctypes.c_char_p, _NUMBER),
    "nvmlDeviceGetMemoryInfo": (ctypes.c_void_p, ctypes.POINTER(_Memory)),
    "nvmlDeviceGetUtilizationRates": (ctypes.c_void_p, ctypes.POINTER(_Utilization)),
    "nvmlDeviceGetPowerUsage": (ctypes.c_void_p, ctypes.POINTER(_NUMBER)),
    "nvmlDeviceGetEnforcedPowerLimit": (ctypes.c_void_p, ctypes.POINTER(_NUMBER)),
    "nvmlDeviceGetTotalEnergyConsumption": (ctypes.c_void_p, ctypes.POINTER(_LARGE)),
}


class Reading(NamedTuple):
    """A GPU at one moment; None where it does not tell, as utilisation of a MIG slice."""

    uuid: str
    utilization: float | None
    """Share of the time in which any kernel ran, 0 to 1; how much of the GPU that kernel used is not in it."""
    memory_total_bytes: int | None
    memory_used_bytes: int | None
    """By all processes."""
    power_w: float | None
    power_limit_w: float | None
    energy_j: float | None
    """Since the GPU was found."""


class Gpu:
    """One GPU. `read` may be called from any thread: so may NVML."""

    def __init__(self, library: cuda.Library, handle: ctypes.c_void_p, uuid: str) -> None:
        self._library = library
        self._handle = handle
        self._uuid = uuid
        self._energy_before_j = self._energy_j() or 0.0

    def read(self) -> Reading:
        """Return its state now."""
        memory = self._ask("nvmlDeviceGetMemoryInfo", _Memory())
        utilization = self._ask("nvmlDeviceGetUtilizationRates", _Utilization())
        power_mw = self._ask("nvmlDeviceGetPowerUsage", _NUMBER())
        limit_mw = self._ask("nvmlDeviceGetEnforcedPowerLimit", _NUMBER())
        energy_j = self._energy_j()
        return Reading(
            uuid=self._uuid,
            utilization=None if utilization is None else utilization.gpu / 100,
            memory_total_bytes=None if memory is None else memory.total,
            memory_used_bytes=None if memory is None else memory.used,
            power_w=None if power_mw is None else power_mw.value / 1e3,
            power_limit_w=None if limit_mw is None else limit_mw.value / 1e3,
            energy_j=None if energy_j is None else energy_j - self._energy_before_j,
        )

    def _energy_j(self) -> float | None:
        energy_mj = self._ask("nvmlDeviceGetTotalEnergyConsumption", _LARGE())
        return None if energy_mj is None else float(energy_mj.value) / 1e3

    def _ask(self, call: str, answer: Any) -> Any:
        return None if getattr(self._library, call)(self._handle, ctypes.byref(answer)) else answer


def find(pci_bus_id: str) -> Gpu | None:
    """Return the GPU in that place on the PCI bus; None, and a warning, where the driver's library does not know it."""
    try:
        library = ctypes.CDLL(LIBRARY)
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, ctypes.c_int
    except (OSError, AttributeError) as error:
        log.warning("no metrics of the GPU: %s; in a container, ask for the driver capability 'utility'", error)
        return None
    return find_in(library, pci_bus_id)


def find_in(library: cuda.Library, pci_bus_id: str) -> Gpu | None:
    """As `find`, in a library that is loaded."""
    handle, uuid = ctypes.c_void_p(), ctypes.create_string_buffer(_UUID_BYTES)
    code = (
        library.nvmlInit_v2()
        or library.nvmlDeviceGetHandleByPciBusId_v2(pci_bus_id.encode(), ctypes.byref(handle))
        or library.nvmlDeviceGetUUID(handle, uuid, _UUID_BYTES)
    )
    if code:
        log.warning("no metrics of the GPU: NVML answers %d for the GPU at %s", code, pci_bus_id)
        return None
    return Gpu(library, handle, uuid.value.decode())
