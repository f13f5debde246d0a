"""The few CUDA calls that ONNX Runtime's Python API lacks: pinned memory, a stream, copies on it.

Path: **cuda** → buffers, pipeline. The only user of libcudart, by ctypes; every call releases the GIL
and every return code is checked.

It is the library that ONNX Runtime has loaded already (the loader gives the same one for the same
name), so both share the device's primary context and addresses mean the same to both.
"""

import ctypes
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

LIBRARY = "libcudart.so.13"

_NON_BLOCKING = 1  # cudaStreamNonBlocking: does not wait for the legacy default stream, nor it for us
_HOST_ALLOC_DEFAULT = 0
_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2  # cudaMemcpyKind
_PCI_BUS_ID_BYTES = 32  # "at least 13", and domains may be longer

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cudaSetDevice": (ctypes.c_int,),
    "cudaHostAlloc": (ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_uint),
    "cudaFreeHost": (ctypes.c_void_p,),
    "cudaStreamCreateWithFlags": (ctypes.POINTER(ctypes.c_void_p), ctypes.c_uint),
    "cudaStreamDestroy": (ctypes.c_void_p,),
    "cudaStreamSynchronize": (ctypes.c_void_p,),
    "cudaMemcpyAsync": (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p),
    "cudaDeviceGetPCIBusId": (ctypes.c_char_p, ctypes.c_int, ctypes.c_int),
    "cudaMemGetInfo": (ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)),
}


class CudaError(RuntimeError):
    """A CUDA call failed. `call` is its name, `code` what it returned."""

    def __init__(self, call: str, code: int, explanation: str) -> None:
        super().__init__(f"{call} failed with CUDA error {code}: {explanation}")
        self.call = call
        self.code = code


class Library(Protocol):
    """What is used of libcudart: its functions, as attributes."""

    def __getattr__(self, name: str) -> Any: ...


def load() -> Library:
    """Return libcudart with its functions declared.

    Raises:
        CudaError: the library is not there.
    """
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise CudaError("dlopen", 0, str(error)) from error
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, ctypes.c_int
    library.cudaGetErrorString.argtypes, library.cudaGetErrorString.restype = (ctypes.c_int,), ctypes.c_char_p
    return library


class Cuda:
    """CUDA calls on one device. Stateless; usable from any thread that has called `use`."""

    def __init__(self, library: Library, device: int = 0) -> None:
        self._library = library
        self._device = device

    def use(self) -> None:
        """Make the device this thread's. Once in every thread, before its other calls."""
        self._check("cudaSetDevice", self._device)

    def host_memory(self, size_bytes: int) -> int:
        """Return the address of new page-locked memory, at least 1 byte; end it with `free_host`."""
        address = ctypes.c_void_p()
        self._check("cudaHostAlloc", ctypes.byref(address), max(1, size_bytes), _HOST_ALLOC_DEFAULT)
        return address.value or 0

    def free_host(self, address: int) -> None:
        """Give page-locked memory back."""
        self._check("cudaFreeHost", address)

    def new_stream(self) -> int:
        """Return a stream that runs beside all others; end it with `end_stream`."""
        stream = ctypes.c_void_p()
        self._check("cudaStreamCreateWithFlags", ctypes.byref(stream), _NON_BLOCKING)
        return stream.value or 0

    def end_stream(self, stream: int) -> None:
        """Destroy a stream."""
        self._check("cudaStreamDestroy", stream)

    def to_device(self, device: int, host: NDArray[np.generic], stream: int) -> None:
        """Start copying a contiguous array to a device address. It must stay as it is until `synchronise`."""
        self._check("cudaMemcpyAsync", device, host.ctypes.data, host.nbytes, _HOST_TO_DEVICE, stream)

    def to_host(self, host: NDArray[np.generic], device: int, stream: int) -> None:
        """Start copying from a device address into a contiguous array; it is there after `synchronise`."""
        self._check("cudaMemcpyAsync", host.ctypes.data, device, host.nbytes, _DEVICE_TO_HOST, stream)

    def synchronise(self, stream: int) -> None:
        """Wait until everything on the stream is done."""
        self._check("cudaStreamSynchronize", stream)

    def memory_bytes(self) -> tuple[int, int]:
        """Return the device's free and total memory."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._check("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def pci_bus_id(self) -> str:
        """Return the device's place on the PCI bus, by which others know it: "0000:3b:00.0"."""
        place = ctypes.create_string_buffer(_PCI_BUS_ID_BYTES)
        self._check("cudaDeviceGetPCIBusId", place, _PCI_BUS_ID_BYTES, self._device)
        return place.value.decode()

    def _check(self, call: str, *arguments: object) -> None:
        code = getattr(self._library, call)(*arguments)
        if code:
            raise CudaError(call, code, self._library.cudaGetErrorString(code).decode(errors="replace"))


class PinnedArrays:
    """Arrays in page-locked memory, so that copies run beside the program.

    Mutable state: the addresses, emptied by `close`; touched by whoever made it.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._addresses: list[int] = []

    def array(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
        """Return a new array of zeros; not to be used after `close`."""
        size_bytes = int(np.prod(shape)) * dtype.itemsize
        address = self._cuda.host_memory(size_bytes)
        self._addresses.append(address)
        memory = (ctypes.c_char * size_bytes).from_address(address)
        made = np.frombuffer(memoryview(memory), dtype).reshape(shape)
        made[...] = np.zeros((), dtype)
        return made

    def close(self) -> None:
        """Free everything."""
        while self._addresses:
            self._cuda.free_host(self._addresses.pop())
