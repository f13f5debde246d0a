"""A libnvidia-ml with one GPU, for machines without one. It writes where the real one would write, through ctypes."""

from typing import Any

PLACE = "0000:3B:00.0"
UUID = "GPU-00000000-1111-2222-3333-444444444444"
NOT_SUPPORTED, NOT_FOUND = 3, 6


class FakeNvml:
    def __init__(self) -> None:
        self.energy_mj = 5_000_000
        self.fails: set[str] = set()

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetHandleByPciBusId_v2(self, place: bytes, handle: Any) -> int:  # noqa: N802
        handle._obj.value = 0x77
        return 0 if place.decode() == PLACE else NOT_FOUND

    def nvmlDeviceGetUUID(self, handle: Any, uuid: Any, length: int) -> int:  # noqa: N802
        assert handle.value == 0x77
        uuid.value = UUID.encode()
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:  # noqa: N802
        memory._obj.total, memory._obj.free, memory._obj.used = 80 << 30, 75 << 30, 5 << 30
        return self._code("nvmlDeviceGetMemoryInfo")

    def nvmlDeviceGetUtilizationRates(self, handle: Any, rates: Any) -> int:  # noqa: N802
        rates._obj.gpu, rates._obj.memory = 37, 12
        return self._code("nvmlDeviceGetUtilizationRates")

    def nvmlDeviceGetPowerUsage(self, handle: Any, power_mw: Any) -> int:  # noqa: N802
        power_mw._obj.value = 312_500
        return 0

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any, power_mw: Any) -> int:  # noqa: N802
        power_mw._obj.value = 700_000
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, energy_mj: Any) -> int:  # noqa: N802
        energy_mj._obj.value = self.energy_mj
        return 0

    def _code(self, call: str) -> int:
        return NOT_SUPPORTED if call in self.fails else 0
