"""The reused memory that batches are gathered in.

Path: batcher → **slots** → session. The memory is the caller's: plain here, page-locked for a GPU.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[np.generic]]


class Slot:
    """Room for one batch of a model's inputs, in plain memory.

    Mutable state: `_memory`, grown to the largest batch seen; touched only by the run that has the slot.
    """

    def __init__(self) -> None:
        self._memory: dict[str, NDArray[np.generic]] = {}

    def gather(self, requests: Sequence[Tensors]) -> Tensors:
        """Return the inputs of all requests behind one another along axis 0.

        One request alone is returned as it is, uncopied. The result is valid until the next call.

        Args:
            requests: at least one; name → (n, ...), equal dtypes and equal shapes but for n.
        """
        if len(requests) == 1:
            return requests[0]
        return {name: self._gather_one(name, [request[name] for request in requests]) for name in requests[0]}

    def _gather_one(self, name: str, parts: list[NDArray[np.generic]]) -> NDArray[np.generic]:
        samples = sum(len(part) for part in parts)
        memory = self._memory.get(name)
        if memory is None or len(memory) < samples or memory.shape[1:] != parts[0].shape[1:]:
            memory = self._memory[name] = np.empty((samples, *parts[0].shape[1:]), parts[0].dtype)
        return np.concatenate(parts, out=memory[:samples])


def gather_into(memory: Tensors, requests: Sequence[Tensors]) -> int:
    """Copy the inputs of all requests behind one another into the first rows of `memory`.

    Args:
        memory: name → (rows, ...), for every input.
        requests: at least one; name → (n, ...), together not more than `rows`.

    Returns:
        The rows written.
    """
    samples = 0
    for name, rows in memory.items():
        parts = [request[name] for request in requests]
        samples = sum(len(part) for part in parts)
        np.concatenate(parts, out=rows[:samples], casting="no")
    return samples
