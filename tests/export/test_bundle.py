"""The repository as a transaction: all of an export is written, or nothing is changed."""

import contextlib
import hashlib
import json
import pathlib

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import json_format, text_format

from export import bundle, errors, manifest, weights, zoo
from protos import manifest_pb2, model_config_pb2
from tests.conftest import Exported


def renamed(one: bundle.Bundle, name: str, version: int = 1, labels: tuple[str, ...] | None = None) -> bundle.Bundle:
    return bundle.Bundle(
        place=bundle.Place(name, version),
        content=one.content,
        config=one.config,
        labels=one.labels if labels is None else labels,
        goldens=one.goldens,
        evidence=one.evidence,
        page=one.page,
    )


def write(repository: pathlib.Path, *bundles: bundle.Bundle, replace: bool = False) -> list[pathlib.Path]:
    with bundle.Staging(repository, replace=replace) as staging:
        for one in bundles:
            staging.add(one)
        return staging.commit()


def listing(folder: pathlib.Path) -> dict[str, str]:
    """Every file and its hash."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_bundle_is_what_triton_and_fovea_read(exported: Exported) -> None:
    folder = exported.repository / "lenet5"
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert (config.name, config.platform, config.max_batch_size) == ("lenet5", "onnxruntime_onnx", 64)
    assert [(tensor.name, list(tensor.dims)) for tensor in config.input] == [("image", [32, 32, 1])]
    assert [tensor.name for tensor in config.output] == ["logits", "probabilities"]
    assert {tensor.label_filename for tensor in config.output} == {"labels.txt"}
    session = onnxruntime.InferenceSession(folder / "1/model.onnx", providers=["CPUExecutionProvider"])
    text = session.get_modelmeta().custom_metadata_map[manifest.KEY]
    said = json_format.Parse(text, manifest_pb2.Manifest())
    described = zoo.find("lenet5").preprocessing
    assert said.image == described.spec("image")
    assert tuple(said.normalization.mean) == described.mean
    assert said.weights_sha256 == weights.sha256(exported.network)
    assert said.labels_sha256 == hashlib.sha256((folder / "labels.txt").read_bytes()).hexdigest()
    assert set(said.providers) == {"CPUExecutionProvider", "CUDAExecutionProvider"}


def test_the_goldens_are_the_graph_s_own_answers_and_small(exported: Exported) -> None:
    folder = exported.repository / "lenet5/1"
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    with np.load(folder / "evidence/golden.npz", allow_pickle=False) as goldens:
        assert goldens["input.image"].shape == (4, 32, 32, 1)
        logits = session.run(["logits"], {"image": goldens["input.image"]})[0]
        assert np.array_equal(logits, goldens["output.logits"])
    assert (folder / "evidence/golden.npz").stat().st_size < 1_000_000


def test_the_report_says_what_was_found(exported: Exported) -> None:
    evidence = exported.repository / "lenet5/1/evidence"
    report = json.loads((evidence / "report.json").read_text())
    content = (evidence.parent / "model.onnx").read_bytes()
    assert report["identity"]["graph_sha256"] == hashlib.sha256(content).hexdigest()
    assert report["identity"]["graph_bytes"] == len(content)
    assert report["is_batch_invariant"] is True
    assert report["costs"]["parameters"] == 61_706
    assert report["costs"]["macs"] == 416_520
    assert {(row["batch"], row["inputs"]) for row in report["parity"]} == {
        (batch, inputs) for batch in (1, 2, 7, 64) for inputs in ("noise", "real")
    }
    assert all(max(row["float32"], row["float64"]) <= report["gate"] == 1e-5 for row in report["parity"])
    assert len(report["latency"]) == 2
    page = (evidence / "report.html").read_text()
    assert "lenet5" in page
    assert report["identity"]["graph_sha256"] in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_version_is_replaced_only_when_told(exported: Exported, tmp_path: pathlib.Path) -> None:
    one = renamed(exported.bundle, "m")
    write(tmp_path, one)
    with pytest.raises(errors.RepositoryError, match=r"pass --replace to replace it, or --version 2"):
        write(tmp_path, one)
    write(tmp_path, one, replace=True)
    write(tmp_path, renamed(one, "m", 2))
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["1", "2", "config.pbtxt", "labels.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_without_commit_there_is_nothing_not_even_the_folder(exported: Exported, tmp_path: pathlib.Path) -> None:
    with contextlib.suppress(KeyboardInterrupt), bundle.Staging(tmp_path / "a/b") as staging:
        staging.add(renamed(exported.bundle, "m"))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_when_one_of_two_cannot_be_moved_both_are_as_before(exported: Exported, tmp_path: pathlib.Path) -> None:
    write(tmp_path, renamed(exported.bundle, "a"), renamed(exported.bundle, "b"))
    before = listing(tmp_path)
    changed = exported.bundle.content + b""
    with (
        pytest.raises(errors.RepositoryError, match="nothing was changed"),
        bundle.Staging(tmp_path, replace=True) as staging,
    ):
        staging.add(bundle.Bundle(bundle.Place("a", 1), changed[:-1], *_rest(exported.bundle)))
        staging.add(renamed(exported.bundle, "c"))
        (tmp_path / "c").write_text("in the way")  # a file where the folder has to go
        try:
            staging.commit()
        finally:
            (tmp_path / "c").unlink()
    assert listing(tmp_path) == before


def _rest(one: bundle.Bundle) -> tuple[object, ...]:
    return (one.config, one.labels, one.goldens, one.evidence, one.page)


def test_a_full_disk_leaves_nothing_and_the_old_version_untouched(
    exported: Exported, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, renamed(exported.bundle, "m"))
    before = listing(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")  # a fault that cannot be provoked here

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(errors.RepositoryError, match=r"No space left on device; nothing was changed. Free space"):
        write(tmp_path, renamed(exported.bundle, "m"), replace=True)
    monkeypatch.undo()
    assert listing(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_tuned_config_outlives_a_new_version(exported: Exported, tmp_path: pathlib.Path) -> None:
    write(tmp_path, renamed(exported.bundle, "m"))
    config = tmp_path / "m/config.pbtxt"
    tuned = config.read_text() + "\n# tuned by hand\n"
    config.write_text(tuned)
    write(tmp_path, renamed(exported.bundle, "m", 2))
    assert config.read_text() == tuned


def test_a_version_that_would_change_the_others_labels_is_refused(exported: Exported, tmp_path: pathlib.Path) -> None:
    write(tmp_path, renamed(exported.bundle, "m"))
    before = listing(tmp_path)
    other = renamed(exported.bundle, "m", 2, labels=tuple("abcdefghij"))
    with pytest.raises(errors.RepositoryError, match=r"version 1 of 'm' has other labels.*--name"):
        write(tmp_path, other)
    assert listing(tmp_path) == before
    write(tmp_path, renamed(other, "m", 1, labels=other.labels), replace=True)  # alone it may
    assert (tmp_path / "m/labels.txt").read_text().startswith("a\nb\n")


def test_names_that_are_no_folders_are_refused(tmp_path: pathlib.Path) -> None:
    with bundle.Staging(tmp_path) as staging:
        for name in ("../up", ".hidden", "a/b", ""):
            with pytest.raises(errors.RepositoryError, match="cannot be a model's name"):
                staging.check(bundle.Place(name, 1))


def test_the_content_is_equal_for_equal_graphs_and_differs_with_the_manifest(exported: Exported) -> None:
    model = onnx.load_from_string(exported.bundle.content)
    del model.metadata_props[:]
    one, other = manifest_pb2.Manifest(architecture="a"), manifest_pb2.Manifest(architecture="b")
    assert manifest.content(model, one) == manifest.content(model, one)
    assert manifest.content(model, one) != manifest.content(model, other)


def test_a_smaller_batch_and_other_settings_made_by_hand_stay(exported: Exported, tmp_path: pathlib.Path) -> None:
    write(tmp_path, renamed(exported.bundle, "m"))
    path = tmp_path / "m/config.pbtxt"
    tuned = path.read_text().replace("max_batch_size: 64", "max_batch_size: 16") + "# by hand\n"
    path.write_text(tuned)
    write(tmp_path, renamed(exported.bundle, "m"), replace=True)
    assert path.read_text() == tuned
    changed = path.read_text().replace('name: "probabilities"', 'name: "other"') + "instance_group { count: 2 }\n"
    path.write_text(changed)
    write(tmp_path, renamed(exported.bundle, "m"), replace=True)
    config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    assert [tensor.name for tensor in config.output] == ["logits", "probabilities"]
    assert config.instance_group[0].count == 2
    assert config.max_batch_size == 64


def test_a_config_that_cannot_be_read_and_a_folder_in_the_way_are_explained(
    exported: Exported, tmp_path: pathlib.Path
) -> None:
    write(tmp_path, renamed(exported.bundle, "m"))
    (tmp_path / "m/config.pbtxt").write_text("max_batch_size: many")
    with pytest.raises(errors.RepositoryError, match=r"config\.pbtxt cannot be read: .*; mend it or remove it"):
        write(tmp_path, renamed(exported.bundle, "m"), replace=True)
    (tmp_path / "m/config.pbtxt").unlink()
    (tmp_path / "m/labels.txt").unlink()
    (tmp_path / "m/labels.txt").mkdir()
    before = listing(tmp_path)
    with pytest.raises(errors.RepositoryError, match="cannot write below"):
        write(tmp_path, renamed(exported.bundle, "m"), replace=True)
    assert listing(tmp_path) == before
    assert (tmp_path / "m/labels.txt").is_dir()
