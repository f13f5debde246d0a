"""A batch's memory on the device: page-locked staging on our side, fixed tensors on the device's.

Path: pipeline → **buffers** → cuda, session.

A lane holds one batch at a time. It has, for every bucket (a fixed count of rows), device tensors
whose addresses never change and a run bound to them: what a CUDA graph asks for. Rows beyond the
batch's own keep what was there before; no row of an answer depends on them. The staging is the
copier's, one thread that waits for each copy: both lanes use the same.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service.batching import slots
from service.runtime import cuda, rehearsal, session


@dataclasses.dataclass(frozen=True, slots=True)
class Bucket:
    """One count of rows: host and device memory of its inputs and outputs, and the run between them."""

    rows: int
    host_inputs: slots.Tensors
    inputs: Mapping[str, session.DeviceTensor]
    host_outputs: slots.Tensors
    outputs: Mapping[str, session.DeviceTensor]
    bound: session.Bound

    def fill(self, requests: Sequence[slots.Tensors], device: cuda.Cuda, stream: int) -> int:
        """Gather the requests and copy them to the device; there when it returns. Returns their rows.

        Raises:
            ValueError, TypeError: they do not fit. CudaError: the copy failed.
        """
        samples = slots.gather_into(self.host_inputs, requests)
        for name, tensor in self.inputs.items():
            device.to_device(tensor.address, self.host_inputs[name][:samples], stream)
        device.synchronise(stream)
        return samples

    def drain(
        self, samples: int | None, wanted: Iterable[str], device: cuda.Cuda, stream: int
    ) -> dict[str, NDArray[np.generic]]:
        """Return the first rows of the wanted outputs, in memory of their own.

        Args:
            samples: how many rows; None: all there is, from a model without a batch.
            wanted: names of outputs.
            device: whose calls copy.
            stream: on which.

        Raises:
            CudaError: the copy failed.
        """
        staged = {name: self.host_outputs[name][:samples] for name in wanted}
        for name, rows in staged.items():
            device.to_host(rows, self.outputs[name].address, stream)
        device.synchronise(stream)
        return {name: rows.copy() for name, rows in staged.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class Lane:
    """The place of one batch under way. `parity` tells the two lanes of a pipeline apart."""

    parity: int
    buckets: Mapping[int, Bucket]

    def bucket(self, rows: int) -> Bucket:
        """Return the smallest bucket with at least so many rows.

        Raises:
            ValueError: there is none.
        """
        fitting = [known for known in self.buckets if known >= rows]
        if not fitting:
            raise ValueError(f"{rows} rows do not fit into a bucket of {max(self.buckets)}")
        return self.buckets[min(fitting)]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What a pipeline's lanes are made for."""

    buckets: tuple[int, ...]
    """Ascending."""
    has_batch_axis: bool
    uses_graphs: bool

    def zeros(self, loaded: session.Session, rows: int) -> dict[str, NDArray[np.generic]]:
        """Return inputs of so many rows."""
        return rehearsal.zeros(loaded.inputs, rows, has_batch_axis=self.has_batch_axis)

    def graph_id(self, rows: int, parity: int) -> int:
        """Return the CUDA graph's id, different for every bucket and lane; 0, which ONNX Runtime reserves: no graph."""
        return 1 + 2 * self.buckets.index(rows) + parity if self.uses_graphs else 0


def make_lanes(
    loaded: session.Session, plan: Plan, pinned: cuda.PinnedArrays, device: cuda.Cuda, stream: int
) -> list[Lane]:
    """Allocate two lanes. Call on the thread that runs the session: each bucket is run once, for its outputs' shapes.

    Raises:
        ValueError: an output does not follow the batch. Whatever ONNX Runtime and CUDA raise comes through.
    """
    lanes: list[dict[int, Bucket]] = [{}, {}]
    largest = plan.zeros(loaded, plan.buckets[-1])
    staging = {name: pinned.array(rows.shape, rows.dtype) for name, rows in largest.items()}
    for rows in plan.buckets:
        answers = _probe(loaded, plan, rows)
        host_inputs = {name: memory[:rows] if plan.has_batch_axis else memory for name, memory in staging.items()}
        host_outputs = {name: pinned.array(array.shape, array.dtype) for name, array in answers.items()}
        for parity, buckets in enumerate(lanes):
            inputs = {name: loaded.device_tensor(host.shape, host.dtype) for name, host in host_inputs.items()}
            outputs = {name: loaded.device_tensor(host.shape, host.dtype) for name, host in host_outputs.items()}
            for name, host in host_inputs.items():
                device.to_device(inputs[name].address, host, stream)  # zeros: never read what was there before us
            device.synchronise(stream)
            bound = loaded.bind(inputs, outputs, plan.graph_id(rows, parity))
            buckets[rows] = Bucket(rows, host_inputs, inputs, host_outputs, outputs, bound)
    return [Lane(parity, buckets) for parity, buckets in enumerate(lanes)]


def _probe(loaded: session.Session, plan: Plan, rows: int) -> dict[str, NDArray[np.generic]]:
    answers = loaded.run(plan.zeros(loaded, rows), [spec.name for spec in loaded.outputs])
    for name, array in answers.items():
        if plan.has_batch_axis and (array.ndim == 0 or len(array) != rows):
            raise ValueError(f"output {name!r} has shape {list(array.shape)} for a batch of {rows}")
    return answers
