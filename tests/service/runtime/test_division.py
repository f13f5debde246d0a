"""Divisions that would end the process: each is run in a process of its own, as it is and made safe."""

import pathlib
import signal
import subprocess
import sys

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from service import errors
from service.runtime import division, providers, session

OPTIONS = session.Options(providers.choose("cpu"), 1)
LEAST = {dtype: np.iinfo(dtype).min for dtype in (np.int8, np.int16, np.int32, np.int64)}
LOOP = """({t}[N] a, {t}[N] b) => ({t}[N] y) {{
    n = Constant<value = int64 {{1}}>()  go = Constant<value = bool {{1}}>()
    y = Loop(n, go, a) <body = once (int64 i, bool on, v) => (bool next, w) {{
        next = Identity(on)  u = Neg(v)  x = Neg(u)  w = {op}(x, b) }}> }}"""
UNKNOWN = """({t}[N] a, {t}[N] b) => ({t}[N] y) {{
    n = Constant<value = int64 {{1}}>()  go = Constant<value = bool {{1}}>()
    y, z = Loop(n, go, a, b) <body = once (int64 i, bool on, v, d) => (bool next, w, e) {{
        next = Identity(on)  w = {op}(v, d)  e = Identity(d) }}> }}"""
FUNCTION = """({t}[N] a, {t}[N] b) => ({t}[N] y) {{ y = local.divided(a, b) }}
    <domain: "local", opset_import: ["" : 21]> divided (p, q) => (r) {{ r = {op}(p, q) }}"""
PLAIN = "({t}[N] a, {t}[N] b) => ({t}[N] y) {{ y = {op}(a, b) }}"
PLACES = {"plain": PLAIN, "loop": LOOP, "loop's own": UNKNOWN, "function": FUNCTION}


def write(folder: pathlib.Path, body: str, opset: int = 21) -> pathlib.Path:
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}, "local" : 1]> g {body}')
    path = folder / "m.onnx"
    onnx.save(model, path)
    return path


def run(path: pathlib.Path, **inputs: NDArray[np.generic]) -> NDArray[np.generic]:
    return session.Session("m", path, OPTIONS).run(inputs, ["y"])["y"]


def pairs(dtype: type[np.generic]) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Dividends and divisors: the extremes, and all signs."""
    if np.issubdtype(dtype, np.integer):
        most = np.iinfo(dtype)
        numbers = [most.min, most.max, 0, 1, 7, most.max - 1] + ([-1, -7] if most.min < 0 else [])
    else:
        numbers = [0.0, -0.0, 1.0, -1.0, 7.5, -7.5, np.inf, np.nan]
    a, b = np.meshgrid(np.array(numbers, dtype), np.array([n for n in numbers if n or dtype == np.float32], dtype))
    return a.ravel(), b.ravel()


def expected(op: str, a: NDArray[np.generic], b: NDArray[np.generic]) -> NDArray[np.generic]:
    """As ONNX has it: quotients towards zero, remainders with the divisor's sign; in Python's own numbers."""
    whole = [(int(x), int(y)) for x, y in zip(a, b, strict=True)]
    if op == "Mod":
        return np.array([x % y for x, y in whole], a.dtype)
    quotients = [abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1) for x, y in whole]
    return np.array([q - (1 << 8 * a.itemsize) if q > np.iinfo(a.dtype).max else q for q in quotients], a.dtype)


@pytest.mark.parametrize("op", ["Div", "Mod"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_every_pair_of_numbers_has_its_answer(
    tmp_path: pathlib.Path, op: str, place: str, dtype: type[np.generic]
) -> None:
    path = write(tmp_path, PLACES[place].format(t=np.dtype(dtype).name, op=op))
    assert division.made_safe("m", path) is not None
    a, b = pairs(dtype)
    assert run(path, a=a, b=b).tolist() == expected(op, a, b).tolist()


@pytest.mark.parametrize("op", ["Div", "Mod"])
def test_without_us_the_process_would_end(tmp_path: pathlib.Path, op: str) -> None:
    """If this fails, ONNX Runtime has mended it, and service/runtime/division.py can go."""
    path = write(tmp_path, PLAIN.format(t="int64", op=op))
    program = (
        "import numpy, onnxruntime; session = onnxruntime.InferenceSession(r'" + str(path) + "'); "
        "session.run(None, {'a': numpy.array([-2**63]), 'b': numpy.array([-1])})"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert ended.returncode == -signal.SIGFPE


@pytest.mark.parametrize("place", ["loop's own", "function"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_where_the_type_is_not_known_other_types_keep_their_bits(
    tmp_path: pathlib.Path, place: str, dtype: type[np.generic]
) -> None:
    name = {"float32": "float", "float64": "double"}.get(np.dtype(dtype).name, np.dtype(dtype).name)
    path = write(tmp_path, PLACES[place].format(t=name, op="Div"))
    assert division.made_safe("m", path) is not None
    a, b = pairs(dtype)
    if np.issubdtype(dtype, np.integer):
        assert run(path, a=a, b=b).tolist() == expected("Div", a, b).tolist()
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            wanted = a / b
        found = run(path, a=a, b=b)
        numbers = ~np.isnan(wanted)
        assert (np.isnan(found) == ~numbers).all()
        assert found[numbers].tobytes() == wanted[numbers].tobytes()


@pytest.mark.parametrize(
    "body",
    [
        "(float[N] a, float[N] b) => (float[N] y) { y = Div(a, b) }",
        "(float[N] a) => (float[N] y) { c = Exp(a) s = Add(a, c) y = Div(s, c) }",
        "(float16[N] a, float16[N] b) => (float16[N] y) { y = Div(a, b) }",
        "(int8[N] a, int8[N] b) => (int8[N] y) { y = Div(a, b) }",
        "(uint64[N] a, uint64[N] b) => (uint64[N] y) { y = Mod(a, b) }",
        "(int64[N] a, int64[N] b) => (int64[N] y) { y = Mod<fmod = 1>(a, b) }",
        "(int64[N] a) => (int64[N] y) { c = Constant<value = int64[2] {2, 3}>() y = Div(a, c) }",
        "(int64[N] a) => (int64[N] y) { c = Constant<value_int = 2>() y = Mod(a, c) }",
        "(int32[N] a) => (int32[N] y) <int32 c = {5}> { y = Div(a, c) }",
        "(float[N] a) => (int64[1] y) { s = Shape(a) c = Constant<value_ints = [2]>() y = Div(s, c) }",
        "(float[N] a) => (float[N] y) { y = Neg(a) }",
    ],
)
def test_what_is_safe_is_left_alone(tmp_path: pathlib.Path, body: str) -> None:
    assert division.made_safe("m", write(tmp_path, body)) is None


@pytest.mark.parametrize(
    "body",
    [
        "(int64[N] a) => (int64[N] y) { c = Constant<value = int64 {-1}>() y = Div(a, c) }",
        "(int64[N] a) => (int64[N] y) { c = Constant<value_int = -1>() y = Div(a, c) }",
        "(int32[N] a, int32 c) => (int32[N] y) <int32 c = {5}> { y = Div(a, c) }",
        "(float[N] a) => (int64[N] y) { c = Cast<to = 7>(a) y = Div(c, c) }",
    ],
)
def test_constants_that_are_minus_one_or_can_be_overridden_are_not_safe(tmp_path: pathlib.Path, body: str) -> None:
    path = write(tmp_path, body)
    assert division.made_safe("m", path) is not None
    session.Session("m", path, OPTIONS)


def test_division_by_zero_is_an_error_of_the_request(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, PLAIN.format(t="int64", op="Div"))
    with pytest.raises(Exception, match="zero"):
        run(path, a=np.array([1]), b=np.array([0]))


def test_an_opset_without_what_it_takes_is_refused(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, PLAIN.format(t="int64", op="Div"), opset=8)
    with pytest.raises(errors.ModelLoadError, match=r"cannot be made safe in opset 8; convert it to opset 9 or newer"):
        session.Session("m", path, OPTIONS)


def test_weights_in_a_file_beside_it_are_found(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, "(int64[2] a) => (int64[2] y) { y = Div(a, c) }")
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 3]), "c"))
    path.unlink()
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert division.made_safe("m", path) is not None
    assert run(path, a=np.array([LEAST[np.int64], 9])).tolist() == [LEAST[np.int64], 3]


def test_everything_else_in_the_file_is_kept(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, PLAIN.format(t="int64", op="Div"))
    model = onnx.load(path)
    model.metadata_props.add(key="k", value="v")
    model.producer_name, model.doc_string = "somebody", "about it"
    onnx.save(model, path)
    safe = onnx.load_from_string(division.made_safe("m", path))
    onnx.checker.check_model(safe)
    del safe.graph.node[:]
    del model.graph.node[:]
    assert safe == model
    assert session.Session("m", path, OPTIONS).metadata == {"k": "v"}


@pytest.mark.parametrize("opset", [13, 17])
def test_an_embedding_s_normalisation_is_known_to_be_of_floats(tmp_path: pathlib.Path, opset: int) -> None:
    path = write(tmp_path, """(float[N, 3, 8, 8] x) => (float[N, 2] y)
        <float[2, 3, 1, 1] w = {1, 2, 3, 4, 5, 6}> {
        c = Conv(x, w)  p = MaxPool<kernel_shape = [2, 2]>(c)  g = GlobalAveragePool(p)  f = Flatten(g)
        n = ReduceL2<axes = [1], keepdims = 1>(f)  y = Div(f, n) }""", opset)  # fmt: skip
    assert division.made_safe("m", path) is None
