"""The reused memory that batches are gathered in.

Path: batcher → **slots** → session. Later the memory comes pinned, from the device's allocator.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[np.generic]]


class Slot:
    """Room for one batch of a model's inputs.

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
