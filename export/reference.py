"""What a graph must compute, written as the definition says: what `verify` compares with.

Path: tapped, imported → **reference** → verify.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from export import errors, preprocessing, runtime, signature, tapped

ROWS_AT_ONCE = 8
"""So that float64 feature maps of a deep network fit into memory at any batch size."""


class Reference(Protocol):
    """Computes outputs from a graph's inputs."""

    has_float64: bool
    is_by_row: bool
    """Whether a row's outputs do not depend on its neighbours, so that each has to be computed only once."""

    def run(self, inputs: runtime.Arrays, dtype: type[np.floating[Any]]) -> dict[str, NDArray[Any]]:
        """Return name → output, computed in float32 or float64."""

    def before(self) -> tuple[str, Callable[[runtime.Arrays], object]]:
        """Return how one would compute it without the export: a name, and a call to time."""


class TorchReference:
    """The network in PyTorch behind (pixel / 255 - mean) / std."""

    has_float64 = True
    is_by_row = True

    def __init__(
        self,
        network: nn.Module,
        outputs: Sequence[str],
        taps: dict[str, str],
        normalisation: preprocessing.Preprocessing,
        layout: str,
    ) -> None:
        """Take what the graph was made of.

        Args:
            network: in eval mode; left as it is.
            outputs: names of what it returns, in order.
            taps: stage → path of the feature maps that are wanted.
            normalisation: mean, std, transform_input.
            layout: of the graph's input, `signature.UINT8_NHWC` or `signature.FLOAT32_NCHW`.
        """
        self._network = network
        self._names = [*outputs, *(signature.FEATURES + tap for tap in taps)]
        self._taps = taps
        self._normalisation = normalisation
        self._layout = layout

    def run(self, inputs: runtime.Arrays, dtype: type[np.floating[Any]]) -> dict[str, NDArray[Any]]:
        """Return name → output; a few rows at a time."""
        (images,) = inputs.values()
        torch_dtype = torch.float64 if dtype is np.float64 else torch.float32
        network = tapped.Tapped(copy.deepcopy(self._network).to(torch_dtype), self._taps)
        parts = [
            self._run_some(network, torch.from_numpy(images[first : first + ROWS_AT_ONCE]), torch_dtype)
            for first in range(0, len(images), ROWS_AT_ONCE)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def before(self) -> tuple[str, Callable[[runtime.Arrays], object]]:
        """Return PyTorch's own way, normalisation included."""

        def run(inputs: runtime.Arrays) -> object:
            (images,) = inputs.values()
            with torch.inference_mode():
                return self._network(self._normalised(torch.from_numpy(images), torch.float32))

        return "PyTorch eager", run

    def _run_some(self, network: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> dict[str, NDArray[Any]]:
        with torch.inference_mode():
            tensors = dict(zip(self._names, network(self._normalised(images, dtype)), strict=True))
            if signature.LOGITS in tensors and tensors[signature.LOGITS].is_floating_point():
                tensors[signature.PROBABILITIES] = torch.softmax(tensors[signature.LOGITS], 1)
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    def _normalised(self, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        def per_channel(values: Sequence[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=dtype).reshape(1, -1, 1, 1)

        chosen = self._normalisation
        images_nchw = images.to(dtype)
        if self._layout == signature.UINT8_NHWC:
            pixels_nchw = images_nchw.permute(0, 3, 1, 2) / preprocessing.PIXEL_MAX
            images_nchw = (pixels_nchw - per_channel(chosen.mean)) / per_channel(chosen.std)
        if chosen.transform_input:
            gain, shift = (
                per_channel(preprocessing.IMAGENET_STD) / 0.5,
                (per_channel(preprocessing.IMAGENET_MEAN) - 0.5) / 0.5,
            )
            images_nchw = images_nchw * gain + shift
        return images_nchw.contiguous()


class GraphReference:
    """A graph that came as an .onnx file, run node by node as it was written: there is no float64 of it."""

    has_float64 = False
    is_by_row = False

    def __init__(self, model: onnx.ModelProto, normalisation: preprocessing.Preprocessing | None = None) -> None:
        """Load the graph as it was; `normalisation` is what was put before it since, for pixels."""
        self._model = model
        self._session = runtime.Session(model, optimize=False)
        self._normalisation = normalisation

    def run(self, inputs: runtime.Arrays, dtype: type[np.floating[Any]]) -> dict[str, NDArray[Any]]:
        """Return name → output, in the types of the graph."""
        try:
            outputs = self._session.run(self._as_it_takes(inputs))
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this
            reason = str(error).partition("\n")[0]
            raise errors.UnsupportedNetwork(
                f"the graph cannot be run as it is on the inputs that it is checked with: {reason}"
            ) from error
        if signature.LOGITS in outputs:
            shifted = outputs[signature.LOGITS].astype(np.float64)
            shares = np.exp(shifted - shifted.max(1, keepdims=True))
            outputs[signature.PROBABILITIES] = (shares / shares.sum(1, keepdims=True)).astype(np.float32)
        return outputs

    def before(self) -> tuple[str, Callable[[runtime.Arrays], object]]:
        """Return the file as it was, optimised by ONNX Runtime as ours is."""
        session = runtime.Session(self._model)
        return "the file as it was", lambda inputs: session.run(self._as_it_takes(inputs))

    def _as_it_takes(self, inputs: runtime.Arrays) -> runtime.Arrays:
        if self._normalisation is None:
            return inputs
        (pixels_nhwc,) = inputs.values()
        return {signature.INPUT: self._normalisation.normalised(pixels_nhwc)}
