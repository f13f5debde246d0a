"""Rows that mix are never batched, however well they hide it; rows that do not are, and the reason is told."""

import pathlib

import numpy as np
import onnx
import pytest
from onnx import parser

from service.models import independence
from service.runtime import instances, providers, session

ROWS = "(float[N,4] x) => (float[N,4] y)"

# What it does → graph in ONNX's text form.
MIXED = {
    "softmax over the batch": f"{ROWS} {{ y = Softmax<axis=0>(x) }}",
    "distance from the mean": f"{ROWS} {{ m = ReduceMean<keepdims=0, noop_with_empty_axes=0>(x) y = Sub(x, m) }}",
    "sum so far": f"{ROWS} <int64 axis = {{0}}> {{ y = CumSum(x, axis) }}",
    "sums backwards": f"{ROWS} <int64 axis = {{0}}> {{ y = CumSum<reverse=1>(x, axis) }}",
    "best of the batch": f"{ROWS} <int64[1] k = {{1}}> {{ v, i = TopK<axis=0>(x, k) y = Add(x, v) }}",
    "place of the best": f"{ROWS} {{ i = ArgMax<axis=0>(x) f = Cast<to=1>(i) y = Add(x, f) }}",
    "batch norm in training": f"{ROWS} <float[4] one = {{1, 1, 1, 1}}> "
    "{ y, m, v = BatchNormalization<training_mode=1>(x, one, one, one, one) }",
    "norm over the batch": f"{ROWS} {{ y = LpNormalization<axis=0>(x) }}",
    "attention over the batch": f"{ROWS} "
    "{ t = Transpose(x) d = MatMul(x, t) s = Softmax<axis=1>(d) y = MatMul(s, x) }",
    "the first row in all": f"{ROWS} <int64[1] a = {{0}}, int64[1] b = {{1}}> "
    "{ r = Slice(x, a, b, a) y = Add(x, r) }",
    "a trace of the first row": f"{ROWS} <int64[1] a = {{0}}, int64[1] b = {{1}}, float t = {{1e-30}}> "
    "{ r = Slice(x, a, b, a) s = Mul(r, t) y = Add(x, s) }",
    "a trace of the sum": f"{ROWS} <float t = {{1e-30}}> "
    "{ m = ReduceSum<keepdims=0>(x) s = Mul(m, t) y = Add(x, s) }",
    "what is beyond a million": f"{ROWS} <float t = {{1e6}}> "
    "{ m = ReduceMax<keepdims=0>(x) d = Sub(m, t) r = Relu(d) y = Add(x, r) }",
    "the sum, rounded to a million": f"{ROWS} <float t = {{1e-6}}> "
    "{ m = ReduceSum<keepdims=0>(x) d = Mul(m, t) r = Round(d) y = Add(x, r) }",
    "a comparison with a thousand": f"{ROWS} <float t = {{1e3}}> "
    "{ m = ReduceMax<keepdims=0>(x) g = Greater(m, t) f = Cast<to=1>(g) y = Add(x, f) }",
    "whether all are equal": f"{ROWS} {{ a = ReduceMax<keepdims=0>(x) b = ReduceMin<keepdims=0>(x) "
    "e = Equal(a, b) f = Cast<to=1>(e) y = Add(x, f) }",
    "the number of rows": f"{ROWS} {{ s = Shape<end=1>(x) f = Cast<to=1>(s) y = Div(x, f) }}",
    "the brightest of all pictures": "(uint8[N,4] x) => (float[N,4] y) <int64[1] a = {1}, float t = {254}> "
    "{ f = Cast<to=1>(x) r = ReduceMean(f, a) m = ReduceMax<keepdims=0>(r) d = Sub(m, t) g = Relu(d) y = Add(f, g) }",
    "whether all are true": "(bool[N,64] x) => (float[N,64] y) "
    "{ f = Cast<to=1>(x) m = ReduceMin<keepdims=0>(f) y = Add(f, m) }",
    "a scale for the batch": f"{ROWS} {{ q, s, z = DynamicQuantizeLinear(x) y = DequantizeLinear(q, s, z) }}",
    "chance": f"{ROWS} {{ r = RandomUniformLike(x) y = Add(x, r) }}",
    "rows that are left out": "(float[N,4] x) => (float[M,2] y) { z = NonZero(x) t = Transpose(z) y = Cast<to=1>(t) }",
    "sizes of two inputs": "(float[N,4] x, float[M,4] z) => (float[N,4] y) "
    "{ s = ReduceSum<keepdims=0>(z) y = Add(x, s) }",
    "an output for the batch": "(float[N,4] x) => (float[N,4] y, float s) { y = Neg(x) s = ReduceSum<keepdims=0>(x) }",
}  # fmt: skip
STRANGERS = {
    "one operator": f"{ROWS} {{ y = Relu(x) }}",
    "softmax over classes": f"{ROWS} {{ y = Softmax<axis=1>(x) }}",
    "best of a row": "(float[N,4] x) => (int64[N] y) { y = ArgMax<axis=1, keepdims=0>(x) }",
    "pictures": "(uint8[N,8,8,3] x) => (float[N,3] y) "
    "{ f = Cast<to=1>(x) t = Transpose<perm=[0,3,1,2]>(f) p = GlobalAveragePool(t) y = Flatten(p) }",
    "indices": "(int64[N,3] x) => (float[N,3,2] y) <float[5,2] w = {1,2,3,4,5,6,7,8,9,10}> { y = Gather(w, x) }",
    "indices of two": "(int32[N,3] x) => (float[N,3,1] y) <float[2,1] w = {1,2}> { y = Gather(w, x) }",
    "two inputs": "(float[N,4] x, float[N,4] z) => (float[N,4] y) { y = Add(x, z) }",
    "half floats": "(float16[N,4] x) => (float16[N,4] y) { y = Neg(x) }",
    "bfloat16": "(bfloat16[N,4] x) => (bfloat16[N,4] y) { f = Cast<to=1>(x) g = Neg(f) y = Cast<to=16>(g) }",
    "strings": "(string[N,2] x) => (string[N,2] y) { y = Identity(x) }",
    "truths": "(bool[N,64] x) => (bool[N,64] y) { y = Not(x) }",
}


def judge(folder: pathlib.Path, body: str) -> independence.Verdict:
    path = folder / "model.onnx"
    onnx.save(parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> graph {body}'), path)
    loaded = instances.Instances("m", path, session.Options(providers.choose("cpu"), 1))
    verdict = independence.judge(loaded)
    loaded.close()
    return verdict


@pytest.mark.parametrize("what", MIXED)
def test_rows_that_mix_are_not_batched(tmp_path: pathlib.Path, what: str) -> None:
    verdict = judge(tmp_path, MIXED[what])
    assert verdict.rows_max == 0
    assert verdict.reason


@pytest.mark.parametrize("what", STRANGERS)
def test_rows_that_are_strangers_are_batched(tmp_path: pathlib.Path, what: str) -> None:
    verdict = judge(tmp_path, STRANGERS[what])
    assert verdict.rows_max == independence.ROWS_MAX, verdict.reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("() => (float[2] y) { y = Constant<value = float[2] {1, 2}>() }", "it has no inputs"),
        ("(float[3,4] x) => (float[3,4] y) { y = Neg(x) }", "first dimension of 'x' is not free: [3, 4]"),
        ("(float[N,M] x) => (float[N,M] y) { y = Neg(x) }", "sizes beside the first dimension are free"),
        (MIXED["sizes of two inputs"], "have different names: 'M', 'N'"),
        (MIXED["a comparison with a thousand"], "what Greater does to a row may depend on others"),
        (MIXED["sum so far"], "output 'y' of a row is not the same alone and among 2 rows"),
        ("(float[N,4] x) => (float[N,4] y) { z = Sub(x, x) y = Mul(z, z) }", "is the same for all rows tried"),
        ("(float[N,0] x) => (float[N,0] y) { y = Neg(x) }", "output 'y' is empty"),
        ("(int64[N,3] x) => (float[N,3,1] y) <float[1,1] w = {1}> { y = Gather(w, x) }", "made-up inputs do not run"),
    ],
)  # fmt: skip
def test_the_reason_is_told(tmp_path: pathlib.Path, body: str, reason: str) -> None:
    assert reason in judge(tmp_path, body).reason


def test_any_nan_is_as_good_as_another() -> None:
    """Alone and in company a row may go different ways through the same kernel, which differ in the sign of NaN."""
    assert independence._are_same(np.array([np.nan, 1.0]), np.array([-np.nan, 1.0]))
    assert not independence._are_same(np.array([np.nan, 1.0]), np.array([1.0, np.nan]))
    assert not independence._are_same(np.array([0.0]), np.array([-0.0]))
