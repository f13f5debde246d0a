"""The pipeline of copies and runs, on real sessions of the CPU; only libcudart is made of plain memory."""

import pathlib
import threading
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from service import errors
from service.runtime import buffers, cuda, handover, pipeline, providers, session
from tests.service.runtime import graphs
from tests.service.runtime.fake_cudart import FakeCudart

OPTIONS = session.Options(providers.choose("cpu"), 1)
BUCKETS = (1, 2, 4)
BOTH = frozenset({"scores", "features"})


class GatedBound(session.Bound):
    """A run that begins when the test says so."""

    def __init__(self, inner: session.Bound, started: threading.Event, gate: threading.Event) -> None:
        self._inner, self._started, self._gate = inner, started, gate

    def run(self) -> None:
        self._started.set()
        assert self._gate.wait(10)
        self._inner.run()


class GatedSession(session.Session):
    """A session whose bound runs wait for the gate."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__("m", path, OPTIONS)
        self.started, self.gate, self.graph_ids = threading.Event(), threading.Event(), list[int]()

    def bind(
        self,
        inputs: Mapping[str, session.DeviceTensor],
        outputs: Mapping[str, session.DeviceTensor],
        graph_id: int = 0,
    ) -> session.Bound:
        self.graph_ids.append(graph_id)
        return GatedBound(super().bind(inputs, outputs), self.started, self.gate)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return graphs.convnet(tmp_path / "m.onnx")


@pytest.fixture
def library() -> FakeCudart:
    return FakeCudart()


@pytest.fixture
def loaded(path: pathlib.Path) -> session.Session:
    return session.Session("m", path, OPTIONS)


def started(loaded: session.Session, library: FakeCudart, *, uses_graphs: bool = False) -> pipeline.Pipeline:
    made = pipeline.Pipeline("m", loaded, cuda.Cuda(library), buffers.Plan(BUCKETS, True, uses_graphs))
    made.start()
    return made


@pytest.fixture
def running(loaded: session.Session, library: FakeCudart) -> Iterator[pipeline.Pipeline]:
    made = started(loaded, library)
    yield made
    made.close()


def send(
    to: pipeline.Pipeline, *parts: np.ndarray, rows: int = 0, wanted: frozenset[str] = BOTH
) -> handover.ThreadReply:
    reply = handover.ThreadReply()
    rows = rows or sum(len(part) for part in parts)
    to.submit(handover.Job([{"image": part} for part in parts], wanted, rows, reply))
    return reply


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_answers_are_the_session_s_for_every_bucket_and_beside_padding(
    running: pipeline.Pipeline, loaded: session.Session, rows: int
) -> None:
    for seed in range(4):  # both lanes, with the bytes of others in their memory
        image = graphs.pixels(rows, seed)
        outputs = (
            send(running, *(image[row : row + 1] for row in range(rows)), rows=4 if seed % 2 else 0).result().outputs
        )
        wanted = loaded.run({"image": image}, BOTH)
        assert {name: array.shape for name, array in outputs.items()} == {
            name: array.shape for name, array in wanted.items()
        }
        for name, array in wanted.items():
            np.testing.assert_allclose(outputs[name], array, rtol=1e-5, atol=1e-6)


def test_the_next_batch_is_on_the_device_while_this_one_runs(path: pathlib.Path, library: FakeCudart) -> None:
    gated = GatedSession(path)
    running = started(gated, library)
    copied = library.to_device
    images = [graphs.pixels(2, seed) for seed in (1, 2)]
    first = send(running, images[0])
    assert gated.started.wait(10)
    second = send(running, images[1])
    library.wait_for_copies_to_device(copied + 2)  # before the first run may end
    gated.gate.set()
    for image, reply in zip(images, (first, second), strict=True):
        wanted = gated.run({"image": image}, ["scores"])["scores"]
        np.testing.assert_allclose(reply.result().outputs["scores"], wanted, rtol=1e-5, atol=1e-6)
    running.close()


def test_an_answer_is_not_changed_by_later_batches(running: pipeline.Pipeline) -> None:
    scores = send(running, graphs.pixels(4, 1)).result().outputs["scores"]
    before = scores.copy()
    for seed in range(2, 6):
        send(running, graphs.pixels(4, seed)).result()
    assert np.array_equal(scores, before)


def test_only_wanted_outputs_come_back(running: pipeline.Pipeline) -> None:
    assert send(running, graphs.pixels(1), wanted=frozenset({"scores"})).result().outputs.keys() == {"scores"}


def test_more_batches_than_lanes_is_an_error(path: pathlib.Path, library: FakeCudart) -> None:
    gated = GatedSession(path)
    running = started(gated, library)
    replies = [send(running, graphs.pixels(1)) for _ in range(running.in_flight)]
    with pytest.raises(RuntimeError, match="more than 2 batches"):
        send(running, graphs.pixels(1))
    gated.gate.set()
    for reply in replies:
        reply.result()
    running.close()


@pytest.mark.parametrize("call", ["cudaMemcpyAsync", "cudaStreamSynchronize"])
def test_a_failed_copy_fails_its_batch_only(running: pipeline.Pipeline, library: FakeCudart, call: str) -> None:
    for _ in range(3):  # no lane is lost
        library.fail_next = {call}
        with pytest.raises(cuda.CudaError, match=call):
            send(running, graphs.pixels(1)).result()
    assert send(running, graphs.pixels(1)).result().outputs


def test_a_failed_copy_back_fails_its_batch_only(path: pathlib.Path, library: FakeCudart) -> None:
    gated = GatedSession(path)
    running = started(gated, library)
    reply = send(running, graphs.pixels(1))
    assert gated.started.wait(10)
    library.fail_next = {"cudaStreamSynchronize"}
    gated.gate.set()
    with pytest.raises(cuda.CudaError):
        reply.result()
    assert send(running, graphs.pixels(1)).result().outputs
    running.close()


def test_a_batch_that_does_not_fit_fails_alone(running: pipeline.Pipeline) -> None:
    with pytest.raises(ValueError, match="5 rows do not fit into a bucket of 4"):
        send(running, graphs.pixels(5))
    with pytest.raises(ValueError, match="array"):
        send(running, graphs.pixels(1)[:, :8]).result()
    with pytest.raises(ValueError, match="array"):
        send(running, graphs.pixels(4), rows=2).result()
    assert send(running, graphs.pixels(4)).result().outputs["scores"].shape == (4, graphs.CLASSES)


def test_closing_answers_what_was_taken_and_frees_everything(path: pathlib.Path, library: FakeCudart) -> None:
    gated = GatedSession(path)
    running = started(gated, library)
    replies = [send(running, graphs.pixels(1)) for _ in range(2)]
    closing = threading.Thread(target=running.close)
    closing.start()
    gated.gate.set()
    assert all(reply.result().outputs for reply in replies)
    closing.join(10)
    assert not closing.is_alive()
    assert (library.memory, library.streams) == ({}, set())
    running.close()  # again: nothing


def test_every_bucket_and_lane_has_a_graph_of_its_own(path: pathlib.Path, library: FakeCudart) -> None:
    gated = GatedSession(path)
    running = started(gated, library, uses_graphs=True)
    assert sorted(gated.graph_ids) == [1, 2, 3, 4, 5, 6]  # 0 is ONNX Runtime's
    running.close()


def test_a_device_without_room_is_told_at_load_and_keeps_nothing(loaded: session.Session, library: FakeCudart) -> None:
    library.fail_next = {"cudaHostAlloc"}
    with pytest.raises(errors.ModelLoadError, match=r"buffers cannot be made: cudaHostAlloc failed.*it broke"):
        started(loaded, library)
    assert not library.memory
    assert not library.streams


def test_an_output_that_does_not_follow_the_batch_is_told_at_load(tmp_path: pathlib.Path, library: FakeCudart) -> None:
    path = graphs.one_node(tmp_path / "m.onnx", "ReduceSum", [1, 1], keepdims=1)
    with pytest.raises(errors.ModelLoadError, match=r"output 'y' has shape \[1, 1\] for a batch of 2"):
        started(session.Session("m", path, OPTIONS), library)
