"""The verification: what is right passes, what is wrong fails with its figures, and nothing passes by default."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from export import errors, options, passes, pipeline, reference, runtime, signature, sources, subject, trials, verify
from export.passes import strip

LENET5 = "lenet5"


def random_source(seed: int, *outputs: str) -> subject.Source:
    return sources.find(LENET5, options.Options(weights="random", seed=seed, outputs=outputs))


@pytest.fixture(scope="module")
def source() -> subject.Source:
    return random_source(7)


def graph_of(source: subject.Source, chosen: options.Options) -> onnx.ModelProto:
    names = pipeline.output_names(source, chosen)
    return passes.run(source.graph, pipeline.passes_for(source, chosen, names))[0]


@pytest.fixture(scope="module")
def graph(source: subject.Source) -> onnx.ModelProto:
    return graph_of(source, options.Options())


def tried(source: subject.Source) -> list[verify.Trial]:
    assert source.facts.preprocessing is not None
    return trials.of_images(source.facts.preprocessing, signature.UINT8_NHWC)


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


def test_two_exports_of_the_same_weights_are_equal_to_the_byte(graph: onnx.ModelProto) -> None:
    again = graph_of(random_source(7), options.Options())
    assert again.SerializeToString(deterministic=True) == graph.SerializeToString(deterministic=True)


def test_the_graph_of_a_network_is_verified_at_every_batch_on_noise_and_real_images(
    source: subject.Source, graph: onnx.ModelProto
) -> None:
    result = verify.verify(graph, source.reference, tried(source), (1, 2, 64))
    assert {(row.inputs, row.batch) for row in result.parity} == {
        (inputs, batch) for inputs in ("noise", "real") for batch in (1, 2, 64)
    }
    assert all(row.float64 is not None and max(row.float32, row.float64) <= verify.GATE for row in result.parity)
    assert result.is_batch_invariant


def test_a_graph_of_other_weights_fails_with_its_figures(graph: onnx.ModelProto) -> None:
    other = random_source(8)
    with pytest.raises(errors.VerificationError, match=r"logits, batch 7 of real 32x32x1: off by \d.*allowed 1e-05"):
        verify.verify(graph, other.reference, tried(other))


def test_a_weight_that_is_off_by_a_thousandth_is_found(source: subject.Source, graph: onnx.ModelProto) -> None:
    changed = copied(graph)
    weight = next(tensor for tensor in changed.graph.initializer if tensor.name == "c3.weight")
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0] *= 1.001
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    with pytest.raises(errors.VerificationError, match="off by"):
        verify.verify(changed, source.reference, tried(source))


def test_forbidden_operators_and_wrong_signatures_are_violations(graph: onnx.ModelProto) -> None:
    changed = copied(graph)
    changed.graph.node.append(helper.make_node("Gather", ["logits", "x"], ["y"]))
    changed.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
    violations = " ".join(verify.structure(changed, ["logits", "probabilities"]))
    assert "must not have: Gather" in violations
    assert "'logits' is not the dynamic 'batch'" in violations
    assert "expected 'image' and ['logits', 'probabilities']" in violations
    assert verify.structure(graph, ["logits"]) == []


class _Given:
    """A reference that says what it is told to."""

    has_float64, is_by_row = False, False

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def run(self, inputs: runtime.Arrays, dtype: Any) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            return {"y": self._network(torch.from_numpy(inputs["x"])).numpy()}


def mixing(operators: list[onnx.NodeProto]) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 4]) for name in "xy")
    return helper.make_model(
        helper.make_graph(operators, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )


def test_a_model_that_mixes_neighbours_is_refused_or_said(graph: onnx.ModelProto) -> None:
    model = mixing([helper.make_node("Constant", [], ["axes"], value_ints=[0])])
    model.graph.node.append(helper.make_node("ReduceMean", ["x", "axes"], ["mean"]))
    model.graph.node.append(helper.make_node("Sub", ["x", "mean"], ["y"]))
    trial = verify.Trial("noise", {"x": np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)})

    class Centred(nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return rows - rows.mean(0, keepdim=True)

    with pytest.raises(errors.VerificationError, match="a row computed alone differs"):
        verify.verify(model, _Given(Centred()), [trial], (1, 4))
    assert not verify.verify(model, _Given(Centred()), [trial], (1, 4), must_batch=False).is_batch_invariant


def test_not_a_number_is_never_near_enough() -> None:
    wanted = np.zeros(3, np.float32)
    assert verify.distance(np.array([0, np.nan, 0], np.float32), wanted) == np.inf
    assert verify.distance(np.zeros(4, np.float32), wanted) == np.inf
    assert verify.distance(np.full(3, 0.5, np.float32), wanted) == 0.5
    assert verify.distance(np.array([101.0]), np.array([100.0])) == pytest.approx(0.01)


def test_the_best_class_must_agree_only_where_it_is_clear() -> None:
    wanted = np.array([[1.0, 0.0], [1.0, 1.0 - 1e-7]])
    assert verify.same_top1(wanted, wanted, 1e-5)
    assert verify.same_top1(np.array([[1.0, 0.0], [0.9999999, 1.0]]), wanted, 1e-5)
    assert not verify.same_top1(np.array([[0.0, 1.0], [1.0, 0.0]]), wanted, 1e-5)


def test_goldens_have_fewer_rows_and_outputs_where_they_would_be_large(graph: onnx.ModelProto) -> None:
    images = {"image": np.zeros((8, 32, 32, 1), np.uint8)}
    inputs, outputs, left_out = verify.goldens(graph, images)
    assert (len(inputs["image"]), outputs["logits"].shape, left_out) == (4, (4, 10), ())
    big = mixing([helper.make_node("Relu", ["x"], ["y"])])
    for value in (*big.graph.input, *big.graph.output):
        value.type.tensor_type.shape.dim[1].dim_value = 50_000
    big.graph.node.append(helper.make_node("Neg", ["x"], ["z"]))
    big.graph.output.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["batch", 50_000]))
    rows = {"x": np.ones((4, 50_000), np.float32)}
    inputs, outputs, left_out = verify.goldens(big, rows)
    assert (len(inputs["x"]), sorted(outputs), left_out) == (1, ["y", "z"], ())
    for value in (*big.graph.input, *big.graph.output):
        value.type.tensor_type.shape.dim[1].dim_value = 100_000
    inputs, outputs, left_out = verify.goldens(big, {"x": np.ones((4, 100_000), np.float32)})
    assert (len(inputs["x"]), sorted(outputs), left_out) == (1, ["z"], ("y",))


def test_an_answer_of_another_batch_than_its_input_fails(source: subject.Source) -> None:
    model = copied(strip.strip(copied(graph_of(source, options.Options())))[0])
    model.graph.node.append(helper.make_node("Identity", ["logits"], ["again"]))
    model.graph.output[0].name = "again"
    with pytest.raises(onnx.checker.ValidationError):
        model.graph.node[-1].input[0] = "nowhere"
        verify.verify(model, source.reference, tried(source))


def test_the_reference_in_float64_differs_from_float32_and_leaves_the_network_alone(source: subject.Source) -> None:
    assert isinstance(source.reference, reference.TorchReference)
    inputs = tried(source)[-1].inputs
    one, other = (source.reference.run(inputs, dtype)["logits"] for dtype in (np.float32, np.float64))
    assert (one.dtype, other.dtype) == (np.float32, np.float64)
    assert 0 < verify.distance(one, other) < verify.GATE
    assert source.facts.network is not None
    assert {p.dtype for p in source.facts.network.parameters()} == {torch.float32}
