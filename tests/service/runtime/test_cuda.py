"""The CUDA calls: every code is looked at. The real library answers too, where it is, even without a GPU."""

import ctypes
import pathlib

import numpy as np
import pytest

from service.runtime import cuda
from tests.service.runtime.fake_cudart import FakeCudart


def real_library() -> cuda.Library:
    for path in (cuda.LIBRARY, *map(str, pathlib.Path("/usr/local").glob("cuda*/lib*/" + cuda.LIBRARY))):
        try:
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)  # loaded under its soname: `load` finds it
            return cuda.load()
        except (OSError, cuda.CudaError):
            continue
    pytest.skip(f"NOT RUN: {cuda.LIBRARY} is not on this machine")


def test_every_function_that_is_called_is_in_the_library() -> None:
    assert real_library().cudaMemcpyAsync.restype is ctypes.c_int


def test_without_a_gpu_the_library_s_own_error_is_told() -> None:
    device = cuda.Cuda(real_library())
    try:
        device.memory_bytes()
    except cuda.CudaError as error:
        assert error.call == "cudaMemGetInfo"
        assert error.code > 0
        assert len(str(error)) > len("cudaMemGetInfo failed with CUDA error 35: ")
    else:
        pytest.skip("NOT RUN: this machine has a GPU")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "LIBRARY", "libcudart.so.0")
    with pytest.raises(cuda.CudaError, match=r"libcudart\.so\.0"):
        cuda.load()


@pytest.mark.parametrize("call", ["cudaSetDevice", "cudaHostAlloc", "cudaStreamCreateWithFlags", "cudaMemcpyAsync"])
def test_a_failing_call_is_named_with_its_code_and_meaning(call: str) -> None:
    library = FakeCudart()
    device = cuda.Cuda(library)
    stream = device.new_stream()
    rows = np.zeros(4, np.uint8)
    library.fail_next = {call}
    with pytest.raises(cuda.CudaError, match=f"{call} failed with CUDA error 700: it broke"):
        device.use()
        device.host_memory(16)
        device.new_stream()
        device.to_device(rows.ctypes.data, rows, stream)


def test_pinned_arrays_are_zero_and_all_freed() -> None:
    library = FakeCudart()
    pinned = cuda.PinnedArrays(cuda.Cuda(library))
    made = [pinned.array((3, 5), np.dtype(np.float32)), pinned.array((2,), np.dtype(np.uint8))]
    assert len(library.memory) == 2
    assert not any(array.any() for array in made)
    made[0][1] = 7  # writable
    assert made[0].sum() == 35
    pinned.close()
    assert not library.memory


def test_a_copy_is_there_after_its_stream_is_synchronised() -> None:
    device = cuda.Cuda(FakeCudart())
    stream = device.new_stream()
    there, back = np.zeros(4, np.int32), np.zeros(4, np.int32)
    device.to_device(there.ctypes.data, np.arange(4, dtype=np.int32), stream)
    device.synchronise(stream)
    device.to_host(back, there.ctypes.data, stream)
    device.synchronise(stream)
    assert back.tolist() == [0, 1, 2, 3]
