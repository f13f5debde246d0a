"""Instances: as many batches at once as they say, each with its own rows; every size warm before the first."""

import asyncio
import pathlib
import threading

import numpy as np
import onnx
import pytest

from service import errors
from service.batching import batcher
from service.runtime import cores, cuda, instances, knobs, providers, rehearsal, session, trial
from tests.service.runtime import graphs
from tests.service.runtime.fake_cudart import FakeCudart

CPU = providers.choose("cpu")
BOTH = frozenset({"scores", "features"})


def unheard(done: int, total: int) -> None:
    pass


def load(
    path: pathlib.Path, threads: int = 1, wanted: knobs.Knobs | None = None, device: cuda.Cuda | None = None
) -> instances.Instances:
    return instances.Instances("m", path, session.Options(CPU, threads), wanted, device)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return graphs.convnet(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("threads", "wanted", "expected"),
    [
        (3, knobs.Knobs(), ("1", "3")),
        (1, knobs.Knobs(instances=2), ("2", "1")),
        (1, knobs.Knobs(instances=2, threads=2), ("2", "2")),
        (0, knobs.Knobs(instances=64), ("64", "1")),
        (0, knobs.Knobs(threads=2), ("1", "2")),
    ],
)
def test_what_is_asked_for_is_what_runs(
    path: pathlib.Path, threads: int, wanted: knobs.Knobs, expected: tuple[str, str]
) -> None:
    loaded = load(path, threads, wanted)
    loaded.warm(4, unheard)
    assert (loaded.properties["instances"], loaded.properties["threads"]) == expected
    assert loaded.in_flight == loaded.devices == int(expected[0])
    loaded.close()


def test_without_a_word_the_choice_is_measured_and_logged(path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    loaded = load(path, 0)
    loaded.warm(4, unheard)
    chosen = trial.Candidate(int(loaded.properties["instances"]), int(loaded.properties["threads"]))
    assert chosen in trial.candidates(cores.available())
    (line,) = [record.getMessage() for record in caplog.records if "measured:" in record.getMessage()]
    assert line.startswith(f"model m: {chosen} threads; measured: ")
    assert cores.available() == 1 or all(f"{one} threads" in line for one in trial.candidates(cores.available())[:2])
    loaded.close()


@pytest.mark.parametrize("wanted", [knobs.Knobs(instances=2), knobs.Knobs(instances=2, threads=2)])
async def test_batches_under_way_at_once_keep_their_rows_apart(path: pathlib.Path, wanted: knobs.Knobs) -> None:
    loaded = load(path, 1, wanted)
    loaded.warm(4, unheard)
    alone = session.Session("m", path, session.Options(CPU, 1))

    async def one(seed: int) -> None:
        image = graphs.pixels(3, seed)
        async with places:
            result = await loaded.run_batch([{"image": image[:1]}, {"image": image[1:]}], BOTH, 3)
        for name, array in alone.run({"image": image}, BOTH).items():
            np.testing.assert_allclose(result.outputs[name], array, rtol=1e-5, atol=1e-6)

    places = asyncio.Semaphore(loaded.in_flight)
    await asyncio.gather(*(one(seed) for seed in range(20)))
    loaded.close()


async def test_a_short_run_stays_on_the_event_loop_and_a_long_one_leaves_it(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    class Watched(session.Session):
        def run(self, inputs, outputs):  # type: ignore[no-untyped-def]  # as Session.run
            threads.append(threading.current_thread())
            return super().run(inputs, outputs)

    monkeypatch.setattr(session, "Session", Watched)
    for limit_s, stays in ((60.0, True), (0.0, False)):
        monkeypatch.setattr(instances, "HERE_S", limit_s)
        loaded = load(path)
        loaded.warm(2, unheard)
        threads.clear()
        await loaded.run_batch([{"image": graphs.pixels(1)}], BOTH, 1)
        assert [thread is threading.current_thread() for thread in threads] == [stays]
        assert loaded.rows_here == (2 if stays else 0)
        loaded.close()


async def test_outputs_never_share_memory_with_inputs_that_are_reused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instances, "HERE_S", 60.0)
    loaded = load(graphs.one_node(tmp_path / "m.onnx", "Identity", ["n", 4]))
    loaded.warm(2, unheard)
    first = await loaded.run_batch([{"x": np.full((1, 4), value, np.float32)} for value in (1, 2)], frozenset("y"), 2)
    await loaded.run_batch([{"x": np.full((1, 4), value, np.float32)} for value in (8, 9)], frozenset("y"), 2)
    assert first.outputs["y"][:, 0].tolist() == [1, 2]
    loaded.close()


async def test_a_batch_that_raises_leaves_the_others_and_the_threads_alone(path: pathlib.Path) -> None:
    loaded = load(path, 2)  # two threads of a run: never on the event loop
    loaded.warm(2, unheard)
    for _ in range(3):
        with pytest.raises(Exception, match="invalid dimensions for input: image"):
            await loaded.run_batch([{"image": graphs.pixels(1)[:, :, :, :2]}], BOTH, 1)
    result = await loaded.run_batch([{"image": graphs.pixels(1)}], BOTH, 1)
    assert isinstance(result, batcher.BatchResult)
    loaded.close()


def test_every_size_is_run_timed_and_reported(path: pathlib.Path) -> None:
    loaded = load(path)
    heard: list[tuple[int, int]] = []
    measured = loaded.warm(6, lambda done, total: heard.append((done, total)))
    assert (loaded.buckets, tuple(measured.seconds), measured.pads) == ((1, 2, 4, 6), (1, 2, 4, 6), False)
    assert all(run_s > 0 for run_s in measured.seconds.values())
    assert heard == [(1, 4), (2, 4), (3, 4), (4, 4)]
    loaded.close()


def test_images_of_any_size_cannot_be_measured_but_run(tmp_path: pathlib.Path) -> None:
    loaded = load(graphs.convnet(tmp_path / "m.onnx", side="s"), 0)
    measured = loaded.warm(4, unheard)
    assert (dict(measured.seconds), measured.pads, loaded.buckets) == ({}, False, ())
    assert loaded.run({"image": graphs.pixels(2)}, ["scores"])["scores"].shape == (2, graphs.CLASSES)
    loaded.close()


async def test_a_model_without_a_batch_axis_runs_as_it_is(tmp_path: pathlib.Path) -> None:
    loaded = load(graphs.convnet(tmp_path / "m.onnx", batch=3))
    measured = loaded.warm(0, unheard)
    assert tuple(measured.seconds) == (1,)
    result = await loaded.run_batch([{"image": graphs.pixels(3)}], BOTH, 3)
    assert result.outputs["scores"].shape == (3, graphs.CLASSES)
    loaded.close()


def test_a_size_that_does_not_run_is_told_at_load(tmp_path: pathlib.Path) -> None:
    loaded = load(graphs.one_row_only(tmp_path / "m.onnx"))
    with pytest.raises(errors.ModelLoadError, match="its first run, with 2 rows, failed"):
        loaded.warm(2, unheard)
    loaded.close()


async def test_on_a_device_batches_are_padded_to_buckets(path: pathlib.Path) -> None:
    library = FakeCudart()
    loaded = load(path, 1, knobs.Knobs(preferred_rows=(3,)), cuda.Cuda(library))
    measured = loaded.warm(5, unheard)
    assert (measured.pads, tuple(measured.seconds), loaded.in_flight) == (True, (1, 3, 5), 2)
    alone = session.Session("m", path, session.Options(CPU, 1))
    for rows, bucket in ((2, 3), (4, 5), (5, 5)):
        image = graphs.pixels(rows, rows)
        got = (await loaded.run_batch([{"image": image}], BOTH, bucket)).outputs["scores"]
        np.testing.assert_allclose(got, alone.run({"image": image}, BOTH)["scores"], rtol=1e-5, atol=1e-6)
    loaded.close()
    assert not library.memory


async def test_two_pipelines_share_the_work(path: pathlib.Path) -> None:
    loaded = load(path, 1, knobs.Knobs(instances=2), cuda.Cuda(FakeCudart()))
    loaded.warm(2, unheard)
    assert (loaded.in_flight, loaded.devices) == (4, 2)
    results = [loaded.run_batch([{"image": graphs.pixels(2, seed)}], BOTH, 2) for seed in range(4)]
    assert [len(result.outputs["scores"]) for result in await asyncio.gather(*results)] == [2, 2, 2, 2]
    loaded.close()


@pytest.mark.parametrize(
    ("rows_max", "preferred", "expected"),
    [
        (1, (), (1,)),
        (8, (), (1, 2, 4, 8)),
        (6, (), (1, 2, 4, 6)),
        (32, (8, 16), (1, 8, 16, 32)),
        (8, (4, 64), (1, 4, 8)),
    ],
)
def test_buckets(rows_max: int, preferred: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert rehearsal.buckets(rows_max, preferred) == expected


def test_long_runs_are_foreseen_from_the_sizes_before() -> None:
    assert not rehearsal.is_too_long(64, {})
    assert not rehearsal.is_too_long(16, {8: 0.9})
    assert rehearsal.is_too_long(64, {8: 0.9})


def test_the_same_network_with_other_weights_takes_over_what_was_measured(tmp_path: pathlib.Path) -> None:
    before = load(graphs.convnet(tmp_path / "m.onnx"), 0, knobs.Knobs(instances=3, threads=2))
    model = onnx.load(tmp_path / "m.onnx")
    for tensor in model.graph.initializer:
        if tensor.raw_data and tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.raw_data = tensor.raw_data[::-1]
    onnx.save(model, tmp_path / "other.onnx")
    options = session.Options(CPU, 0)
    after = instances.Instances("m", tmp_path / "other.onnx", options, before=before)
    assert after.layout == trial.Candidate(3, 2)
    said = instances.Instances("m", tmp_path / "other.onnx", options, knobs.Knobs(instances=1), before=before)
    assert said.layout.instances == 1


@pytest.mark.parametrize("change", ["one node more", "another shape"])
def test_another_network_is_measured_anew_however_large(tmp_path: pathlib.Path, change: str) -> None:
    """Its file may have as many bytes as the one before."""
    before = load(graphs.convnet(tmp_path / "m.onnx"), 0, knobs.Knobs(instances=3, threads=2))
    if change == "another shape":
        graphs.convnet(tmp_path / "other.onnx", side=graphs.SIDE * 2)
    else:
        model = onnx.load(tmp_path / "m.onnx")
        last = next(node for node in model.graph.node if model.graph.output[0].name in node.output)
        last.output[list(last.output).index(model.graph.output[0].name)] = "before"
        model.graph.node.append(onnx.helper.make_node("Selu", ["before"], [model.graph.output[0].name]))
        onnx.save(model, tmp_path / "other.onnx")
    after = instances.Instances("m", tmp_path / "other.onnx", session.Options(CPU, 0), before=before)
    assert after.layout == trial.Candidate(1, cores.available())
    after.warm(2, unheard)
    assert after.layout in trial.candidates(cores.available())
    after.close()
