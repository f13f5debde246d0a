"""The command `fovea export`, run as a person runs it: what it writes, and what it says when it cannot."""

import pathlib
import signal
import subprocess
import sys
import time

import onnx
import pytest
from google.protobuf import text_format

from export import zoo
from protos import model_config_pb2
from tests.conftest import FOVEA, running


def run(*arguments: str, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
    command = [FOVEA, "export", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def test_a_network_is_exported_with_its_figures_printed(tmp_path: pathlib.Path) -> None:
    arguments = ("lenet5", "--weights", "random", "--outputs", "top3,features:c3", "--repository", str(tmp_path / "m"))
    result = run(*arguments, "--name", "five", "--version", "7")
    assert result.returncode == 0, result.stderr
    words = " ".join(result.stdout.split())
    assert "61,706" in words
    assert "allowed 1e-05" in words
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["five"]
    assert (tmp_path / "m/five/7/model.onnx").is_file()
    assert (tmp_path / "m/five/7/evidence/report.html").is_file()
    again = run(*arguments, "--name", "five", "--version", "7")
    assert again.returncode == 1
    assert "pass --replace to replace it, or --version 8" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["lenet6"], "no architecture 'lenet6' (did you mean 'lenet5'?)"),
        (["lenet5", "--weights", "nowhere.pth"], "nowhere.pth"),
        (["lenet5", "--weights", "random", "--labels", "nowhere.txt"], "--labels nowhere.txt cannot be read"),
        (["lenet5", "--weights", "random", "--precision", "int8"], "pass --calibration DIR"),
        (["lenet5", "--weights", "random", "--calibration", "nowhere"], "--calibration nowhere is no folder"),
        ([], "name one network, or pass --all"),
        (["lenet5", "--all"], "name one network, or pass --all"),
        (["--all", "--classes", "3"], "--classes: with --all every network keeps its own"),
        (["sobel", "--classes", "3"], "--classes is for classifiers; sobel is none"),
        (["sobel", "--outputs", "probabilities"], "sobel has no logits"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_and_nothing_is_written(
    arguments: list[str], sentence: str, tmp_path: pathlib.Path
) -> None:
    result = run(*arguments, "--repository", str(tmp_path / "models"))
    assert result.returncode == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "models").exists()


def test_a_repository_that_cannot_be_written_is_explained_before_any_work(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("lenet5", "--weights", "random", "--repository", str(tmp_path / "file/models"))
    assert result.returncode == 1
    assert "cannot write below" in result.stderr
    assert "--repository" in result.stderr
    assert "✓" not in result.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_the_repository_as_it_was(number: signal.Signals, tmp_path: pathlib.Path) -> None:
    command = [FOVEA, "export", "lenet5", "--weights", "random", "--repository", str(tmp_path / "new/models")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    give_up_s = time.monotonic() + 60
    while not (tmp_path / "new/models").exists():  # the staging folder: the export is under way
        assert time.monotonic() < give_up_s
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; nothing was written" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_labels_need_a_line_for_each_class(tmp_path: pathlib.Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    arguments = ("lenet5", "--weights", "random", "--labels", str(tmp_path / "labels.txt"))
    result = run(*arguments, "--repository", str(tmp_path / "m"))
    assert "has 2 lines; lenet5 has 10 classes" in result.stderr
    result = run(*arguments, "--classes", "2", "--repository", str(tmp_path / "m"))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "m/lenet5/labels.txt").read_text() == "cat\ndog\n"


def test_help_loads_no_torch() -> None:
    program = "import sys, export.cli; print('torch' in sys.modules or 'onnx' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


@pytest.mark.slow
def test_the_whole_zoo_is_exported_and_served(tmp_path: pathlib.Path) -> None:
    repository = tmp_path / "models"
    result = run("--all", "--weights", "random", "--repository", str(repository), timeout_s=1800)
    assert result.returncode == 0, result.stderr
    assert f"{len(zoo.ZOO)} models written" in result.stdout
    assert {path.name for path in repository.iterdir()} == set(zoo.ZOO)
    for name in zoo.ZOO:
        graph = onnx.load(repository / name / "1/model.onnx").graph
        config = text_format.Parse((repository / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
        for entries, values in ((config.input, graph.input), (config.output, graph.output)):
            wanted = [
                (value.name, [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim]) for value in values
            ]
            assert [(entry.name, [-1, *entry.dims]) for entry in entries] == wanted
        assert (repository / name / "1/evidence/golden.npz").stat().st_size < 1_000_000
    with running(repository, tmp_path / "log", "--device", "cpu") as server:
        assert server.log().count("goldens reproduced") == len(zoo.ZOO)
