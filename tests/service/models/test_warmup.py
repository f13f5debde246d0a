"""model_warmup: each entry runs as often as it says, with the data that it says, inside the model's folder."""

import pathlib
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx import parser

from protos import model_config_pb2
from service import errors
from service.batching import slots
from service.models import warmup
from service.runtime import instances, providers, session
from tests.service.runtime import graphs

SHAPE = "data_type: TYPE_UINT8 dims: [16, 16, 3]"


class Watched(instances.Instances):
    """Remembers what it ran."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__("m", path, session.Options(providers.choose("cpu"), 1))
        self.ran: list[np.ndarray] = []

    def run(self, inputs: slots.Tensors, outputs, rows: int = 0):  # type: ignore[no-untyped-def]  # as Instances.run
        self.ran.append(inputs["image"])
        return super().run(inputs, outputs, rows)


@pytest.fixture
def loaded(tmp_path: pathlib.Path) -> Iterator[Watched]:
    made = Watched(graphs.convnet(tmp_path / "m.onnx"))
    made.warm(4, lambda done, total: None)
    yield made
    made.close()


def run(folder: pathlib.Path, loaded: instances.Instances, entry: str) -> int:
    config = text_format.Parse(f"max_batch_size: 4 model_warmup {{ {entry} }}", model_config_pb2.ModelConfig())
    return warmup.run("m", folder, config, loaded)


def image(said: str) -> str:
    return f'inputs {{ key: "image" value: {{ {said} }} }}'


def test_an_entry_runs_once_or_count_times(tmp_path: pathlib.Path, loaded: Watched) -> None:
    assert run(tmp_path, loaded, "batch_size: 3 " + image(SHAPE + " zero_data: true")) == 1
    assert [rows.shape for rows in loaded.ran] == [(3, 16, 16, 3)]
    assert not loaded.ran[0].any()
    run(tmp_path, loaded, "count: 5 " + image(SHAPE + " random_data: true"))
    assert len(loaded.ran) == 6
    assert loaded.ran[-1].std() > 60  # bytes of all values


def test_a_file_s_bytes_are_what_runs_in_every_row(tmp_path: pathlib.Path, loaded: Watched) -> None:
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup/cat").write_bytes(graphs.pixels(1, 3).tobytes())
    run(tmp_path, loaded, "batch_size: 2 " + image(SHAPE + ' input_data_file: "cat"'))
    assert np.array_equal(loaded.ran[0], np.repeat(graphs.pixels(1, 3), 2, axis=0))


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (image(SHAPE), "names no data"),
        (image("data_type: TYPE_FP32 dims: [16, 16, 3] zero_data: true"), "is TYPE_FP32; expected TYPE_UINT8"),
        (image("data_type: TYPE_UINT8 dims: [16, 16] zero_data: true"), r"are \[16, 16\]; expected \[16, 16, 3\]"),
        ('inputs { key: "imagee" value: { zero_data: true } }', r"no input 'imagee' \(did you mean 'image'"),
        ("", "input 'image' is missing"),
        ("batch_size: 5 " + image(SHAPE + " zero_data: true"), "batch_size is 5, max_batch_size 4"),
        (image(SHAPE + ' input_data_file: "none"'), "No such file"),
        (image(SHAPE + ' input_data_file: "../m.onnx"'), "leaves"),
        (image(SHAPE + ' input_data_file: "/etc/passwd"'), "leaves"),
        (image(SHAPE + ' input_data_file: "short"'), "has 3 bytes; .* need 768"),
    ],
)
def test_an_entry_that_cannot_run_is_named(tmp_path: pathlib.Path, loaded: Watched, entry: str, sentence: str) -> None:
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup/short").write_bytes(b"abc")
    with pytest.raises(errors.ModelLoadError, match=rf"'model_warmup entry first' cannot be run: .*{sentence}"):
        run(tmp_path, loaded, f'name: "first" {entry}')


def test_a_link_out_of_the_folder_is_refused(tmp_path: pathlib.Path, loaded: Watched) -> None:
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup/link").symlink_to("/etc/hostname")
    with pytest.raises(errors.ModelLoadError, match="leaves"):
        run(tmp_path, loaded, image(SHAPE + ' input_data_file: "link"'))


def test_strings_and_bfloat16_have_data_too(tmp_path: pathlib.Path) -> None:
    text = '<ir_version: 10, opset_import: ["" : 21]> g (string[2] x) => (string[2] y) { y = Identity(x) }'
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup/words").write_bytes(b"\2\0\0\0\xc3\xa9\0\0\0\0")
    for said in ("zero_data: true", "random_data: true", 'input_data_file: "words"'):
        assert warmed(tmp_path, text, f"data_type: TYPE_STRING dims: [2] {said}") == 1
    with pytest.raises(errors.ModelLoadError, match=r"has 2 strings in 10 bytes; dims \[3\] need others"):
        warmed(tmp_path, text.replace("[2]", "[K]"), 'data_type: TYPE_STRING dims: [3] input_data_file: "words"')
    text = text.replace("string", "bfloat16")
    for said in ("zero_data: true", "random_data: true"):
        assert warmed(tmp_path, text, f"data_type: TYPE_BF16 dims: [2] {said}") == 1


def warmed(folder: pathlib.Path, text: str, said: str) -> int:
    """Run one entry of a model that has input "x" and no batch."""
    onnx.save(parser.parse_model(text), folder / "m.onnx")
    loaded = instances.Instances("m", folder / "m.onnx", session.Options(providers.choose("cpu"), 1))
    entry = f'model_warmup {{ inputs {{ key: "x" value: {{ {said} }} }} }}'
    return warmup.run("m", folder, text_format.Parse(entry, model_config_pb2.ModelConfig()), loaded)
