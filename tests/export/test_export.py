"""The export: the graph is what it must be, or nothing is written."""

import hashlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf import json_format, text_format
from onnx import helper
from torch import nn

from export import bundle, digits, errors, passes, pictures, serving, trace, verify, weights, zoo
from export.passes import strip
from export.zoo import lenet
from protos import manifest_pb2, model_config_pb2
from tests.conftest import FOVEA, Exported

LENET5 = zoo.find("lenet5")


@pytest.fixture(scope="module")
def random_network() -> nn.Module:
    return weights.load(LENET5, "random", seed=7)


@pytest.fixture(scope="module")
def graph(random_network: nn.Module) -> onnx.ModelProto:
    return passes.run(trace.trace(serving.ServingModule(random_network, LENET5), (32, 32, 1)))[0]


def real() -> np.ndarray:
    return digits.load()[1].images_nhwc


def test_lenet5_has_the_parameters_and_shapes_of_the_paper() -> None:
    network = lenet.LeNet5()
    assert sum(parameter.numel() for parameter in network.parameters()) == 61_706
    counts = {name: sum(p.numel() for p in layer.parameters()) for name, layer in network.named_children()}
    assert counts == {"c1": 156, "c3": 2_416, "c5": 48_120, "f6": 10_164, "output": 850, "pool": 0}
    assert network(torch.zeros(3, 1, 32, 32)).shape == (3, 10)


def test_two_exports_of_the_same_weights_are_equal_to_the_byte(
    random_network: nn.Module, graph: onnx.ModelProto
) -> None:
    again, _ = passes.run(trace.trace(serving.ServingModule(random_network, LENET5), (32, 32, 1)))
    assert again.SerializeToString(deterministic=True) == graph.SerializeToString(deterministic=True)


def test_the_graph_is_plain_and_holds_nothing_of_this_machine(graph: onnx.ModelProto) -> None:
    assert verify.structure(graph) == []
    assert str(pathlib.Path.cwd()).encode() not in graph.SerializeToString()
    image = graph.graph.input[0].type.tensor_type
    assert image.elem_type == onnx.TensorProto.UINT8
    assert [dim.dim_param or dim.dim_value for dim in image.shape.dim] == ["batch", 32, 32, 1]


def test_strip_says_whether_it_changed_something(graph: onnx.ModelProto) -> None:
    assert strip.strip(graph) == (graph, False)
    noted = onnx.ModelProto()
    noted.CopyFrom(graph)
    noted.graph.node[0].metadata_props.add(key="stack_trace", value="/home/somebody")
    assert strip.strip(noted) == (graph, True)


def test_the_served_function_is_the_normalised_network(exported: Exported) -> None:
    report = exported.report
    assert {row.batch for row in report.parity} == {1, 2, 7, 64}
    assert {row.inputs for row in report.parity} == {"noise", "real"}
    assert all(row.same_top1 and max(row.float32, row.float64) <= verify.GATE for row in report.parity)
    assert report.is_batch_invariant


def test_the_serving_module_leaves_the_network_as_it_was(random_network: nn.Module) -> None:
    before = weights.sha256(random_network)
    serving.ServingModule(random_network, LENET5)
    assert weights.sha256(random_network) == before


def test_a_graph_of_other_weights_fails_with_its_figures(graph: onnx.ModelProto) -> None:
    other = weights.load(LENET5, "random", seed=8)
    with pytest.raises(errors.VerificationError, match=r"batch 7 of real: off by \d.*allowed 1e-05"):
        verify.verify(graph, other, LENET5, real(), 64)


def test_forbidden_operators_and_wrong_signatures_are_violations(graph: onnx.ModelProto) -> None:
    changed = onnx.ModelProto()
    changed.CopyFrom(graph)
    changed.graph.node.append(helper.make_node("Gather", ["logits", "x"], ["y"]))
    changed.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
    violations = " ".join(verify.structure(changed))
    assert "must not have: Gather" in violations
    assert "'logits' is not the dynamic 'batch'" in violations


def test_a_model_that_mixes_neighbours_is_not_batch_invariant(random_network: nn.Module) -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = serving.ServingModule(random_network, LENET5)

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits, probabilities = self.inner(image)
            return logits - logits.mean(0, keepdim=True), probabilities

    mixing, _ = passes.run(trace.trace(Mixing(), (32, 32, 1)))
    with pytest.raises(errors.VerificationError, match="a row computed alone differs"):
        verify.verify(mixing, random_network, LENET5, real(), 8)


def test_the_bundle_is_what_triton_and_fovea_read(exported: Exported) -> None:
    folder = exported.repository / "lenet5"
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert (config.name, config.platform, config.max_batch_size) == ("lenet5", "onnxruntime_onnx", 64)
    assert [(tensor.name, list(tensor.dims)) for tensor in config.input] == [("image", [32, 32, 1])]
    assert {tensor.label_filename for tensor in config.output} == {"labels.txt"}
    session = onnxruntime.InferenceSession(folder / "1/model.onnx", providers=["CPUExecutionProvider"])
    text = session.get_modelmeta().custom_metadata_map[bundle.MANIFEST_KEY]
    manifest = json_format.Parse(text, manifest_pb2.Manifest())
    assert manifest.image == LENET5.image
    assert manifest.weights_sha256 == weights.sha256(exported.network)
    assert manifest.labels_sha256 == hashlib.sha256((folder / "labels.txt").read_bytes()).hexdigest()
    with np.load(folder / "1/evidence/golden.npz", allow_pickle=False) as goldens:
        assert goldens["input.image"].shape == (4, 32, 32, 1)
        logits = session.run(["logits"], {"image": goldens["input.image"]})[0]
        assert np.array_equal(logits, goldens["output.logits"])
    parity = json.loads((folder / "1/evidence/parity.json").read_text())
    assert parity["is_batch_invariant"] is True


def write(repository: pathlib.Path, exported: Exported, graph: onnx.ModelProto, version: int, *, replace: bool) -> None:
    place = bundle.Place(repository, "m", version, replace)
    bundle.write(place, graph, LENET5, bundle.Weights("x", "y"), exported.report, 8)


def test_a_version_is_replaced_only_when_told(
    exported: Exported, graph: onnx.ModelProto, tmp_path: pathlib.Path
) -> None:
    write(tmp_path, exported, graph, 1, replace=False)
    with pytest.raises(errors.RepositoryError, match=r"pass --replace to replace it, or --version 2"):
        write(tmp_path, exported, graph, 1, replace=False)
    write(tmp_path, exported, graph, 1, replace=True)
    write(tmp_path, exported, graph, 2, replace=False)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["1", "2", "config.pbtxt", "labels.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_failure_while_writing_leaves_nothing_and_the_old_version_untouched(
    exported: Exported, graph: onnx.ModelProto, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, exported, graph, 1, replace=False)
    before = (tmp_path / "m/1/model.onnx").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")  # a fault that cannot be provoked here

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(errors.RepositoryError, match="No space left"):
        write(tmp_path, exported, graph, 1, replace=True)
    assert (tmp_path / "m/1/model.onnx").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_weights_load_strictly_from_every_usual_form(random_network: nn.Module, tmp_path: pathlib.Path) -> None:
    state = random_network.state_dict()
    for number, content in enumerate((state, {"state_dict": state}, {"model": state})):
        path = tmp_path / f"{number}.pth"
        torch.save(content, path)
        assert weights.sha256(weights.load(LENET5, str(path))) == weights.sha256(random_network)


def test_a_mismatch_lists_missing_unexpected_and_wrongly_shaped_keys(
    random_network: nn.Module, tmp_path: pathlib.Path
) -> None:
    state = dict(random_network.state_dict())
    state["c1_weight"] = state.pop("c1.weight")
    state["f6.bias"] = torch.zeros(85)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(errors.WeightsError) as caught:
        weights.load(LENET5, str(tmp_path / "w.pth"))
    assert "missing: c1.weight (the file has c1_weight)" in str(caught.value)
    assert "unexpected: c1_weight" in str(caught.value)
    assert "wrong shape: f6.bias is (85,), expected (84,)" in str(caught.value)


def test_files_that_hold_no_weights_are_explained(tmp_path: pathlib.Path) -> None:
    (tmp_path / "html.pth").write_text("<html>")
    for path in (tmp_path / "html.pth", tmp_path / "nowhere.pth"):
        with pytest.raises(errors.WeightsError, match="cannot be read"):
            weights.load(LENET5, str(path))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(errors.WeightsError, match="hold no state dict"):
        weights.load(LENET5, str(tmp_path / "list.pth"))


def test_five_epochs_already_learn_the_digits(network: nn.Module) -> None:
    training, held_out = digits.load()
    assert (len(training.labels), len(held_out.labels)) == (1347, 450)
    assert digits.accuracy(network, held_out) > 0.9


def test_no_held_out_digit_is_trained_on() -> None:
    from sklearn import datasets

    training, held_out = digits.load()
    seen = {image.tobytes() for image in training.images_nhwc}
    twins = sum(image.tobytes() in seen for image in held_out.images_nhwc)
    unique = len({image.tobytes() for image in datasets.load_digits().images})
    assert twins <= 1797 - unique


def test_the_contact_sheet_puts_errors_first_and_red(tmp_path: pathlib.Path) -> None:
    from PIL import Image

    blank = np.zeros((32, 32), np.uint8)
    right, wrong = pictures.Tile(blank, "1", "1", 0.9), pictures.Tile(blank, "1", "7", 0.99)
    for name, tiles in (("good", [right] * 30), ("bad", [right] * 29 + [wrong])):
        pictures.contact_sheet(tiles, tmp_path / f"{name}.png", "title")
    good, bad = (np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int) for name in ("good", "bad"))
    assert good.shape == bad.shape
    reddish = (bad[:, :, 0] - bad[:, :, 1]) > 100
    assert not ((good[:, :, 0] - good[:, :, 1]) > 100).any()
    rows, columns = np.nonzero(reddish)
    assert rows.size > 50
    assert rows.max() < 130  # the first row of tiles
    assert columns.max() < bad.shape[1] / 10


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["lenet6"], "no architecture 'lenet6' (did you mean 'lenet5'?)"),
        (["lenet5", "--weights", "nowhere.pth"], "weights nowhere.pth cannot be read"),
    ],
)
def test_the_command_explains_itself_in_one_sentence(
    arguments: list[str], sentence: str, tmp_path: pathlib.Path
) -> None:
    command = [FOVEA, "export", *arguments, "--repository", str(tmp_path / "models")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "models").exists()


def test_help_loads_no_torch() -> None:
    program = "import sys, export.cli; print('torch' in sys.modules or 'onnx' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
