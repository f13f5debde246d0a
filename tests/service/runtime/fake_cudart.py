"""A libcudart whose device is this machine's memory.

Copies wait in their stream until it is synchronised: who reads earlier reads old bytes, as on a GPU.
"""

import collections
import ctypes
import threading
from typing import Any

BROKEN = 700


class FakeCudart:
    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.streams: set[int] = set()
        self.fail_next: set[str] = set()
        self.to_device = 0
        self._waiting: dict[int, list[tuple[int, int, int]]] = collections.defaultdict(list)
        self._changed = threading.Condition()

    def wait_for_copies_to_device(self, count: int) -> None:
        """Return when so many have been synchronised; bounded."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.to_device >= count, timeout=10)

    def cudaSetDevice(self, device: int) -> int:  # noqa: N802
        return self._code("cudaSetDevice") or (0 if device == 0 else 101)

    def cudaHostAlloc(self, address: Any, size_bytes: int, flags: int) -> int:  # noqa: N802
        code = self._code("cudaHostAlloc")
        if not code:
            block = (ctypes.c_char * size_bytes)(*b"\xff" * size_bytes)  # as it comes: not zero
            address._obj.value = ctypes.addressof(block)
            self.memory[address._obj.value] = block
        return code

    def cudaFreeHost(self, address: int) -> int:  # noqa: N802
        del self.memory[address]
        return 0

    def cudaStreamCreateWithFlags(self, stream: Any, flags: int) -> int:  # noqa: N802
        code = self._code("cudaStreamCreateWithFlags")
        if not code:
            stream._obj.value = 0x5000 + len(self.streams)
            self.streams.add(stream._obj.value)
        return code

    def cudaStreamDestroy(self, stream: int) -> int:  # noqa: N802
        self.streams.remove(stream)
        return 0

    def cudaMemcpyAsync(self, to: int, source: int, size_bytes: int, kind: int, stream: int) -> int:  # noqa: N802
        code = self._code("cudaMemcpyAsync") or (0 if kind in {1, 2} and stream in self.streams else 1)
        if not code:
            self._waiting[stream].append((to, source, size_bytes if kind == 1 else -size_bytes))
        return code

    def cudaStreamSynchronize(self, stream: int) -> int:  # noqa: N802
        for to, source, size_bytes in self._waiting.pop(stream, []):
            ctypes.memmove(to, source, abs(size_bytes))
            if size_bytes > 0:
                with self._changed:
                    self.to_device += 1
                    self._changed.notify_all()
        return self._code("cudaStreamSynchronize")

    def cudaMemGetInfo(self, free: Any, total: Any) -> int:  # noqa: N802
        free._obj.value, total._obj.value = 1 << 30, 2 << 30
        return 0

    def cudaGetErrorString(self, code: int) -> bytes:  # noqa: N802
        return b"it broke" if code == BROKEN else b"invalid"

    def _code(self, call: str) -> int:
        if call in self.fail_next:
            self.fail_next.remove(call)
            return BROKEN
        return 0
