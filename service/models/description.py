"""What the edge has to know of a model to check requests and to describe it; plain data.

Path: lifecycle → **description** → engine → wire.
"""

import dataclasses

from protos import model_config_pb2
from service import datatypes
from service.images import decode


@dataclasses.dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Description:
    """A served model. Tensor specs have the batch dimension, -1, where `is_batched`.

    Equal only to itself: a model that is loaded again is another one.
    """

    name: str
    version: str
    config: model_config_pb2.ModelConfig
    inputs: dict[str, datatypes.TensorSpec]
    outputs: dict[str, datatypes.TensorSpec]
    labels: dict[str, list[str]]
    image: decode.ImageSpec | None
    properties: dict[str, str]

    @property
    def is_batched(self) -> bool:
        """Whether the tensors' first dimension is the batch."""
        return self.config.max_batch_size > 0
