"""The repository: config.pbtxt field by field, and models that must not be served."""

import asyncio
import pathlib
import shutil
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor

from protos import model_config_pb2
from service import errors, metrics
from service.models import config, lifecycle, repository
from service.runtime import providers, session
from tests.conftest import Exported


@pytest.fixture
def folder(exported: Exported, tmp_path: pathlib.Path) -> pathlib.Path:
    return shutil.copytree(exported.repository / "lenet5", tmp_path / "lenet5")


def load(folder: pathlib.Path, progress: lifecycle.Progress = lifecycle.unheard) -> lifecycle.ServedModel:
    options = session.Options(providers.choose("cpu"), 1)
    loop = asyncio.new_event_loop()
    try:
        loader = lifecycle.Loader(options, 100, loop, metrics.Metrics(), progress)
        served = loader.load(repository.scan(folder.parent)[0])
    finally:
        loop.close()
    served.instances.close()
    return served


def test_every_field_of_model_config_has_a_treatment() -> None:
    assert set(leaves(model_config_pb2.ModelConfig.DESCRIPTOR, "")) == config.TREATMENTS.keys()


def leaves(message: Descriptor, prefix: str) -> Iterator[str]:
    """Names of all fields, down to where TREATMENTS stops dividing them."""
    for field in message.fields:
        name = prefix + field.name
        if any(known.startswith(f"{name}.") for known in config.TREATMENTS):
            yield from leaves(field.message_type, f"{name}.")
        else:
            yield name


def test_smoke(folder: pathlib.Path) -> None:
    model = load(folder).description
    assert (model.name, model.version, model.is_batched) == ("lenet5", "1", True)
    assert model.labels["logits"] == list("0123456789")
    assert model.properties["image_input"] == "image"


def test_the_newest_version_is_served(folder: pathlib.Path) -> None:
    shutil.copytree(folder / "1", folder / "10")
    shutil.copytree(folder / "1", folder / "9")
    assert load(folder).description.version == "10"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("sequence_batching {}", "sequence_batching, which Fovea does not support"),
        ("model_transaction_policy { decoupled: true }", "model_transaction_policy, which Fovea"),
        ("dynamic_batching { preserve_ordering: true }", "dynamic_batching.preserve_ordering, which Fovea"),
        ("optimization { cuda { graph_spec { batch_size: 4 } } }", "optimization.cuda.graph_spec, which Fovea"),
        ("instance_group { passive: true }", "instance_group.passive, which Fovea"),
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


def test_how_it_runs_is_told(folder: pathlib.Path) -> None:
    (folder / "config.pbtxt").write_text("max_batch_size: 4 instance_group { count: 2 kind: KIND_CPU }")
    properties = load(folder).description.properties
    assert (properties["provider"], properties["instances"], properties["threads"]) == (providers.CPU, "2", "1")
    assert int(properties["nodes_on_cpu"]) > 5


def test_the_progress_of_warming_is_told(folder: pathlib.Path) -> None:
    (folder / "config.pbtxt").write_text("max_batch_size: 4")
    heard: list[tuple[str, int, int]] = []
    load(folder, lambda *now: heard.append(now))
    assert heard == [("lenet5", 1, 3), ("lenet5", 2, 3), ("lenet5", 3, 3)]


def test_goldens_and_model_warmup_are_run_before_it_serves(
    folder: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    image = 'key: "image" value: { data_type: TYPE_UINT8 dims: [32, 32, 1] random_data: true }'
    config = f'max_batch_size: 4 model_warmup {{ name: "few" batch_size: 3 inputs {{ {image} }} }}'
    (folder / "config.pbtxt").write_text(config)
    load(folder)
    log = [record.getMessage() for record in caplog.records]
    assert any("4 goldens reproduced within" in line and "in 5 runs" in line for line in log)
    assert "model lenet5: 1 entries of model_warmup run" in log


def test_a_gpu_that_is_not_there_keeps_the_model_out(folder: pathlib.Path) -> None:
    (folder / "config.pbtxt").write_text("max_batch_size: 4 instance_group { kind: KIND_GPU }")
    with pytest.raises(errors.ModelLoadError, match="KIND_GPU, but this server runs on the CPU"):
        load(folder)


def test_a_model_that_is_kept_out_leaves_no_threads(folder: pathlib.Path) -> None:
    (folder / "config.pbtxt").write_text('max_batch_size: 8 model_warmup { name: "bad" }')
    before = threading.active_count()
    with pytest.raises(errors.ModelLoadError, match="model_warmup entry bad"):
        load(folder)
    assert threading.active_count() == before


def test_noted_fields_warn(folder: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "config.pbtxt").write_text('max_batch_size: 8 metric_tags { key: "a" value: "b" }')
    load(folder)
    assert any("sets metric_tags, which has no effect here" in record.getMessage() for record in caplog.records)


def test_without_a_config_rows_that_do_not_mix_are_batched(folder: pathlib.Path) -> None:
    """LeNet-5's rows are the same bits alone and in company: checked at load."""
    (folder / "config.pbtxt").unlink()
    effective = load(folder).description.config
    assert effective.max_batch_size == 8
    assert any("same bits" in parameter.string_value for parameter in effective.parameters.values())


def test_the_effective_config_is_complete(folder: pathlib.Path) -> None:
    (folder / "config.pbtxt").write_text("max_batch_size: 8")
    effective = load(folder).description.config
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
