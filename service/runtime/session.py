"""One model loaded in ONNX Runtime, and the thread that runs it. The only importer of onnxruntime.

Path: batcher → **session** → batcher.
"""

import asyncio
import concurrent.futures
import dataclasses
import os
import pathlib
import time
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from service import datatypes, errors
from service.batching import batcher, slots
from service.runtime import providers

# ONNX Runtime 1.31 reports usage to its maker and keeps a device id on disk unless told not to before
# it is loaded. A server that others run does neither, unless they ask for it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

WARNING = 2
"""ONNX Runtime's log severity."""


def built_in_providers() -> list[str]:
    """Return the providers that the installed ONNX Runtime was built with; none need work here."""
    return list(onnxruntime.get_available_providers())


def preload_cuda_libraries() -> None:
    """Load CUDA's libraries from the nvidia-* wheels, where they are installed that way."""
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """How a session runs: on which provider, with how many CPU threads."""

    provider: providers.Provider
    threads: int


class Session:
    """A loaded model.

    Mutable state: ONNX Runtime's own, and the slot; touched only by the session's one thread once
    `run_batch` is used.
    """

    def __init__(self, model: str, path: pathlib.Path, options: Options) -> None:
        """Load the model.

        Raises:
            ModelLoadError: ONNX Runtime cannot load it, did not take the provider, or has a tensor
                type that is not served.
        """
        self._model = model
        self._session = _load(model, path, options)
        self._slot = slots.Slot()
        self._executor = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=f"run-{model}")
        self.inputs = _specs(model, self._session.get_inputs())
        self.outputs = _specs(model, self._session.get_outputs())
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, inputs: slots.Tensors, outputs: Iterable[str]) -> dict[str, NDArray[np.generic]]:
        """Run once on this thread; name → output. What ONNX Runtime raises comes through."""
        names = list(outputs)
        return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))

    async def run_batch(self, requests: Sequence[slots.Tensors], wanted: frozenset[str]) -> batcher.BatchResult:
        """Run requests together on the session's thread. A `batcher.RunBatch`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._gather_and_run, requests, wanted)

    def close(self) -> None:
        """Wait for the thread to end."""
        self._executor.shutdown()

    def _gather_and_run(self, requests: Sequence[slots.Tensors], wanted: frozenset[str]) -> batcher.BatchResult:
        started_s = time.perf_counter()
        inputs = self._slot.gather(requests)
        gathered_s = time.perf_counter()
        outputs = self.run(inputs, wanted)
        return batcher.BatchResult(outputs, gathered_s - started_s, time.perf_counter() - gathered_s)


def _load(model: str, path: pathlib.Path, options: Options) -> onnxruntime.InferenceSession:
    chosen = options.provider
    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = WARNING
    session_options.intra_op_num_threads = options.threads
    session_options.inter_op_num_threads = 1
    # Spinning threads take cores from decoding and gRPC: 1.75 times slower with two sessions.
    session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = [(chosen.name, chosen.options)] + ([] if chosen.name == providers.CPU else [providers.CPU])
    try:
        session = onnxruntime.InferenceSession(path, session_options, providers=wanted)
    except Exception as error:  # ONNX Runtime's exceptions have no common base but this
        raise errors.ModelLoadError(model, f"ONNX Runtime cannot load {path}: {error}") from error
    session.disable_fallback()
    taken = session.get_providers()[0]
    if taken != chosen.name:
        raise errors.ModelLoadError(model, f"ONNX Runtime took {taken} instead of {chosen.name}; its log says why")
    return session


def _specs(model: str, arguments: Iterable[onnxruntime.NodeArg]) -> tuple[datatypes.TensorSpec, ...]:
    return tuple(_spec(model, argument) for argument in arguments)


def _spec(model: str, argument: onnxruntime.NodeArg) -> datatypes.TensorSpec:
    datatype = datatypes.BY_ORT.get(argument.type)
    if datatype is None:
        served = ", ".join(datatypes.BY_ORT)
        raise errors.ModelLoadError(
            model, f"tensor {argument.name!r} has type {argument.type}; types served are {served}"
        )
    shape = tuple(size if isinstance(size, int) else -1 for size in argument.shape)
    return datatypes.TensorSpec(argument.name, datatype, shape)
