"""Other networks than the zoo's: a function in a user's file, and an .onnx file."""

import pathlib

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from export import errors, options, pipeline, runtime, sources
from tests import conftest

NETWORK = """
import torch
from torch import nn
import beside

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.head = nn.Linear(8, beside.CLASSES)
    def forward(self, x):
        maps = self.stem(x)
        return {"logits": self.head(maps.mean((2, 3))), "maps": maps}

def build():
    return Net()

def broken():
    raise ValueError("no such configuration")

def number():
    return 3

class Deciding(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x.flatten(1)[:, :3]
"""


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "beside.py").write_text("CLASSES = 4\n")
    (tmp_path / "net.py").write_text(NETWORK)
    return tmp_path / "net.py"


def test_a_user_s_function_becomes_a_verified_model(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    chosen = options.Options(
        input_size=(3, 20, 24), outputs=("features:stem", "probabilities"), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2)
    )
    (made,) = conftest.export(f"{file}:build", tmp_path / "models", chosen)
    assert made.place.name == "net"
    assert [tensor.name for tensor in made.config.output] == ["logits", "maps", "features:stem", "probabilities"]
    assert [list(tensor.dims) for tensor in made.config.output] == [[4], [8, 10, 12], [8, 10, 12], [4]]
    assert {row.output for row in made.evidence.parity} == {"logits", "maps", "features:stem", "probabilities"}
    assert made.evidence.is_batch_invariant


def test_a_user_s_network_takes_weights_strictly(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    state = {"stem.0.weight": torch.ones(8, 3, 3, 3), "stem.0.bias": torch.zeros(8), "head.weight": torch.ones(4, 8)}
    torch.save(state, tmp_path / "w.pth")
    chosen = options.Options(input_size=(3, 8, 8), weights=str(tmp_path / "w.pth"))
    with pytest.raises(errors.WeightsError, match=r"missing: head\.bias"):
        sources.find(f"{file}:build", chosen)
    torch.save({**state, "head.bias": torch.full((4,), 2.0)}, tmp_path / "w.pth")
    network = sources.find(f"{file}:build", chosen).facts.network
    assert network is not None
    assert float(network.state_dict()["head.bias"][0]) == 2.0


@pytest.mark.parametrize(
    ("function", "size", "error", "sentence"),
    [
        ("build", None, errors.OptionError, "says nothing of its input; pass --input-size"),
        ("biuld", (3, 8, 8), errors.OptionError, r"no 'biuld' \(did you mean 'build'\?\)"),
        ("broken", (3, 8, 8), errors.UnsupportedNetwork, "failed with ValueError: no such configuration; it must run"),
        ("number", (3, 8, 8), errors.UnsupportedNetwork, "returned a int; expected a torch.nn.Module"),
        ("build", (1, 8, 8), errors.UnsupportedNetwork, "cannot run on two images of 1x8x8.*check --input-size"),
        ("Deciding", (3, 8, 8), errors.UnsupportedNetwork, "torch.onnx cannot export the network.*without decisions"),
    ],
)
def test_what_cannot_be_exported_is_explained(
    file: pathlib.Path, function: str, size: tuple[int, int, int] | None, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        sources.find(f"{file}:{function}", options.Options(input_size=size))


def test_a_file_that_is_not_there_is_explained(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.OptionError, match="is not there"):
        sources.find(f"{tmp_path}/none.py:build", options.Options())
    with pytest.raises(errors.OptionError, match="names no function"):
        sources.find("net.py", options.Options())


def test_an_unknown_architecture_suggests_the_nearest() -> None:
    with pytest.raises(errors.UnknownArchitecture, match=r"no architecture 'resnet5' \(did you mean 'resnet50'\?\)"):
        sources.find("resnet5", options.Options())


def test_an_unknown_stage_suggests_the_nearest() -> None:
    chosen = options.Options(weights="random", outputs=("features:c33",))
    with pytest.raises(errors.UnknownStage, match=r"features:c33 cannot be an output: .*did you mean 'c3'"):
        sources.find("lenet5", chosen)


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        (options.Options(is_any_size=True), "lenet5 works at 32x32 only"),
        (options.Options(input_size=(1, 28, 28)), "lenet5 works at 32x32 only"),
        (options.Options(mean=(0.1, 0.2)), "need 1 numbers"),
        (options.Options(std=(0.0,)), "expected numbers above 0"),
        (options.Options(resize_px=16), "below the crop"),
        (options.Options(transform_input=True), "is an option of googlenet"),
    ],
)
def test_options_that_the_network_does_not_have_are_refused(chosen: options.Options, sentence: str) -> None:
    import dataclasses

    with pytest.raises(errors.OptionError, match=sentence):
        sources.find("lenet5", dataclasses.replace(chosen, weights="random"))


# ---- .onnx files


def foreign(*, is_dynamic: bool = True, mixes: bool = False) -> onnx.ModelProto:
    """A graph as other exporters write it: BatchNorm not folded, a Dropout, tensors with odd names."""
    random = np.random.default_rng(0)
    batch = "N" if is_dynamic else 2
    constants = {
        "w": random.standard_normal((4, 3, 3, 3)),
        "gain": random.uniform(0.5, 2, 4),
        "shift": random.standard_normal(4),
        "running_mean": random.standard_normal(4),
        "running_var": random.uniform(0.5, 2, 4),
        "fc": random.standard_normal((4, 5)),
    }
    nodes = [
        helper.make_node("Conv", ["data", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "gain", "shift", "running_mean", "running_var"], ["b"]),
        helper.make_node("Relu", ["b"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Dropout", ["f"], ["d"]),
        helper.make_node("MatMul", ["d", "fc"], ["scores" if not mixes else "before"]),
    ]
    if mixes:
        nodes.append(helper.make_node("Softmax", ["before"], ["scores"], axis=0))
    tensors = [onnx.numpy_helper.from_array(values.astype(np.float32), name) for name, values in constants.items()]
    data = helper.make_tensor_value_info("data", onnx.TensorProto.FLOAT, [batch, 3, 12, 10])
    out = helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [batch, 5])
    made = helper.make_graph(nodes, "theirs", [data], [out], tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saved(folder: pathlib.Path, model: onnx.ModelProto) -> str:
    onnx.save(model, folder / "theirs.onnx")
    return str(folder / "theirs.onnx")


def test_an_onnx_file_is_optimised_verified_and_wrapped(tmp_path: pathlib.Path) -> None:
    (made,) = conftest.export(saved(tmp_path, foreign()), tmp_path / "models", options.Options())
    operators = made.evidence.operators
    assert "BatchNormalization" not in operators.exported
    assert "Dropout" not in operators.exported
    assert [(tensor.name, list(tensor.dims)) for tensor in made.config.input] == [("data", [3, 12, 10])]
    assert [(tensor.name, list(tensor.dims)) for tensor in made.config.output] == [("scores", [5])]
    assert made.config.max_batch_size == 32
    assert made.evidence.parity
    assert all(row.float32 <= 1e-5 for row in made.evidence.parity)


def test_an_onnx_file_can_be_made_to_take_pixels(tmp_path: pathlib.Path) -> None:
    chosen = options.Options(
        layout_asked="uint8-nhwc", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), outputs=("probabilities", "features:r")
    )
    (made,) = conftest.export(saved(tmp_path, foreign()), tmp_path / "models", chosen)
    assert [(tensor.name, list(tensor.dims)) for tensor in made.config.input] == [("image", [12, 10, 3])]
    assert [tensor.name for tensor in made.config.output] == ["logits", "features:r", "probabilities"]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 12, 10, 3), np.uint8)
    got = runtime.Session(onnx.load_from_string(made.content)).run({"image": pixels})["logits"]
    data = ((pixels / 255 - 0.5) / 0.25).transpose(0, 3, 1, 2).astype(np.float32)
    wanted = runtime.Session(foreign(), optimize=False).run({"data": data})["scores"]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["fixed batch", "rows that mix"])
def test_what_cannot_be_batched_is_exported_unbatched_and_says_so(case: str, tmp_path: pathlib.Path) -> None:
    model = foreign(is_dynamic=case != "fixed batch", mixes=case == "rows that mix")
    (made,) = conftest.export(saved(tmp_path, model), tmp_path / "models", options.Options())
    assert made.config.max_batch_size == 0
    assert made.evidence.is_batch_invariant is None
    if case == "rows that mix":
        assert any("not batched" in note for note in made.evidence.notes)


def test_files_and_options_that_do_not_fit_are_explained(tmp_path: pathlib.Path) -> None:
    path = saved(tmp_path, foreign())
    (tmp_path / "cut.onnx").write_bytes(pathlib.Path(path).read_bytes()[:200])
    (tmp_path / "page.onnx").write_text("<html>not found</html>")
    cases = {
        f"{tmp_path}/none.onnx": (options.Options(), "cannot be read: No such file"),
        f"{tmp_path}/cut.onnx": (options.Options(), "is no valid ONNX model"),
        f"{tmp_path}/page.onnx": (options.Options(), "is no valid ONNX model"),
        path: (options.Options(weights="random", classes=3), "--weights, --classes: an .onnx file has its weights"),
    }
    for target, (chosen, sentence) in cases.items():
        with pytest.raises(errors.ExportError, match=sentence):
            sources.find(target, chosen)
    with pytest.raises(errors.OptionError, match="only with --input uint8-nhwc"):
        sources.find(path, options.Options(mean=(0.5, 0.5, 0.5)))
    with pytest.raises(errors.UnknownStage, match="the graph has no tensor of that name"):
        sources.find(path, options.Options(outputs=("features:zzz",)))


def test_best_classes_need_that_many_classes(tmp_path: pathlib.Path) -> None:
    chosen = options.Options(layout_asked="uint8-nhwc", outputs=("top6",))
    source = sources.find(saved(tmp_path, foreign()), chosen)
    with pytest.raises(errors.OptionError, match="top6 is more than the 5 classes"):
        pipeline.output_names(source, chosen)


SIBLINGS = """
import sys
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.unused = nn.Linear(3, 3)
        self.pair = Pair()
        self.fc = nn.Linear(4, 5)
    def forward(self, x):
        maps, _ = self.pair(torch.relu(self.bn1(self.conv1(x))))
        return self.fc(maps.mean((2, 3)))

class Pair(nn.Module):
    def forward(self, x):
        return x, x

class Named(nn.Module):
    def forward(self, x):
        return {"image": x}

class Flags(nn.Module):
    def forward(self, x):
        return x.flatten(1) > 0

def leaving():
    sys.exit(4)
"""


@pytest.fixture
def siblings(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "siblings.py").write_text(SIBLINGS)
    return tmp_path / "siblings.py"


def test_a_batch_norm_beside_its_convolution_is_folded(siblings: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (made,) = conftest.export(f"{siblings}:Net", tmp_path / "m", options.Options(input_size=(3, 8, 8)))
    assert "BatchNormalization" not in made.evidence.operators.exported
    assert [stage.name for stage in made.evidence.costs.stages][:1] == ["bn1"]


def test_bools_are_no_logits(siblings: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (made,) = conftest.export(f"{siblings}:Flags", tmp_path / "m", options.Options(input_size=(3, 4, 4)))
    assert [tensor.name for tensor in made.config.output] == ["output"]


@pytest.mark.parametrize(
    ("function", "outputs", "sentence"),
    [
        ("Net", ("features:conv1",), "its batch norm is folded into it; ask for features:bn1"),
        ("Net", ("features:unused",), "the network never calls it, or it does not return one tensor"),
        ("Net", ("features:pair",), "the network never calls it, or it does not return one tensor"),
        ("Named", (), "names an output 'image', which names something else"),
        ("leaving", (), "failed with SystemExit: 4"),
    ],
)
def test_what_a_network_cannot_let_out_is_explained(
    siblings: pathlib.Path, function: str, outputs: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(errors.ExportError, match=sentence):
        sources.find(f"{siblings}:{function}", options.Options(input_size=(3, 8, 8), outputs=outputs))


def simple(operator: str, kind: int, shape: list[int | str]) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", kind, shape)
    y = helper.make_tensor_value_info("y", kind, shape)
    made = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "g", [x], [y])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (simple("Neg", onnx.TensorProto.FLOAT, []), "x cannot be checked; inputs and outputs must be tensors"),
        (simple("Identity", onnx.TensorProto.STRING, ["n"]), "x, y cannot be checked"),
        (simple("Neg", onnx.TensorProto.BFLOAT16, ["n", 3]), "x, y cannot be checked"),
        (simple("RandomNormalLike", onnx.TensorProto.FLOAT, ["n", 3]), "differs from run to run|off by"),
    ],
)
def test_graphs_that_cannot_be_checked_are_refused(
    model: onnx.ModelProto, sentence: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(errors.ExportError, match=sentence):
        conftest.export(saved(tmp_path, model), tmp_path / "models", options.Options())
    assert not (tmp_path / "models").exists()


def test_a_size_that_the_graph_does_not_have_is_refused_and_a_free_one_is_pinned(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.OptionError, match=r"input 'data' of .* is 3x12x10; leave it out"):
        sources.find(saved(tmp_path, foreign()), options.Options(input_size=(3, 16, 16)))
    model = simple("Relu", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])
    (made,) = conftest.export(saved(tmp_path, model), tmp_path / "m", options.Options(input_size=(3, 8, 9)))
    assert list(made.config.input[0].dims) == [3, 8, 9]


def test_classes_of_an_onnx_file_are_known_to_labels(tmp_path: pathlib.Path) -> None:
    assert sources.find(saved(tmp_path, foreign()), options.Options()).facts.classes == 5


@pytest.mark.parametrize("shape", [[7, 4], ["n", 4]])
def test_what_has_no_batch_is_served_whole(shape: list[int | str], tmp_path: pathlib.Path) -> None:
    model = simple("Softmax", onnx.TensorProto.FLOAT, shape)
    model.graph.node[0].attribute.add(name="axis", type=onnx.AttributeProto.INT, i=0)
    conftest.export(saved(tmp_path, model), tmp_path / "models", options.Options())
    with conftest.running(tmp_path / "models", tmp_path / "log", "--device", "cpu") as server:
        assert "goldens reproduced" in server.log()
