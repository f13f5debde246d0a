"""Lower precisions: for the devices that they are for, near enough, and never built on guesses."""

import json
import pathlib

import numpy as np
import onnx
import pytest
from google.protobuf import json_format

from export import bundle, digits, errors, manifest, options, passes, precision, runtime
from protos import manifest_pb2
from service import errors as service_errors
from service.models import manifest as served_manifest
from tests import conftest
from tests.conftest import Exported


def graph(one: bundle.Bundle) -> onnx.ModelProto:
    model = onnx.load_from_string(one.content)
    del model.metadata_props[:]
    return model


def said(one: bundle.Bundle) -> manifest_pb2.Manifest:
    model = onnx.load_from_string(one.content)
    text = next(entry.value for entry in model.metadata_props if entry.key == manifest.KEY)
    return json_format.Parse(text, manifest_pb2.Manifest())


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("calibration")
    for number, image in enumerate(digits.load()[0].images_nhwc[:200]):
        (folder / f"{number:03}.png").write_bytes(conftest.encoded(image[:, :, 0], "PNG"))
    return folder


@pytest.fixture(scope="module")
def variants(
    exported: Exported, calibration: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bundle.Bundle]:
    chosen = options.Options(
        weights=str(exported.weights_path),
        outputs=("probabilities", "top3"),
        precisions=("fp32", "fp16", "int8"),
        calibration=calibration,
    )
    made = conftest.export("lenet5", tmp_path_factory.mktemp("variants"), chosen)
    return {one.evidence.identity.precision: one for one in made}


def test_variants_land_beside_fp32_under_their_own_names(variants: dict[str, bundle.Bundle]) -> None:
    assert {name: one.place.name for name, one in variants.items()} == {
        "fp32": "lenet5",
        "fp16": "lenet5-fp16",
        "int8": "lenet5-int8",
    }
    signatures = [
        [(tensor.name, list(tensor.dims), tensor.data_type) for tensor in (*one.config.input, *one.config.output)]
        for one in variants.values()
    ]
    assert signatures[0] == signatures[1] == signatures[2]


def test_variants_are_labelled_with_the_providers_that_they_are_for(variants: dict[str, bundle.Bundle]) -> None:
    providers = {name: set(said(one).providers) for name, one in variants.items()}
    assert providers == {
        "fp32": {"CPUExecutionProvider", "CUDAExecutionProvider"},
        "fp16": {"CUDAExecutionProvider"},
        "int8": {"CPUExecutionProvider"},
    }
    assert {said(one).precision for one in variants.values()} == {"fp32", "fp16", "int8"}
    served_manifest.check_provider("m", said(variants["int8"]), "CPUExecutionProvider")
    with pytest.raises(service_errors.NotForThisDevice, match="it is the int8 variant, for CPUExecutionProvider"):
        served_manifest.check_provider("m", said(variants["int8"]), "CUDAExecutionProvider")


def test_fp16_halves_the_weights_and_keeps_the_types_at_the_border(variants: dict[str, bundle.Bundle]) -> None:
    model = graph(variants["fp16"])
    weights = [tensor for tensor in model.graph.initializer if tensor.name.endswith(".weight")]
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT16}
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [node.op_type for node in model.graph.node][:3] == ["Transpose", "Cast", "Sub"]
    offset = next(tensor for tensor in model.graph.initializer if tensor.name == "image/offset")
    assert offset.data_type == onnx.TensorProto.FLOAT
    assert len(variants["fp16"].content) < 0.6 * len(variants["fp32"].content)


def test_int8_quantises_all_but_the_layer_that_makes_the_logits(variants: dict[str, bundle.Bundle]) -> None:
    model = graph(variants["int8"])
    fused = passes.operators(runtime.optimized(model))
    assert fused.get("QLinearConv") == 3
    assert fused.get("QGemm") == 1
    assert fused.get("Gemm") == 1
    kinds = {tensor.data_type for tensor in model.graph.initializer if tensor.name.endswith("_quantized")}
    assert onnx.TensorProto.INT8 in kinds
    for tensor in model.graph.initializer:  # reduce_range: seven bits, of which no product saturates
        if tensor.data_type == onnx.TensorProto.INT8 and tensor.name.endswith("weight_quantized"):
            assert np.abs(onnx.numpy_helper.to_array(tensor).astype(int)).max() <= 64


def test_variants_agree_with_fp32_on_the_held_out_digits(variants: dict[str, bundle.Bundle]) -> None:
    images = {"image": digits.load()[1].images_nhwc}
    best = {name: runtime.Session(graph(one)).run(images)["logits"].argmax(1) for name, one in variants.items()}
    assert (best["fp16"] != best["fp32"]).sum() <= 1
    assert (best["int8"] != best["fp32"]).sum() <= 5


def test_the_reports_of_variants_give_their_agreement(variants: dict[str, bundle.Bundle]) -> None:
    fp16, int8 = variants["fp16"].evidence.agreement, variants["int8"].evidence.agreement
    assert fp16 is not None
    assert int8 is not None
    assert fp16.worst <= precision.PRECISIONS["fp16"].gate
    assert int8.top1 is not None
    assert int8.top1 >= 0.97
    assert int8.calibration_images == 200
    assert [row.what for row in variants["int8"].evidence.latency][:2] == ["ONNX Runtime, int8", "ONNX Runtime, fp32"]
    assert variants["fp16"].evidence.latency == ()
    json.dumps(int8.worst)


def test_int8_of_the_same_images_is_equal_to_the_byte(exported: Exported, variants: dict[str, bundle.Bundle]) -> None:
    images = {"image": digits.load()[0].images_nhwc[:24]}
    one, other = (precision.to_int8(graph(variants["fp32"]), images) for _ in range(2))
    assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


def test_int8_without_images_is_refused(exported: Exported, tmp_path: pathlib.Path) -> None:
    chosen = options.Options(weights=str(exported.weights_path), precisions=("fp32", "int8"))
    with pytest.raises(
        errors.OptionError, match=r"int8 needs images that the network will see: pass --calibration DIR"
    ):
        conftest.export("lenet5", tmp_path / "models", chosen)
    assert not (tmp_path / "models").exists()


def test_a_variant_that_is_too_far_off_is_a_violation(variants: dict[str, bundle.Bundle]) -> None:
    fp16 = precision.PRECISIONS["fp16"]
    found = variants["fp16"].evidence.agreement
    assert found is not None
    assert precision.violations(fp16, found) == []
    import dataclasses

    bad = dataclasses.replace(found, worst=0.1, top1=0.5)
    assert "is off by 1.00e-01 from fp32 (allowed 5e-03)" in precision.violations(fp16, bad)[0]
    assert "keeps the best class of only 50.0%" in precision.warnings_of(fp16, bad)[0]
    assert precision.warnings_of(fp16, found) == ()
    assert precision.violations(fp16, dataclasses.replace(found, worst=float("nan")))
