"""What the export makes beside plain classifiers, served: filter banks at any size, feature maps, variants."""

from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.grpc as triton
from sklearn import datasets

from export import options
from tests import conftest
from tests.conftest import Exported, RunningServer


@pytest.fixture(scope="module")
def served(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repository = tmp_path_factory.mktemp("repository")
    conftest.export("sobel", repository, options.Options())
    outputs = ("features:c3", "top2")
    chosen = options.Options(weights=str(exported.weights_path), outputs=outputs, precisions=("fp32", "fp16"))
    conftest.export("lenet5", repository, chosen)
    log = tmp_path_factory.mktemp("log") / "server.log"
    with conftest.running(repository, log, "--device", "cpu") as server:
        yield server


@pytest.fixture(scope="module")
def client(served: RunningServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(served.address) as connection:
        yield connection


def photo(height: int, width: int) -> np.ndarray:
    return datasets.load_sample_images().images[0][100 : 100 + height, 200 : 200 + width].mean(2).astype(np.uint8)


def sent(
    client: triton.InferenceServerClient, model: str, images: list[np.ndarray], *outputs: str
) -> triton.InferResult:
    files = [conftest.encoded(image, "PNG") for image in images]
    image = triton.InferInput("image", [len(files)], "BYTES")
    image.set_data_from_numpy(np.array(files, dtype=np.object_))
    return client.infer(model, [image], outputs=[triton.InferRequestedOutput(name) for name in outputs])


@pytest.mark.parametrize("size", [(40, 60), (61, 33)])
def test_a_filter_bank_takes_images_at_the_size_they_have(
    client: triton.InferenceServerClient, size: tuple[int, int]
) -> None:
    image = photo(*size)
    result = sent(client, "sobel", [image, image[::-1]], "gx", "gy")
    gx, gy = result.as_numpy("gx"), result.as_numpy("gy")
    assert gx.shape == (2, 1, *size)
    # By the definition, at one pixel: x to the right, y downwards, intensities 0..1 per pixel.
    part = image[9:12, 19:22].astype(float) / 255
    assert gx[0, 0, 10, 20] == pytest.approx(((part[:, 2] - part[:, 0]) * [1, 2, 1]).sum() / 8, abs=1e-6)
    assert gy[0, 0, 10, 20] == pytest.approx(((part[2] - part[0]) * [1, 2, 1]).sum() / 8, abs=1e-6)
    np.testing.assert_allclose(gy[1], -gy[0][:, ::-1], atol=1e-6)  # the second image is the first upside down


def test_images_of_two_sizes_in_one_request_are_explained(client: triton.InferenceServerClient) -> None:
    with pytest.raises(triton.InferenceServerException, match=r"image 1: the image is 33x61 .* first is 60x40"):
        sent(client, "sobel", [photo(40, 60), photo(61, 33)], "gx")


def test_a_client_can_ask_for_the_feature_map_of_a_stage(
    client: triton.InferenceServerClient, pngs: list[bytes]
) -> None:
    image = triton.InferInput("image", [3], "BYTES")
    image.set_data_from_numpy(np.array(pngs[:3], dtype=np.object_))
    wanted = [triton.InferRequestedOutput(name) for name in ("features:c3", "logits", "top2_classes", "top2_scores")]
    result = client.infer("lenet5", [image], outputs=wanted)
    assert result.as_numpy("features:c3").shape == (3, 16, 10, 10)
    order = np.argsort(-result.as_numpy("logits"), axis=1)[:, :2]
    assert np.array_equal(result.as_numpy("top2_classes"), order)
    assert (np.diff(result.as_numpy("top2_scores")) <= 0).all()


def test_a_variant_for_another_device_stays_aside_and_the_log_says_so(
    served: RunningServer, client: triton.InferenceServerClient
) -> None:
    assert client.is_model_ready("lenet5")
    assert not client.is_model_ready("lenet5-fp16")
    assert "model 'lenet5-fp16' cannot be served: it is the fp16 variant, for CUDAExecutionProvider" in served.log()


def test_an_image_without_pixels_is_the_caller_s_mistake(client: triton.InferenceServerClient) -> None:
    image = triton.InferInput("image", [1, 0, 5, 1], "UINT8")
    image.set_data_from_numpy(np.zeros((1, 0, 5, 1), np.uint8))
    with pytest.raises(triton.InferenceServerException, match="INVALID_ARGUMENT"):
        client.infer("sobel", [image])
