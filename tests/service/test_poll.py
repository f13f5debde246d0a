"""The poll, look by look: real files, real loads, nothing that waits."""

import asyncio
import pathlib
import shutil
from collections.abc import AsyncIterator

import pytest

from service import control, engine, metrics, poll
from service.batching import clock
from service.models import lifecycle, repository, states
from service.runtime import providers, session
from tests.conftest import Exported


class Polled:
    """A repository that is polled by hand."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.healthy: dict[str, bool] = {}
        self.engine = engine.Engine()
        self.metrics = metrics.Metrics()
        self.control = control.Control(self.engine, path, control.Mode.POLL, self.metrics, self._hear)
        self.poll = poll.Poll(self.control, 1.0)

    async def _hear(self, model: str, serves: bool) -> None:
        self.healthy[model] = serves

    async def start(self) -> None:
        loop_clock = clock.LoopClock(asyncio.get_running_loop())
        options = session.Options(providers.choose("cpu"), 1)
        await self.control.start(lifecycle.Loader(options, 100, loop_clock, self.metrics), ())
        await self.poll.look()

    async def index(self) -> dict[tuple[str, str], states.State]:
        return {(entry.name, entry.version): entry.state for entry in await self.control.index(only_ready=False)}

    def served(self) -> list[tuple[str, str]]:
        return [(model.name, model.version) for model in self.engine.models()]


@pytest.fixture
async def polled(exported: Exported, tmp_path: pathlib.Path) -> AsyncIterator[Polled]:
    shutil.copytree(exported.repository / "lenet5", tmp_path / "lenet5")
    (tmp_path / "lenet5/config.pbtxt").write_text("max_batch_size: 2")
    made = Polled(tmp_path)
    await made.start()
    yield made
    await made.control.aclose()
    await made.engine.aclose()


async def test_nothing_changes_nothing(polled: Polled) -> None:
    model = polled.engine.model("lenet5")
    for _ in range(3):
        await polled.poll.look()
    assert polled.engine.model("lenet5") is model


async def test_a_file_that_grows_from_look_to_look_is_not_loaded(polled: Polled) -> None:
    graph = (polled.path / "lenet5/1/model.onnx").read_bytes()
    (polled.path / "lenet5/2").mkdir()
    with (polled.path / "lenet5/2/model.onnx").open("wb") as half:
        for begin in range(0, len(graph), len(graph) // 4):
            half.write(graph[begin : begin + len(graph) // 4])
            half.flush()
            await polled.poll.look()
            assert polled.served() == [("lenet5", "1")]
    assert not polled.metrics.load_failures
    await polled.poll.look()
    assert polled.served() == [("lenet5", "2")]


async def test_a_version_goes_and_the_one_before_serves_again(polled: Polled) -> None:
    shutil.copytree(polled.path / "lenet5/1", polled.path / "lenet5/2")
    await polled.poll.look()
    await polled.poll.look()
    assert polled.served() == [("lenet5", "2")]
    shutil.rmtree(polled.path / "lenet5/2")
    await polled.poll.look()
    assert polled.served() == [("lenet5", "2")]
    await polled.poll.look()
    assert polled.served() == [("lenet5", "1")]
    assert await polled.index() == {("lenet5", "1"): states.State.READY}


async def test_what_cannot_be_loaded_is_tried_again_only_when_it_has_changed(polled: Polled) -> None:
    (polled.path / "lenet5/1/model.onnx").write_bytes(b"no graph")
    for _ in range(4):
        await polled.poll.look()
    assert polled.metrics.load_failures["lenet5"] == 1
    assert polled.served() == [("lenet5", "1")]
    assert polled.healthy == {"lenet5": True}


async def test_a_folder_without_versions_is_waited_for(polled: Polled) -> None:
    (polled.path / "new").mkdir()
    for _ in range(3):
        await polled.poll.look()
    assert polled.metrics.load_failures["new"] == 1
    assert (await polled.index())["new", ""] is states.State.UNAVAILABLE
    shutil.copytree(polled.path / "lenet5/1", polled.path / "new/1")
    await polled.poll.look()
    await polled.poll.look()
    assert ("new", "1") in polled.served()


async def test_a_model_without_any_version_left_serves_no_longer(
    polled: Polled, caplog: pytest.LogCaptureFixture
) -> None:
    """Triton unloads it too. Its folder is still there, so it is still named; a version that comes is loaded."""
    (polled.path / "lenet5/1").rename(polled.path / "lenet5/.1")
    await polled.poll.look()
    assert polled.served() == [("lenet5", "1")]
    for _ in range(3):
        await polled.poll.look()
    assert polled.served() == []
    assert polled.healthy == {"lenet5": False}
    assert await polled.index() == {("lenet5", "1"): states.State.UNAVAILABLE}
    assert not polled.metrics.load_failures
    (polled.path / "lenet5/notes.txt").write_text("a change, and still no version")
    for _ in range(3):
        await polled.poll.look()
    assert polled.metrics.load_failures["lenet5"] == 1
    assert "has no version folder" in caplog.text
    shutil.copytree(polled.path / "lenet5/.1", polled.path / "lenet5/2")
    await polled.poll.look()
    await polled.poll.look()
    assert polled.served() == [("lenet5", "2")]
    assert polled.healthy == {"lenet5": True}


async def test_a_model_that_is_gone_leaves_nothing(polled: Polled) -> None:
    (polled.path / "lenet5").rename(polled.path / ".lenet5")
    await polled.poll.look()
    assert polled.served() == [("lenet5", "1")]
    await polled.poll.look()
    assert polled.served() == []
    assert await polled.index() == {}
    assert polled.control.seen() == {}
    assert polled.healthy == {"lenet5": False}
    assert b"lenet5" not in polled.metrics.exposition()


async def test_what_was_unloaded_by_a_call_stays_so_until_it_changes(polled: Polled) -> None:
    await polled.control.unload("lenet5")
    for _ in range(3):
        await polled.poll.look()
    assert polled.served() == []
    (polled.path / "lenet5/config.pbtxt").write_text("max_batch_size: 4")
    await polled.poll.look()
    await polled.poll.look()
    assert polled.served() == [("lenet5", "1")]


async def test_a_repository_that_cannot_be_read_for_a_while_changes_nothing(
    polled: Polled, caplog: pytest.LogCaptureFixture
) -> None:
    away = polled.path.with_name("away")
    polled.path.rename(away)
    for _ in range(3):
        await polled.poll.look()
    assert polled.served() == [("lenet5", "1")]
    assert "cannot be read" in caplog.text
    away.rename(polled.path)
    await polled.poll.look()
    assert polled.served() == [("lenet5", "1")]


def unreadable(folder: pathlib.Path, way: str) -> None:
    """Put something that cannot be read in the place of a model's folder; by rights alone root could still read it."""
    if way == "a file":
        folder.write_text("no folder")
    elif way == "a link to nothing":
        folder.symlink_to(folder.with_name(".mount-that-is-lost"))
    elif way == "a link to itself":
        folder.symlink_to(folder)
    else:
        assert way == "a graph that is a link to itself"
        (folder / "1").mkdir(parents=True)
        (folder / "1/model.onnx").symlink_to("model.onnx")


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("a file", "Not a directory"),
        ("a link to nothing", "No such file or directory"),
        ("a link to itself", "Too many levels of symbolic links"),
        ("a graph that is a link to itself", "Too many levels of symbolic links"),
    ],
)
async def test_a_model_that_cannot_be_read_for_a_while_goes_on_and_is_followed_again_afterwards(
    polled: Polled, caplog: pytest.LogCaptureFixture, way: str, reason: str
) -> None:
    model, folder, away = polled.engine.model("lenet5"), polled.path / "lenet5", polled.path / ".away"
    (polled.path / "README.md").write_text("a file that never was a model, of which nothing is said")
    folder.rename(away)
    unreadable(folder, way)
    for _ in range(4):
        await polled.poll.look()
    assert polled.engine.model("lenet5") is model
    assert (polled.healthy, await polled.index()) == ({"lenet5": True}, {("lenet5", "1"): states.State.READY})
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert said == [
        f"model lenet5: {folder} cannot be read: {reason}; it stays as it is: put the folder back, or remove it"
    ]
    shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    away.rename(folder)
    for _ in range(3):
        await polled.poll.look()
    assert polled.engine.model("lenet5") is model
    shutil.copytree(folder / "1", folder / "2")
    for _ in range(2):
        await polled.poll.look()
    assert polled.served() == [("lenet5", "2")]


async def test_a_load_goes_on_when_its_caller_goes(polled: Polled) -> None:
    before = polled.engine.model("lenet5")
    (polled.path / "lenet5/config.pbtxt").write_text("max_batch_size: 4")
    caller = asyncio.create_task(polled.control.load("lenet5"))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await polled.control.load("lenet5")  # waits for its turn, and finds nothing to do
    assert polled.engine.model("lenet5") is not before
    assert polled.engine.model("lenet5").config.max_batch_size == 4


async def test_a_reload_goes_on_counting_and_a_drained_one_is_closed(polled: Polled) -> None:
    before = polled.engine.serving("lenet5")["1"]
    before.numbers.codes["OK"] += 1
    (polled.path / "lenet5/config.pbtxt").write_text("max_batch_size: 4")
    await polled.control.load("lenet5")
    after = polled.engine.serving("lenet5")["1"]
    assert after.numbers is before.numbers
    assert len(after.numbers.watched) == 1
    assert before.instances.in_flight == 0
    assert not hasattr(before.instances, "_first")
    assert polled.metrics.exposition().count(b'fovea_requests_total{code="OK",model="lenet5",version="1"}') == 1


def test_a_leading_zero_makes_no_version(tmp_path: pathlib.Path) -> None:
    for name in ("1", "02", "0", "x", "10"):
        (tmp_path / "m" / name).mkdir(parents=True)
    assert sorted(repository.look(tmp_path, "m").versions) == ["1", "10"]
