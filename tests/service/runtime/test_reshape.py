"""Shapes that differ between requests and the graph, in the session that hides it."""

import pathlib

import numpy as np
import onnx
import pytest
from onnx import parser

from service import errors
from service.runtime import knobs, providers, reshape, session

OPTIONS = session.Options(providers.choose("cpu"), 1)
RESHAPES = {"x": reshape.Reshape((-1, 6), (-1, 2, 3)), "y": reshape.Reshape((-1, 3, 2), (-1, 2, 3))}
X = np.arange(24, dtype=np.float32).reshape(4, 6)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    body = "(float[N,2,3] x) => (float[N,2,3] y, float[N,2,3] z) { y = Neg(x) z = Abs(x) }"
    onnx.save(parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g {body}'), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_a_session_shows_the_shapes_of_requests(path: pathlib.Path) -> None:
    loaded = session.Session("m", path, OPTIONS, knobs.Knobs(reshapes=RESHAPES))
    assert [spec.shape for spec in (*loaded.inputs, *loaded.outputs)] == [(-1, 6), (-1, 3, 2), (-1, 2, 3)]
    answers = loaded.run({"x": X}, ["y", "z"])
    assert (answers["y"] == -X.reshape(4, 3, 2)).all()
    assert (answers["z"] == X.reshape(4, 2, 3)).all()
    loaded.shrink({"x": X})


def test_a_run_between_addresses_has_the_graph_s_shapes(path: pathlib.Path) -> None:
    loaded = session.Session("m", path, OPTIONS, knobs.Knobs(reshapes=RESHAPES))
    x = loaded.device_tensor((4, 6), np.dtype(np.float32))
    y = loaded.device_tensor((4, 3, 2), np.dtype(np.float32))
    x.value.update_inplace(X)
    loaded.bind({"x": x}, {"y": y}).run()
    assert (y.value.numpy() == -X.reshape(4, 3, 2)).all()


def test_what_does_not_fit_is_refused(path: pathlib.Path) -> None:
    wrong = {"x": reshape.Reshape((-1, 6), (-1, 3, 2))}
    with pytest.raises(errors.ModelLoadError, match=r"reshapes 'x' to \[-1, 3, 2\]; the graph has \[-1, 2, 3\]"):
        session.Session("m", path, OPTIONS, knobs.Knobs(reshapes=wrong))


@pytest.mark.parametrize(
    ("wire", "graph", "shape", "moved"),
    [
        ((-1, 1), (-1,), (5, 1), (5,)),
        ((1,), (), (1,), ()),
        ((-1, 4, -1, 1), (-1, -1, 2, 2), (3, 4, 7, 1), (3, 7, 2, 2)),
    ],
)
def test_free_sizes_go_over_in_order(
    wire: reshape.Shape, graph: reshape.Shape, shape: reshape.Shape, moved: reshape.Shape
) -> None:
    both = reshape.Reshape(wire, graph)
    assert both.fits
    assert both.in_graph(shape) == moved
    assert both.on_wire(moved) == shape


def test_other_numbers_of_elements_do_not_fit() -> None:
    assert not reshape.Reshape((-1, 2), (-1, 3)).fits
    assert not reshape.Reshape((-1, -1), (-1, 1)).fits
