"""The mark of this folder's tests, and how they load a graph on CUDA and on the CPU beside it."""

import pathlib
from collections.abc import Sequence

import numpy as np
import pytest

from service.batching import slots
from service.runtime import instances, knobs, providers, session

MISSING = providers._missing_for_cuda()
PYTESTMARK = [pytest.mark.gpu, pytest.mark.skipif(MISSING is not None, reason=f"NOT RUN on CUDA: {MISSING}")]
ALL = frozenset({"scores", "features"})


def options(**overrides: str) -> session.Options:
    """Fovea's own options for CUDA, with some changed."""
    chosen = providers.choose("cuda")
    return session.Options(providers.Provider(chosen.name, {**chosen.options, **overrides}, chosen.reason), 1)


def on_cuda(
    path: pathlib.Path, rows_max: int, wanted: knobs.Knobs | None = None, **overrides: str
) -> instances.Instances:
    """A warm model."""
    wanted = wanted or knobs.Knobs()
    loaded = instances.Instances(
        "m", path, options(enable_cuda_graph=str(int(wanted.cuda_graphs)), **overrides), wanted
    )
    loaded.warm(rows_max, lambda done, total: None)
    return loaded


def on_cpu(path: pathlib.Path, inputs: slots.Tensors) -> dict[str, np.ndarray]:
    """What the CPU provider says."""
    return session.Session("m", path, session.Options(providers.choose("cpu"), 1)).run(inputs, ALL)


def assert_close(got: slots.Tensors, wanted: slots.Tensors, relative: float, names: Sequence[str] = tuple(ALL)) -> None:
    """Compare as goldens are compared: relative to the largest value."""
    for name in names:
        scale = max(1.0, float(np.abs(wanted[name]).max()))
        assert got[name].shape == wanted[name].shape
        assert float(np.abs(got[name] - wanted[name]).max()) / scale <= relative, name
