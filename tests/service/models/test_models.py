"""The repository: config.pbtxt field by field, and models that must not be served."""

import asyncio
import pathlib
import shutil

import numpy as np
import pytest
from google.protobuf import text_format

from protos import model_config_pb2
from service import errors, metrics
from service.models import config, lifecycle, repository
from service.runtime import providers, session
from tests.conftest import Exported


@pytest.fixture
def folder(exported: Exported, tmp_path: pathlib.Path) -> pathlib.Path:
    return shutil.copytree(exported.repository / "lenet5", tmp_path / "lenet5")


def load(folder: pathlib.Path) -> lifecycle.ServedModel:
    options = session.Options(providers.choose("cpu"), 1)
    loop = asyncio.new_event_loop()
    try:
        loader = lifecycle.Loader(options, 100, loop, metrics.Metrics())
        return loader.load(repository.scan(folder.parent)[0])
    finally:
        loop.close()


def test_every_field_of_model_config_has_a_treatment() -> None:
    leaves = set()
    parents = {name.partition(".")[0] for name in config.TREATMENTS if "." in name}
    for field in model_config_pb2.ModelConfig.DESCRIPTOR.fields:
        if field.name in parents:
            leaves |= {f"{field.name}.{inner.name}" for inner in field.message_type.fields}
        else:
            leaves.add(field.name)
    assert leaves == config.TREATMENTS.keys()


def test_smoke(folder: pathlib.Path) -> None:
    model = load(folder)
    assert (model.name, model.version, model.is_batched) == ("lenet5", "1", True)
    assert model.labels["logits"] == list("0123456789")
    assert model.properties["image_input"] == "image"


def test_the_newest_version_is_served(folder: pathlib.Path) -> None:
    shutil.copytree(folder / "1", folder / "10")
    shutil.copytree(folder / "1", folder / "9")
    assert load(folder).version == "10"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("sequence_batching {}", "sequence_batching, which Fovea does not support"),
        ("model_transaction_policy { decoupled: true }", "model_transaction_policy, which Fovea"),
        ("dynamic_batching { priority_levels: 3 }", "dynamic_batching.priority_levels, which Fovea"),
        ("no_such_field: 1", "no_such_field"),
        ('name: "other"', "but the folder is 'lenet5'"),
        ('backend: "pytorch"', "Fovea serves platform 'onnxruntime_onnx'"),
        ('input { name: "imagee" }', r"'imagee', which the graph does not have \(did you mean 'image'"),
        ('input { name: "image" data_type: TYPE_FP32 }', "TYPE_FP32 for 'image'; the graph has TYPE_UINT8"),
        ('input { name: "image" dims: [28, 28, 1] }', r"dims \[28, 28, 1\] for 'image'; the graph has \[32, 32, 1\]"),
        ("max_batch_size: -1", "max_batch_size -1"),
    ],
)
def test_a_config_that_cannot_be_honoured_is_refused(folder: pathlib.Path, line: str, sentence: str) -> None:
    (folder / "config.pbtxt").write_text(f"max_batch_size: 8\n{line}\n" if "max_batch" not in line else line)
    with pytest.raises(errors.ModelLoadError, match=sentence):
        load(folder)


def test_noted_fields_warn(folder: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "config.pbtxt").write_text('max_batch_size: 8 metric_tags { key: "a" value: "b" }')
    load(folder)
    assert any("sets metric_tags, which has no effect here" in record.getMessage() for record in caplog.records)


def test_without_a_config_nothing_is_batched_and_the_log_says_so(
    folder: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "config.pbtxt").unlink()
    assert load(folder).config.max_batch_size == 0
    assert any("not batched" in record.getMessage() for record in caplog.records)


def test_the_effective_config_is_complete(folder: pathlib.Path) -> None:
    (folder / "config.pbtxt").write_text("max_batch_size: 8")
    effective = load(folder).config
    assert effective.input[0].name == "image"
    assert list(effective.input[0].dims) == [32, 32, 1]
    assert text_format.MessageToString(effective).count("output {") == 2


def test_goldens_that_are_not_reproduced_keep_the_model_out(folder: pathlib.Path) -> None:
    path = folder / "1/evidence/golden.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["output.logits"] = arrays["output.logits"] + 0.1
    np.savez(path, **arrays)
    with pytest.raises(errors.ModelLoadError, match=r"golden outputs are not reproduced on CPUExecutionProvider"):
        load(folder)


def test_labels_of_another_model_keep_the_model_out(folder: pathlib.Path) -> None:
    (folder / "labels.txt").write_text("a\nb\n")
    with pytest.raises(errors.ModelLoadError, match="not the file that the model was exported with"):
        load(folder)


def test_a_graph_that_is_none_keeps_the_model_out(folder: pathlib.Path) -> None:
    (folder / "1/model.onnx").write_bytes(b"not a graph")
    with pytest.raises(errors.ModelLoadError, match="ONNX Runtime cannot load"):
        load(folder)


def test_a_repository_without_models_says_how_to_make_one(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.RepositoryError, match="fovea export lenet5 --repository"):
        repository.scan(tmp_path)
    with pytest.raises(errors.RepositoryError, match="cannot be read"):
        repository.scan(tmp_path / "nowhere")


def test_a_model_without_a_version_folder_is_an_error(tmp_path: pathlib.Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(errors.ModelLoadError, match="has no version folder; put the graph into"):
        repository.scan(tmp_path)
