"""A session does what its options and knobs say, and knows which provider runs which node."""

import dataclasses
import pathlib

import numpy as np
import onnx
import pytest
from onnx import parser

from service import datatypes, errors
from service.runtime import knobs, providers, session
from tests.service.runtime import graphs

OPTIONS = session.Options(providers.choose("cpu"), 1)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return graphs.convnet(tmp_path / "m.onnx")


def test_placement_is_read_from_onnx_runtime(path: pathlib.Path) -> None:
    placement = session.Session("m", path, OPTIONS, knobs.Knobs(graph_level=knobs.GraphLevel.OFF)).placement
    assert placement.nodes == {providers.CPU: 12}
    assert placement.nodes_on_cpu == 12
    assert placement.convolutions_on_cpu == ("first", "second")


def test_convolutions_on_the_cpu_are_refused_when_the_device_is_another(path: pathlib.Path) -> None:
    placement = session.Session("m", path, OPTIONS, knobs.Knobs(graph_level=knobs.GraphLevel.OFF)).placement
    session.check_placement("m", placement, providers.CPU)
    with pytest.raises(errors.ModelLoadError, match=r"leaves 2 of its convolutions to the CPU \(first, second"):
        session.check_placement("m", placement, providers.CUDA)
    elsewhere = dataclasses.replace(placement, convolutions_on_cpu=())
    session.check_placement("m", elsewhere, providers.CUDA)


@pytest.mark.parametrize("level", list(knobs.GraphLevel))
def test_every_graph_level_reaches_onnx_runtime(level: knobs.GraphLevel) -> None:
    made = session._session_options(1, knobs.Knobs(graph_level=level))
    assert made.graph_optimization_level.name.lower().endswith({"off": "disable_all"}.get(level.value, level.value))


def test_threads_never_spin() -> None:
    made = session._session_options(2, knobs.Knobs())
    assert made.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert made.get_session_config_entry("session.inter_op.allow_spinning") == "0"


@pytest.mark.parametrize(
    "wanted",
    [
        knobs.Knobs(runs_branches_in_parallel=True, branch_threads=2),
        knobs.Knobs(uses_arena=False, uses_memory_pattern=False),
        knobs.Knobs(graph_level=knobs.GraphLevel.BASIC),
    ],
)
def test_no_knob_changes_an_answer(path: pathlib.Path, wanted: knobs.Knobs) -> None:
    feed = {"image": graphs.pixels(3)}
    plain = session.Session("m", path, OPTIONS).run(feed, ["scores"])["scores"]
    turned = session.Session("m", path, OPTIONS, wanted).run(feed, ["scores"])["scores"]
    np.testing.assert_allclose(turned, plain, rtol=1e-5, atol=1e-6)


def test_a_bound_run_reads_and_writes_its_fixed_addresses(path: pathlib.Path) -> None:
    loaded = session.Session("m", path, OPTIONS)
    image = loaded.device_tensor((2, graphs.SIDE, graphs.SIDE, graphs.CHANNELS), np.dtype(np.uint8))
    scores = loaded.device_tensor((2, graphs.CLASSES), np.dtype(np.float32))
    assert image.address == image.address
    bound = loaded.bind({"image": image}, {"scores": scores})
    for seed in (1, 2):
        rows = graphs.pixels(2, seed)
        image.value.numpy()[...] = rows
        bound.run()
        wanted = loaded.run({"image": rows}, ["scores"])["scores"]
        np.testing.assert_allclose(scores.value.numpy(), wanted, rtol=1e-5, atol=1e-6)


def of_text(path: pathlib.Path, body: str) -> session.Session:
    onnx.save(parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g {body}'), path)
    return session.Session("m", path, OPTIONS)


def test_bfloat16_is_carried_as_bit_patterns(tmp_path: pathlib.Path) -> None:
    loaded = of_text(tmp_path / "m.onnx", "(bfloat16[N] x, float[] z) => (float[N] y, float[] w) "
                     "{ y = Cast<to=1>(x) w = Neg(z) }")  # fmt: skip
    values = np.array([1.5, -2.0, 3e38], np.float32)
    patterns = datatypes.patterns(np.repeat(values, 2))[::2]  # every other one: not contiguous
    answers = loaded.run({"x": patterns, "z": np.array(4, np.float32)}, ["y", "w"])
    assert (answers["y"] == datatypes.floats(patterns)).all()
    assert np.allclose(answers["y"], values, rtol=2**-7)
    assert (answers["w"].shape, float(answers["w"])) == ((), -4)


def test_bfloat16_beside_strings_is_refused(tmp_path: pathlib.Path) -> None:
    body = "(string[2] x, bfloat16[2] z) => (string[2] y, bfloat16[2] w) { y = Identity(x) w = Identity(z) }"
    with pytest.raises(errors.ModelLoadError, match=r"strings \(x, y\) beside BF16 \(w, z\), which ONNX Runtime's"):
        of_text(tmp_path / "m.onnx", body)


def test_inputs_with_values_in_the_graph_are_optional(tmp_path: pathlib.Path) -> None:
    loaded = of_text(
        tmp_path / "m.onnx", "(float[N] x, float[1] b) => (float[N] y) <float[1] b = {5}> { y = Add(x, b) }"
    )
    assert ([spec.name for spec in loaded.inputs], [spec.name for spec in loaded.optional]) == (["x"], ["b"])
    assert loaded.inputs[0].axis == "N"
    assert loaded.run({"x": np.zeros(2, np.float32)}, ["y"])["y"].tolist() == [5, 5]
