"""Goldens are replayed in every way that requests will run: alone, together, repeated, beside padding."""

import pathlib
from collections.abc import Iterator

import numpy as np
import pytest

from protos import manifest_pb2
from service import errors
from service.batching import slots
from service.models import goldens
from service.runtime import cuda, instances, providers, session
from tests.service.runtime import graphs
from tests.service.runtime.fake_cudart import FakeCudart

ROWS = 3
MANIFEST = manifest_pb2.Manifest(tolerances=[manifest_pb2.Tolerance(provider=providers.CPU, relative=1e-4)])


class Watched(instances.Instances):
    """Remembers the rows that it was given, and those that it ran; changes an answer, if it has been told."""

    def __init__(self, path: pathlib.Path, device: cuda.Cuda | None = None) -> None:
        super().__init__("m", path, session.Options(providers.choose("cpu"), 1), None, device)
        self.ran: list[tuple[int, int]] = []
        self.wrong_at: int | None = None
        self.error = 0.01

    def run(self, inputs: slots.Tensors, outputs, rows: int = 0):  # type: ignore[no-untyped-def]  # as Instances.run
        self.ran.append((len(inputs["image"]), rows))
        answers = super().run(inputs, outputs, rows)
        if self.wrong_at == len(inputs["image"]):
            answers["scores"] = answers["scores"].copy()
            answers["scores"][-1, 0] += self.error
        return answers


def write(folder: pathlib.Path, loaded: instances.Instances) -> None:
    image = graphs.pixels(ROWS)
    outputs = loaded.run({"image": image}, ["scores", "features"])
    np.savez(
        folder / "golden.npz", **{"input.image": image, **{f"output.{name}": rows for name, rows in outputs.items()}}
    )


@pytest.fixture
def loaded(tmp_path: pathlib.Path) -> Iterator[Watched]:
    made = Watched(graphs.convnet(tmp_path / "m.onnx"))
    made.warm(8, lambda done, total: None)
    write(tmp_path, made)
    made.ran.clear()
    yield made
    made.close()


def replay(folder: pathlib.Path, loaded: instances.Instances) -> goldens.Replay | None:
    return goldens.replay("m", folder, MANIFEST, loaded, providers.CPU)


def test_on_the_cpu_alone_together_and_at_the_largest_size(tmp_path: pathlib.Path, loaded: Watched) -> None:
    replayed = replay(tmp_path, loaded)
    assert replayed is not None
    assert (replayed.rows, replayed.runs) == (ROWS, 5)
    assert replayed.worst <= replayed.tolerance
    assert loaded.ran == [(1, 0), (1, 0), (1, 0), (3, 0), (8, 0)]


def test_where_batches_are_padded_every_bucket_full_and_beside_padding(tmp_path: pathlib.Path) -> None:
    made = Watched(graphs.convnet(tmp_path / "m.onnx"), cuda.Cuda(FakeCudart()))
    made.warm(8, lambda done, total: None)
    write(tmp_path, made)
    made.ran.clear()
    replayed = replay(tmp_path, made)
    assert replayed is not None
    assert made.ran[3:] == [(1, 1), (2, 2), (4, 4), (3, 4), (8, 8), (5, 8)]
    made.close()


@pytest.mark.parametrize("rows", [1, ROWS, 8])
def test_a_wrong_number_in_any_of_the_runs_keeps_the_model_out(
    tmp_path: pathlib.Path, loaded: Watched, rows: int
) -> None:
    loaded.wrong_at = rows
    with pytest.raises(errors.ModelLoadError, match=r"'scores' is off by .*, allowed 0\.0001"):
        replay(tmp_path, loaded)


def test_another_class_is_told_as_such(tmp_path: pathlib.Path, loaded: Watched) -> None:
    loaded.wrong_at, loaded.error = ROWS, 1000.0
    with pytest.raises(errors.ModelLoadError, match="output 'scores' names other classes"):
        replay(tmp_path, loaded)


def test_a_close_call_between_classes_may_go_either_way() -> None:
    check = goldens._Check("m", providers.CPU, 0.1)
    check.compare("scores", np.array([[0.95, 1.0]], np.float32), np.array([[1.0, 0.95]], np.float32))
    assert check.worst == pytest.approx(0.05)


def test_a_number_that_is_none_is_off(tmp_path: pathlib.Path, loaded: Watched) -> None:
    loaded.wrong_at, loaded.error = ROWS, float("nan")
    with pytest.raises(errors.ModelLoadError, match="not reproduced"):
        replay(tmp_path, loaded)


def test_no_tolerance_for_this_provider_is_an_error(tmp_path: pathlib.Path, loaded: Watched) -> None:
    with pytest.raises(errors.ModelLoadError, match="gives no tolerance for CUDAExecutionProvider"):
        goldens.replay("m", tmp_path, MANIFEST, loaded, providers.CUDA)
