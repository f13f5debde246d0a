"""From torchvision's own network through `--weights file.pth` to the graph in the repository: the same numbers."""

import pathlib

import numpy as np
import onnxruntime
import pytest
import torch

from export import digits, options, photos, preprocessing, verify
from tests import conftest, oracle

SEED = 11
NAMES = [
    "resnet18",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("alexnet", "googlenet", "resnet34", "resnet50", "resnet101", "resnet152")
    ),
]


def saved(name: str, folder: pathlib.Path, **more: object) -> tuple[torch.nn.Module, str]:
    network = oracle.torchvision_model(name, SEED, **({"init_weights": False} if name == "googlenet" else {}), **more)
    path = folder / f"{name}.pth"
    torch.save(network.state_dict(), path)
    return network, str(path)


def normalised(images_nhwc: np.ndarray) -> torch.Tensor:
    """What torchvision's transforms make of pixels of the right size."""
    mean, std = np.array(preprocessing.IMAGENET_MEAN), np.array(preprocessing.IMAGENET_STD)
    return torch.from_numpy(((images_nhwc / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)).contiguous()


@pytest.mark.parametrize("name", NAMES)
def test_the_exported_graph_computes_what_torchvision_computes(name: str, tmp_path: pathlib.Path) -> None:
    theirs, weights_path = saved(name, tmp_path)
    conftest.export(name, tmp_path / "models", options.Options(weights=weights_path, batch_max=5))
    path = tmp_path / "models" / name / "1/model.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images_nhwc = photos.real((224, 224, 3), 5)
    with torch.inference_mode():
        wanted = theirs(normalised(images_nhwc)).numpy()
    for rows in (images_nhwc[:1], images_nhwc):
        got = session.run(["logits"], {"image": rows})[0]
        assert verify.distance(got, wanted[: len(rows)]) <= verify.GATE
        assert verify.same_top1(got, wanted[: len(rows)], verify.GATE)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["uint8-nhwc", "float32-nchw"])
def test_googlenets_transform_input_is_torchvisions(layout: str, tmp_path: pathlib.Path) -> None:
    theirs, weights_path = saved("googlenet", tmp_path, transform_input=True)
    chosen = options.Options(weights=weights_path, layout_asked=layout, transform_input=True, batch_max=5)
    (made,) = conftest.export("googlenet", tmp_path / "models", chosen)
    assert sum(made.evidence.operators.exported.values()) <= 142  # no Gather, no Concat before the first convolution
    images_nhwc = photos.real((224, 224, 3), 2)
    images = normalised(images_nhwc)
    with torch.inference_mode():
        wanted = theirs(images).numpy()
    session = onnxruntime.InferenceSession(made.content, providers=["CPUExecutionProvider"])
    got = session.run(["logits"], {"image": images_nhwc if layout == "uint8-nhwc" else images.numpy()})[0]
    assert verify.distance(got, wanted) <= verify.GATE


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "nodes_max"), [("float32-nchw", 58), ("uint8-nhwc", 61)])
def test_onnx_runtime_fuses_resnet50_into_few_nodes(layout: str, nodes_max: int, tmp_path: pathlib.Path) -> None:
    chosen = options.Options(weights="random", layout_asked=layout, batch_max=2)
    (made,) = conftest.export("resnet50", tmp_path, chosen)
    assert sum(made.evidence.operators.optimized.values()) <= nodes_max
    assert made.evidence.operators.exported["GlobalAveragePool"] == 1
    assert "ReduceMean" not in made.evidence.operators.exported


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "googlenet"])
def test_a_graph_for_any_size_is_tried_at_others_before_it_is_believed(name: str, tmp_path: pathlib.Path) -> None:
    chosen = options.Options(weights="random", is_any_size=True, batch_max=2)
    (made,) = conftest.export(name, tmp_path, chosen)
    assert [list(tensor.dims) for tensor in made.config.input] == [[-1, -1, 3]]
    assert len({row.shape for row in made.evidence.parity}) == 4


@pytest.mark.slow
def test_int8_of_the_residual_network_gets_few_digits_wrong_that_fp32_gets_right(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "calibration"
    folder.mkdir()
    for number, image in enumerate(digits.load()[0].images_nhwc[:320]):
        (folder / f"{number:03}.png").write_bytes(conftest.encoded(image[:, :, 0], "PNG"))
    chosen = options.Options(weights="digits", precisions=("fp32", "fp16", "int8"), calibration=folder)
    made = {one.evidence.identity.precision: one for one in conftest.export("resnet-digits", tmp_path / "m", chosen)}
    held_out = digits.load()[1]
    is_right = {
        name: onnxruntime.InferenceSession(one.content, providers=["CPUExecutionProvider"])
        .run(["logits"], {"image": held_out.images_nhwc})[0]
        .argmax(1)
        == held_out.labels
        for name, one in made.items()
    }
    shares = {name: float(right.mean()) for name, right in is_right.items()}
    lost = {name: int((is_right["fp32"] & ~is_right[name]).sum()) for name in ("fp16", "int8")}
    print(f"accuracy {shares}; right in fp32 and wrong in {lost}")  # noqa: T201 - figures for the record
    assert shares["fp32"] >= 0.99
    assert lost["int8"] <= 2
    assert lost["fp16"] <= 1
    assert made["int8"].evidence.operators.optimized["QLinearConv"] >= 9
