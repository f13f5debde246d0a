"""`fovea classify`, as a person runs it."""

import csv
import json
import pathlib
import subprocess

from export import digits
from tests.conftest import FOVEA, RunningServer


def classify(server: RunningServer, *arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    command = [FOVEA, "classify", "--model", "lenet5", "--address", server.address, *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)


def test_a_table_for_people_and_json_for_machines(
    server: RunningServer, held_out: digits.Digits, pngs: list[bytes], tmp_path: pathlib.Path
) -> None:
    files = []
    for number in range(3):
        files.append(str(tmp_path / f"{number}.png"))
        pathlib.Path(files[-1]).write_bytes(pngs[number])
    table = classify(server, *files)
    assert table.returncode == 0
    assert (
        table.stdout.decode().splitlines()[1].rstrip().split()[0] == files[0] or files[0][:20] in table.stdout.decode()
    )
    lines = [json.loads(line) for line in classify(server, "--json", *files).stdout.splitlines()]
    assert [line["file"] for line in lines] == files
    assert [line["classes"][0]["label"] for line in lines] == [str(label) for label in held_out.labels[:3]]
    assert all(len(line["classes"]) == 3 for line in lines)


def test_standard_input(server: RunningServer, held_out: digits.Digits, pngs: list[bytes]) -> None:
    result = classify(server, "--json", "-", stdin=pngs[0])
    assert json.loads(result.stdout)["classes"][0]["label"] == str(held_out.labels[0])


def test_a_bad_file_is_named_and_the_others_are_answered(
    server: RunningServer, pngs: list[bytes], tmp_path: pathlib.Path
) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(pngs[0])
    bad.write_bytes(b"no picture")
    result = classify(server, "--json", str(good), str(bad), str(tmp_path / "nowhere.png"))
    lines = {json.loads(line)["file"]: json.loads(line) for line in result.stdout.splitlines()}
    assert result.returncode == 1
    assert "classes" in lines[str(good)]
    assert "not a readable PNG" in lines[str(bad)]["error"]
    assert "cannot be read" in lines[str(tmp_path / "nowhere.png")]["error"]


def test_folders_and_patterns_are_searched_and_csv_has_a_class_a_line(
    server: RunningServer, pngs: list[bytes], tmp_path: pathlib.Path
) -> None:
    (tmp_path / "deeper").mkdir()
    for name in ("a.png", "deeper/b.PNG", "c.image"):
        (tmp_path / name).write_bytes(pngs[0])
    (tmp_path / "notes.txt").write_text("no image")
    result = classify(server, "--csv", "--top", "2", str(tmp_path), str(tmp_path / "*.image"))
    assert result.returncode == 0
    rows = list(csv.DictReader(result.stdout.decode().splitlines()))
    assert [(pathlib.Path(row["file"]).name, row["rank"]) for row in rows] == [
        (name, rank) for name in ("a.png", "b.PNG", "c.image") for rank in "12"
    ]
    assert float(rows[0]["score"]) >= float(rows[1]["score"])


def test_what_has_no_images_is_named(server: RunningServer, tmp_path: pathlib.Path) -> None:
    result = classify(server, str(tmp_path), str(tmp_path / "*.png"))
    assert result.returncode == 1
    assert f"{tmp_path}: has no image files in it; image files end in" in result.stderr.decode()
    assert f"{tmp_path / '*.png'}: is a pattern that no file matches" in result.stderr.decode()


def test_a_wrong_command_line_is_told_so(server: RunningServer) -> None:
    for arguments, sentence in (
        (("--json", "--csv", "a.png"), "two formats"),
        (("--address", "nowhere", "a.png"), "Invalid value for --address"),
        ((), "Missing argument"),
    ):
        result = classify(server, *arguments)
        assert result.returncode == 2
        assert sentence in result.stderr.decode()
        assert "Traceback" not in result.stderr.decode()


def test_an_unknown_model_is_one_sentence(server: RunningServer, tmp_path: pathlib.Path) -> None:
    result = classify(server, "--model", "nobody", str(tmp_path / "a.png"))
    assert result.returncode == 1
    assert result.stderr.decode().startswith("fovea classify: NOT_FOUND: ")


def test_no_server_says_where_it_looked() -> None:
    command = [FOVEA, "classify", "--model", "lenet5", "--address", "127.0.0.1:1", "--timeout-s", "0.5", "-"]
    result = subprocess.run(command, input=b"", capture_output=True, timeout=60, check=False)
    assert result.returncode == 1
    assert b"no answer from 127.0.0.1:1" in result.stderr
    assert b"Traceback" not in result.stderr
