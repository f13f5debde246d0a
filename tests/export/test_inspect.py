"""`fovea inspect`: what is known of a model is shown, what it sees is drawn, what is wrong is said."""

import dataclasses
import io
import json
import math
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from PIL import Image
from typer import testing

from export import errors, evidence, inspect_cli, runtime, signature, stored
from export.report import canvas, charts, figures, inspection
from export.zoo import filters
from protos import manifest_pb2
from tests import conftest

LATENCY = evidence.Latency("ONNX Runtime", 1, 30, 0.02, 0.01)


def pixels(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def has_color(png: bytes, color: tuple[int, int, int]) -> bool:
    return bool((pixels(png) == color).all(2).any())


def painted(png: bytes, share: float, *, is_signed: bool) -> NDArray[np.bool_]:
    """Where a picture has the colour of that share of the largest value: (H, W)."""
    color = 255 * canvas.colored(np.array([share]), 1, is_signed=is_signed)[0]
    return (np.abs(pixels(png) - color) <= 1).all(2)


@pytest.fixture
def photo(tmp_path: pathlib.Path, pngs: list[bytes]) -> pathlib.Path:
    path = tmp_path / "digit.png"
    path.write_bytes(pngs[0])
    return path


def run(repository: pathlib.Path, *arguments: str) -> "testing.Result":
    # Wide, so that no sentence is broken.
    return testing.CliRunner().invoke(
        inspect_cli.app, [*arguments, "--repository", str(repository)], env={"COLUMNS": "200"}
    )


# --- the command


def test_the_summary_and_the_pictures_of_a_classifier(
    exported: conftest.Exported, photo: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    result = run(exported.repository, "lenet5", "--image", str(photo), "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    for words in ("Verified", "61,706", "416,520", "f6", "120 x 1 x 1", "Conv", "in a batch", str(tmp_path / "out")):
        assert words in result.stdout, words
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"filters.png", "features.png", "top5.png", "costs.png", "latency.png"}
    for path in (tmp_path / "out").iterdir():
        Image.open(path).verify()


def test_without_an_image_the_weights_are_drawn(exported: conftest.Exported, tmp_path: pathlib.Path) -> None:
    assert run(exported.repository, "lenet5", "--out", str(tmp_path)).exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"filters.png", "costs.png", "latency.png"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["lenet"], "no model 'lenet' in"),
        (["lenet"], "(did you mean 'lenet5'?); it has lenet5"),
        (["lenet5", "--version", "7"], "has no version 7; it has 1"),
        (["lenet5", "--image", "nowhere.png"], "nowhere.png is not an image that can be read"),
        (["lenet5", "--image", __file__], "test_inspect.py is not an image that can be read"),
        (["lenet5", "--out", "/proc/pictures"], "cannot write pictures to /proc/pictures"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    arguments: list[str], sentence: str, exported: conftest.Exported
) -> None:
    result = run(exported.repository, *arguments)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_help_loads_neither_torch_nor_onnx() -> None:
    program = "import sys, export.inspect_cli; print({'torch', 'onnx', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- reading back


def test_evidence_is_read_back_as_it_was_written(exported: conftest.Exported) -> None:
    found = stored.read(exported.repository, "lenet5")
    assert found.evidence == exported.bundle.evidence
    assert found.labels == tuple(map(str, range(10)))
    assert found.manifest.architecture == "lenet5"
    assert found.folder == exported.repository / "lenet5" / "1"


def test_the_highest_version_is_taken_unless_one_is_named(exported: conftest.Exported, tmp_path: pathlib.Path) -> None:
    for version in ("2", "10"):
        shutil.copytree(exported.repository / "lenet5/1", tmp_path / "m" / version)
    assert stored.read(tmp_path, "m").folder.name == "10"
    assert stored.read(tmp_path, "m", 2).folder.name == "2"
    assert stored.read(tmp_path, "m").labels == ()


def test_models_that_cannot_be_read_are_explained(exported: conftest.Exported, tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.RepositoryError, match="no folder; name the repository with --repository"):
        stored.read(tmp_path / "nowhere", "m")
    with pytest.raises(errors.RepositoryError, match="it is empty"):
        stored.read(tmp_path, "m")
    shutil.copytree(exported.repository / "lenet5", tmp_path / "m")
    report = tmp_path / "m/1/evidence/report.json"
    fields = json.loads(report.read_text())
    for content in ("{", "[]", json.dumps(fields | {"of_the_future": 1}), json.dumps({"identity": fields["identity"]})):
        report.write_text(content)
        with pytest.raises(errors.RepositoryError, match="damaged, or of another version of Fovea"):
            stored.read(tmp_path, "m")
    report.unlink()
    with pytest.raises(errors.RepositoryError, match="was exported by something else"):
        stored.read(tmp_path, "m")


def test_a_graph_that_takes_floats_gets_the_normalised_image(exported: conftest.Exported, photo: pathlib.Path) -> None:
    found = stored.read(exported.repository, "lenet5")
    of_bytes, image_hwc = stored.as_input(found, photo)
    assert of_bytes[signature.INPUT].shape == (1, 32, 32, 1)
    assert np.array_equal(of_bytes[signature.INPUT][0], image_hwc)
    of_floats, same_hwc = stored.as_input(as_floats(found), photo)
    assert np.array_equal(image_hwc, same_hwc)
    wanted = (image_hwc.transpose(2, 0, 1) / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(of_floats[signature.INPUT][0], wanted, atol=1e-6)
    assert of_floats[signature.INPUT].dtype == np.float32


def as_floats(found: stored.Stored) -> stored.Stored:
    """The same model as if it took normalised floats."""
    model = onnx.ModelProto()
    value = helper.make_tensor_value_info(signature.INPUT, onnx.TensorProto.FLOAT, ["batch", 1, 32, 32])
    model.graph.input.append(value)
    described = manifest_pb2.Manifest()
    described.CopyFrom(found.manifest)
    described.ClearField("image")
    return dataclasses.replace(found, model=model, manifest=described)


def test_a_model_that_takes_no_image_says_so(exported: conftest.Exported, photo: pathlib.Path) -> None:
    found = stored.read(exported.repository, "lenet5")
    with pytest.raises(errors.ImageError, match="takes no image"):
        stored.as_input(dataclasses.replace(found, manifest=manifest_pb2.Manifest()), photo)


# --- looking into graphs


def test_feature_maps_become_outputs_of_a_copy(exported: conftest.Exported) -> None:
    found = stored.read(exported.repository, "lenet5")
    before = found.model.SerializeToString()
    image = np.zeros((1, 32, 32, 1), np.uint8)
    answers = inspection.run_with_features(found.model, {signature.INPUT: image}, ["c1", "f6", "nowhere"])
    assert {name: values.shape for name, values in answers.items()} == {
        "logits": (10,),
        "probabilities": (10,),
        "features:c1": (6, 28, 28),
        "features:f6": (84,),
    }
    assert np.array_equal(answers["logits"], runtime.Session(found.model).run({signature.INPUT: image})["logits"][0])
    assert found.model.SerializeToString() == before


def test_the_first_kernels_are_those_of_the_network_but_for_the_scale(exported: conftest.Exported) -> None:
    kernels_oihw = inspection.first_kernels(stored.read(exported.repository, "lenet5").model)
    assert kernels_oihw is not None
    wanted = exported.network.get_parameter("c1.weight").detach().numpy() / (255 * 0.3081)
    np.testing.assert_allclose(kernels_oihw, wanted, rtol=1e-5)


def convolution(*before: onnx.NodeProto, **constants: NDArray[np.generic]) -> onnx.ModelProto:
    """A graph whose convolution takes its weight "w" from constants, or from the nodes before it."""
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 1, 2, 2])
    values = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    nodes = [*before, helper.make_node("Conv", ["image", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", [image], [onnx.ValueInfoProto(name="y")], values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_kernels_are_found_stored_and_quantised_but_not_where_they_depend_on_the_image() -> None:
    weight = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2)
    assert np.array_equal(inspection.first_kernels(convolution(w=weight)), weight)
    dequantize = helper.make_node("DequantizeLinear", ["q", "s"], ["w"])
    quantised = convolution(dequantize, q=weight.astype(np.int8), s=np.float32(0.5))
    assert np.array_equal(inspection.first_kernels(quantised), weight / 2)
    assert inspection.first_kernels(convolution(helper.make_node("Mul", ["v", "image"], ["w"]), v=weight)) is None
    without = convolution(w=weight)
    del without.graph.node[:]
    assert inspection.first_kernels(without) is None


def test_best_classes_come_from_probabilities_or_else_from_logits() -> None:
    labels = ["a", "b", "c"]
    shares = np.array([0.2, 0.7, 0.1], np.float32)
    wanted = [("b", 0.7), ("a", 0.2), ("c", 0.1)]
    for answers in ({"probabilities": shares, "logits": shares}, {"logits": np.log(shares) + 1000}):
        best = inspection.best_classes(answers, labels)
        assert [label for label, _ in best] == ["b", "a", "c"]
        np.testing.assert_allclose([share for _, share in best], [share for _, share in wanted], atol=1e-4)
    assert inspection.best_classes({"logits": shares}, [])[0][0] == "1"
    assert inspection.best_classes({"gx": shares}, labels) == []


def test_the_strongest_quadrature_pair_stands_before_the_energies() -> None:
    bank = filters.Gabor()
    kernels_oihw = bank.kernels.numpy()
    energy_chw = np.zeros((8, 4, 4), np.float32)
    energy_chw[6, 1, 1] = 1
    answers = {"even": energy_chw + 1, "odd": energy_chw - 1, "energy": energy_chw, "pooled": energy_chw}
    panels = inspection.responses(answers, kernels_oihw)
    assert list(panels)[:4] == ["even, 8 px, 90°", "odd, 8 px, 90°", "energy of this pair", "energy, 4 px, 0°"]
    assert len(panels) == 3 + 8
    assert np.array_equal(panels["odd, 8 px, 90°"], energy_chw[6] - 1)
    assert next(iter(inspection.responses(answers, None))) == "even, 6"


def test_a_gradient_has_three_panels_and_a_classifier_none() -> None:
    maps = np.zeros((1, 4, 4), np.float32)
    panels = inspection.responses({"magnitude": maps, "gx": maps, "gy": maps}, None)
    assert [(name, map_hw.shape) for name, map_hw in panels.items()] == [
        ("gx", (4, 4)),
        ("gy", (4, 4)),
        ("magnitude", (4, 4)),
    ]
    assert inspection.responses({"logits": maps}, None) == {}


@pytest.mark.parametrize("wavelength_px", [4.0, 8.0, 12.5])
@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 135])
def test_the_wave_of_a_kernel_is_read_from_its_spectrum(wavelength_px: float, degrees: int) -> None:
    odd_hw = filters.gabor_kernel(wavelength_px, math.radians(degrees))[1].numpy()
    found_px, found_degrees = inspection.wave(odd_hw)
    assert found_px == pytest.approx(wavelength_px, rel=0.03)
    assert abs((found_degrees - degrees + 90) % 180 - 90) < 1


def test_floats_are_stretched_to_a_picture_and_bytes_are_left() -> None:
    row_chw = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 2, 2)
    image_hwc = inspection.as_picture(row_chw)
    assert (image_hwc.shape, image_hwc.min(), image_hwc.max()) == ((2, 2, 3), 0, 255)
    assert inspection.as_picture(image_hwc) is image_hwc
    assert not inspection.as_picture(np.ones((1, 2, 2), np.float32)).any()


# --- pictures


def test_equal_arrays_give_equal_pictures() -> None:
    weights_oihw = np.random.default_rng(0).standard_normal((6, 1, 5, 5))
    assert figures.filter_grid(weights_oihw) == figures.filter_grid(weights_oihw)


def test_kernels_of_three_channels_are_in_colours_and_of_one_are_grey() -> None:
    red = np.zeros((1, 3, 5, 5))
    red[0, 0] = 1
    assert has_color(figures.filter_grid(red), (255, 0, 0))
    signed = np.zeros((1, 1, 5, 5))
    signed[0, 0, 0, 0], signed[0, 0, 4, 4] = 2, -1
    grey = figures.filter_grid(signed)
    assert has_color(grey, (255, 255, 255))
    assert has_color(grey, (128, 128, 128)) or has_color(grey, (127, 127, 127))  # zero
    assert has_color(grey, (64, 64, 64)) or has_color(grey, (63, 63, 63))  # half of the largest, below zero
    for uniform in (np.zeros((2, 3, 1, 1)), np.zeros((300, 4, 3, 3))):
        assert pixels(figures.filter_grid(uniform)).size


def test_feature_maps_show_the_strongest_first() -> None:
    maps_chw = np.zeros((20, 4, 4), np.float32)
    maps_chw[7, :, :2] = 3  # half of this map is at its largest
    maps_chw[13] = 5
    columns = painted(figures.feature_maps({"stage": maps_chw}), 1, is_signed=False).sum(0)
    height_px = columns.max()
    full = np.nonzero(columns == height_px)[0]
    gaps = np.nonzero(np.diff(full) > 1)[0]
    assert len(gaps) == 1
    assert gaps[0] + 1 == pytest.approx(height_px, abs=2)  # all of map 13
    assert len(full) - gaps[0] - 1 == pytest.approx(height_px / 2, abs=2)  # then half of map 7


@pytest.mark.parametrize("shape", [(3, 2, 300), (1, 300, 2), (5, 1, 1), (4096,), (1,), (2048, 1, 1)])
def test_feature_maps_of_any_shape_are_drawn(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    width, height = Image.open(io.BytesIO(figures.feature_maps({"x" * 40: values, "zeros": values * 0}))).size
    assert width == 2 * 974
    assert height < 1000


def test_signed_maps_are_white_at_zero_and_share_their_scale() -> None:
    ramp_hw = np.tile(np.linspace(-1, 1, 9, dtype=np.float32), (9, 1))
    maps = {"gx": ramp_hw, "gy": ramp_hw / 2, "magnitude": np.abs(ramp_hw)}
    picture = figures.responses(np.full((9, 9, 1), 40, np.uint8), maps)
    assert has_color(picture, (40, 40, 40))
    width_px = pixels(picture).shape[1]
    for share, is_signed, panels in (
        (-1, True, {1}),
        (1, True, {1}),
        (0.5, True, {1, 2}),
        (0, True, {1, 2}),
        (1, False, {3}),
    ):
        columns = np.nonzero(painted(picture, share, is_signed=is_signed).sum(0) > 20)[0]
        assert panels <= {int(4 * column / width_px) for column in columns}, share
    ends = np.nonzero(painted(picture, -1, is_signed=True).sum(0) > 20)[0]
    assert {int(4 * column / width_px) for column in ends} == {1}  # gy goes half as far as gx


def test_proportions_of_an_image_are_kept() -> None:
    dark_hwc = np.full((50, 100, 3), 9, np.uint8)
    picture = pixels(figures.best_classes(dark_hwc, [("a label that is far too long for the place that it has", 1.0)]))
    rows, columns = np.nonzero((picture == 9).all(2))
    assert np.ptp(columns) + 1 == pytest.approx(2 * (np.ptp(rows) + 1), rel=0.02)


def test_costs_without_any_and_single_latencies_are_drawn() -> None:
    nothing = evidence.StageCost("nothing", (), 0, 0, 0)
    for png in (
        charts.cost_bars(evidence.Costs(0, 0, 0, 0, (nothing,))),
        charts.latency_bars([LATENCY]),
    ):
        Image.open(io.BytesIO(png)).verify()


def test_an_outline_shows_what_reductions_save() -> None:
    plain = evidence.StageCost("a", (4, 4), 10, 100, 100)
    reduced = dataclasses.replace(plain, macs_direct=900)
    sizes = [
        Image.open(io.BytesIO(charts.cost_bars(evidence.Costs(20, 200, 0, 0, (plain, stage))))).size
        for stage in (plain, reduced)
    ]
    assert sizes[1][1] > sizes[0][1]  # a line for the legend
