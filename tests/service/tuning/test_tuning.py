"""`fovea tune`: what it tries, what it keeps, what it writes."""

import pathlib
import shutil
import subprocess
import time
from typing import Any

import pytest
from google.protobuf import text_format

from protos import model_config_pb2
from service import tune_cli
from service.models.repository import scan as repository_of
from service.runtime import cores, providers, session
from service.runtime import trial as trial_of_layouts
from service.tuning import candidates, drive, search, trials
from tests.conftest import FOVEA, Exported

CONFIG = candidates.Config(name="m", max_batch_size=16)


def trial(name: str, rate: float, alone_s: float) -> trials.Trial:
    point = drive.Point(4, rate, alone_s, alone_s)
    return trials.Trial(candidates.Candidate(name, CONFIG), point, point, run_s=alone_s)


def tune(repository: pathlib.Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [FOVEA, "tune", *arguments, "--repository", str(repository), "--device", "cpu"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def repository(exported: Exported, tmp_path: pathlib.Path) -> pathlib.Path:
    shutil.copytree(exported.repository, tmp_path / "models")
    return tmp_path / "models"


def test_layouts_use_all_cores_from_one_instance_to_one_thread_each() -> None:
    names = [name for name, _ in candidates.layouts(6)]
    assert names == ["1 x 6 threads", "2 x 3 threads", "4 x 1 threads", "6 x 1 threads"]


def test_an_edit_changes_its_field_and_keeps_the_rest_and_the_start() -> None:
    start = candidates.Candidate("as it is", CONFIG)
    name, edit = candidates.layouts(4)[1]
    made = candidates.edited(start, name, edit)
    assert made.name == "2 x 2 threads"
    assert (made.config.instance_group[0].count, made.config.max_batch_size) == (2, 16)
    assert made.config.parameters["intra_op_thread_count"].string_value == "2"
    assert not start.config.instance_group
    again = candidates.edited(made, *candidates.delays(0.02, 0)[0])
    assert again.name == "2 x 2 threads, delay 5000 µs"
    assert again.config.dynamic_batching.max_queue_delay_microseconds == 5000


def test_cuda_options_go_into_one_accelerator() -> None:
    made = candidates.Candidate("as it is", CONFIG)
    for dimension in candidates.cuda_options():
        made = candidates.edited(made, *dimension[0])
    (accelerator,) = made.config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "cuda"
    assert set(accelerator.parameters) == {"cudnn_conv_algo_search", "prefer_nhwc", "cudnn_conv_use_max_workspace"}
    assert made.config.optimization.cuda.graphs


def test_buckets_always_have_one_and_the_largest_batch() -> None:
    for _, edit in candidates.buckets(48):
        made = candidates.Config(max_batch_size=48)
        edit(made)
        sizes = list(made.dynamic_batching.preferred_batch_size)
        assert sizes == sorted(sizes)
        assert (sizes[0], sizes[-1]) == (1, 48)


@pytest.mark.parametrize(
    ("rate", "alone_s", "wins"),
    [(110, 0.02, True), (101, 0.02, False), (99, 0.005, True), (90, 0.005, False), (99, 0.0099, False)],
)
def test_throughput_decides_and_among_equals_the_latency_of_a_lone_caller(
    rate: float, alone_s: float, wins: bool
) -> None:
    assert search._is_better(trial("new", rate, alone_s), trial("old", 100, 0.01)) is wins


def found(*tried: trials.Trial, duel: search.Duel | None = None, skipped: list[str] | None = None) -> search.Found:
    return search.Found(list(tried), {}, skipped or [], tried[0].candidate, 77.0, duel)


@pytest.mark.parametrize(("ratio", "is_won"), [(0.9, False), (1.1, True)])
def test_both_sides_of_a_duel_are_drawn_by_their_names_whoever_wins(ratio: float, is_won: bool) -> None:
    default, challenger = [drive.Point(1, 100, 0.01, 0.02)], [drive.Point(1, 100 * ratio, 0.01, 0.02)]
    measured = found(trial("as it is", 100, 0.01), duel=search.Duel("2 x 1 threads", default, challenger, ratio))
    assert measured.curves == {"as it is": default, "2 x 1 threads": challenger}
    assert ("winner: 2 x 1 threads" in tune_cli.verdict(measured)) is is_won
    assert ("the configuration as it is stays" in tune_cli.verdict(measured)) is not is_won


def test_without_a_duel_the_curve_is_that_of_the_configuration_as_it_is() -> None:
    only = trial("as it is", 100, 0.01)
    assert found(only).curves == {"as it is": (only.alone, only.full)}


@pytest.mark.parametrize(
    ("configured_us", "names"),
    [
        (0, ["delay 5000 µs", "delay 20000 µs"]),
        (5000, ["no delay", "delay 20000 µs"]),
        (7000, ["no delay", "delay 5000 µs", "delay 20000 µs"]),
    ],
)
def test_a_model_can_lose_its_delay(configured_us: int, names: list[str]) -> None:
    tried = candidates.delays(0.02, configured_us)
    assert [name for name, _ in tried] == names
    if configured_us:
        config = candidates.Config()
        config.dynamic_batching.max_queue_delay_microseconds = configured_us
        made = candidates.edited(candidates.Candidate("as it is", config), *tried[0])
        assert made.config.dynamic_batching.max_queue_delay_microseconds == 0


async def test_a_run_is_measured_without_the_configured_delay(repository: pathlib.Path) -> None:
    config = candidates.Config(max_batch_size=16)
    config.dynamic_batching.max_queue_delay_microseconds = 200_000
    (folder,) = [one for one in repository_of(repository) if one.name == "lenet5"]
    options = session.Options(providers.choose("cpu"), 1)
    candidate = candidates.Candidate("as it is", config)
    async with trials.loaded(folder, candidate, options) as served:
        measured = await trials.measure(served, candidate, 1.0)
    assert measured.alone.p50_s >= 0.2
    assert 0 < measured.run_s < 0.1


async def test_what_a_later_load_takes_is_reserved_without_the_trial_of_layouts(
    repository: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "available", lambda: 2)  # a machine with one core tries no layouts
    choose = trial_of_layouts.choose

    def slowly(*arguments: Any) -> trial_of_layouts.Outcome:
        time.sleep(3.0)  # a model whose runs are long
        return choose(*arguments)

    monkeypatch.setattr(trial_of_layouts, "choose", slowly)
    (folder,) = [one for one in repository_of(repository) if one.name == "lenet5"]
    options = session.Options(providers.choose("cpu"), 0)
    config = candidates.Config(max_batch_size=16)
    measured = await search.Search(folder, options, time.perf_counter() + 13.0, lambda _: None).run(config)
    assert len(measured.tried) > 1  # reserving 3 s and more for each of three loads would leave nothing


def test_where_nothing_was_tried_it_is_said_with_the_budget_that_would_do() -> None:
    only = trial("as it is", 100, 0.01)
    assert "--budget 77s is enough" in tune_cli.verdict(found(only, skipped=["2 x 1 threads"]))
    assert "no other one can be loaded" in tune_cli.verdict(found(only))
    assert "nothing that was measured is better" in tune_cli.verdict(found(only, trial("new", 90, 0.01)))


@pytest.mark.parametrize("load_s", [0.01, 0.5, 9.0, 60.0])
def test_the_budget_that_is_named_leaves_time_for_a_trial(load_s: float) -> None:
    budget_s = search.budget_needed_s(load_s + search._TRIAL_MIN_S, load_s)
    first_s = load_s + max(search._TRIAL_MIN_S, min(budget_s * search._FIRST_SHARE, search._TRIAL_MAX_S))
    left_s = budget_s - first_s - 2 * load_s - search._DUEL_SHARE * budget_s
    assert left_s >= load_s + search._TRIAL_MIN_S


def test_a_plot_is_drawn_although_there_was_no_time_for_a_duel(repository: pathlib.Path) -> None:
    result = tune(repository, "lenet5", "--budget", "1s", "--dry-run", "--plot", str(repository / "tune.png"))
    assert result.returncode == 0, result.stderr
    assert (repository / "tune.png").read_bytes().startswith(b"\x89PNG")
    assert "the configuration as it is only" in result.stdout


def test_tuning_a_model_prints_what_it_measured_and_leaves_a_config_that_serves(repository: pathlib.Path) -> None:
    before = (repository / "lenet5/config.pbtxt").read_text()
    result = tune(repository, "lenet5", "--budget", "8s", "--plot", str(repository / "tune.png"))
    assert result.returncode == 0, result.stderr
    assert "as it is" in result.stdout
    written = (repository / "lenet5/config.pbtxt").read_text()
    if "is left as it is" in result.stdout.replace("\n", " "):
        assert written == before
    else:
        assert (repository / "lenet5/config.pbtxt.before-tune").read_text() == before
        config = text_format.Parse(written, model_config_pb2.ModelConfig())
        assert config.max_batch_size == text_format.Parse(before, model_config_pb2.ModelConfig()).max_batch_size
        assert written.startswith("# fovea tune, ")
    assert tune(repository, "lenet5", "--budget", "1s", "--dry-run").returncode == 0


def test_a_dry_run_writes_nothing(repository: pathlib.Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in repository.rglob("*"))
    assert tune(repository, "lenet5", "--budget", "2s", "--dry-run").returncode == 0
    assert sorted((path, path.stat().st_mtime_ns) for path in repository.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("lenet6",), "has no model 'lenet6' (did you mean 'lenet5'?)"),
        (("lenet5", "--budget", "soon"), "'soon' is not a duration"),
        (("lenet5", "--budget", "1s", "--plot", "no/such/folder.png", "--dry-run"), "the plot cannot be written to"),
    ],
)
def test_what_cannot_be_done_is_explained(repository: pathlib.Path, arguments: tuple[str, ...], sentence: str) -> None:
    result = tune(repository, *arguments)
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_a_model_without_a_batch_has_nothing_to_tune(repository: pathlib.Path) -> None:
    (repository / "lenet5/config.pbtxt").write_text("max_batch_size: 0")
    result = tune(repository, "lenet5", "--budget", "2s")
    assert result.returncode == 1
    assert "tuning needs a model with a batch" in result.stderr
