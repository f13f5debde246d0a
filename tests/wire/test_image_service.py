"""fovea.v1.ImageService on a real server: classes, feature maps and filter responses of real images."""

import io
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from export import digits, options
from protos import images_pb2, images_pb2_grpc
from tests import conftest
from tests.conftest import Exported, RunningServer


@pytest.fixture(scope="module")
def served(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repository = tmp_path_factory.mktemp("repository")
    conftest.export("sobel", repository, options.Options())
    weights = str(exported.weights_path)
    outputs = ("features:c1", "features:c3")
    conftest.export("lenet5", repository, options.Options(weights=weights, outputs=outputs))
    log = tmp_path_factory.mktemp("log") / "server.log"
    with conftest.running(repository, log, "--device", "cpu", "--message-bytes-max", "1048576") as server:
        yield server


@pytest.fixture(scope="module")
def service(served: RunningServer) -> Iterator[images_pb2_grpc.ImageServiceStub]:
    with grpc.insecure_channel(served.address) as channel:
        yield images_pb2_grpc.ImageServiceStub(channel)


def photo() -> np.ndarray:
    return datasets.load_sample_images().images[0][100:140, 200:260]


def file(pixels: np.ndarray) -> images_pb2.Image:
    return images_pb2.Image(file=conftest.encoded(pixels, "PNG"))


def pixels_of(image_hwc: np.ndarray) -> images_pb2.Image:
    height, width, channels = image_hwc.shape
    return images_pb2.Image(
        pixels=images_pb2.Pixels(height=height, width=width, channels=channels, data=image_hwc.tobytes())
    )


def refused(call: grpc.UnaryUnaryMultiCallable, request: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request)
    return caught.value.code(), caught.value.details()


def test_a_digit_is_told_with_its_probability(
    service: images_pb2_grpc.ImageServiceStub, exported: Exported, held_out: digits.Digits, pngs: list[bytes]
) -> None:
    logits = exported.logits(held_out.images_nhwc[:20])
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for wanted, png in zip(shares, pngs, strict=False):
        request = images_pb2.ClassifyRequest(image=images_pb2.Image(file=png), model="lenet5", top_k=3)
        answer = service.Classify(request)
        best = np.argsort(-wanted, kind="stable")[:3]
        assert [one.index for one in answer.classes] == best.tolist()
        assert [one.label for one in answer.classes] == [str(index) for index in best]
        np.testing.assert_allclose([one.score for one in answer.classes], wanted[best], atol=1e-5)
        assert answer.score_kind == images_pb2.SCORE_KIND_PROBABILITY
        assert (answer.answered.model, answer.answered.model_version) == ("lenet5", "1")
        stages = answer.answered
        parts = stages.decode_seconds + stages.queue_seconds + stages.gather_seconds + stages.run_seconds
        assert 0 < stages.run_seconds < parts < stages.total_seconds


def test_without_top_k_there_are_five_and_with_too_many_all(
    service: images_pb2_grpc.ImageServiceStub, pngs: list[bytes]
) -> None:
    image = images_pb2.Image(file=pngs[0])
    assert len(service.Classify(images_pb2.ClassifyRequest(image=image, model="lenet5")).classes) == 5
    assert len(service.Classify(images_pb2.ClassifyRequest(image=image, model="lenet5", top_k=99)).classes) == 10


def test_pixels_are_treated_as_the_file_that_they_came_from(service: images_pb2_grpc.ImageServiceStub) -> None:
    for image_hwc in (photo(), np.ascontiguousarray(photo()[:, :, :1])):
        as_file = file(image_hwc if image_hwc.shape[2] == 3 else image_hwc[:, :, 0])
        one, two = (
            service.Classify(images_pb2.ClassifyRequest(image=image, model="lenet5"))
            for image in (as_file, pixels_of(image_hwc))
        )
        assert list(one.classes) == list(two.classes)


def test_a_filter_bank_answers_in_numbers_and_in_pictures(service: images_pb2_grpc.ImageServiceStub) -> None:
    grey = photo().mean(2).astype(np.uint8)
    answer = service.Filter(images_pb2.FilterRequest(image=file(grey), bank="sobel"))
    assert [one.name for one in answer.maps] == ["gx", "gy", "magnitude"]
    gx, gy, magnitude = (
        np.frombuffer(one.tensor, "<f4").reshape(one.channels, one.height, one.width) for one in answer.maps
    )
    assert gx.shape == (1, 40, 60)
    np.testing.assert_allclose(magnitude, np.hypot(gx, gy), atol=1e-5)
    request = images_pb2.FilterRequest(
        image=file(grey), bank="sobel", responses=["magnitude"], form=images_pb2.FORM_PNG
    )
    (drawn,) = service.Filter(request).maps
    assert (drawn.low, drawn.high) == pytest.approx((magnitude.min(), magnitude.max()))
    shown = np.asarray(Image.open(io.BytesIO(drawn.png)), float)
    share = (magnitude[0] - magnitude.min()) / (magnitude.max() - magnitude.min())
    np.testing.assert_allclose(shown, share * 255, atol=0.51)


def test_feature_maps_come_in_the_order_asked_for_with_and_without_their_prefix(
    service: images_pb2_grpc.ImageServiceStub, pngs: list[bytes]
) -> None:
    request = images_pb2.FeaturesRequest(
        image=images_pb2.Image(file=pngs[0]), model="lenet5", layers=["features:c3", "c1"]
    )
    maps = service.Features(request).maps
    assert [(one.name, one.channels) for one in maps] == [("c3", 16), ("c1", 6)]
    every = service.Features(images_pb2.FeaturesRequest(image=images_pb2.Image(file=pngs[0]), model="lenet5")).maps
    assert {one.name: one.tensor for one in every} == {one.name: one.tensor for one in maps}


def test_a_layer_is_told_once(service: images_pb2_grpc.ImageServiceStub, pngs: list[bytes]) -> None:
    request = images_pb2.FeaturesRequest(
        image=images_pb2.Image(file=pngs[0]), model="lenet5", layers=["c3", "features:c3"]
    )
    code, sentence = refused(service.Features, request)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "layers has 'c3' more than once" in sentence


@pytest.mark.parametrize("timeout_s", [float("nan"), -1.0])
def test_a_timeout_that_is_no_time_fails_its_own_message_only(
    service: images_pb2_grpc.ImageServiceStub, pngs: list[bytes], timeout_s: float
) -> None:
    request = images_pb2.ClassifyRequest(image=images_pb2.Image(file=pngs[0]), model="lenet5")
    timeouts_s = [0.0, timeout_s, 60.0]
    answers = service.ClassifyStream(
        images_pb2.ClassifyStreamRequest(id=str(number), request=request, timeout_seconds=one)
        for number, one in enumerate(timeouts_s)
    )
    failures = {answer.id: answer.failure.code for answer in answers}
    assert failures == {"0": "", "1": "INVALID_ARGUMENT", "2": ""}


def test_streams_answer_each_image_and_go_on_after_a_bad_one(
    service: images_pb2_grpc.ImageServiceStub, pngs: list[bytes]
) -> None:
    files = [*pngs[:30], b"no image", *pngs[30:60]]
    requests = (
        images_pb2.ClassifyStreamRequest(
            id=str(number),
            request=images_pb2.ClassifyRequest(image=images_pb2.Image(file=one), model="lenet5", top_k=1),
        )
        for number, one in enumerate(files)
    )
    answers = {answer.id: answer for answer in service.ClassifyStream(requests)}
    assert len(answers) == len(files)
    assert answers.pop("30").failure.code == "INVALID_ARGUMENT"
    for number, answer in answers.items():
        unary = service.Classify(
            images_pb2.ClassifyRequest(image=images_pb2.Image(file=files[int(number)]), model="lenet5", top_k=1)
        )
        assert list(answer.response.classes) == list(unary.classes)


def test_the_other_streams_answer_too(service: images_pb2_grpc.ImageServiceStub, pngs: list[bytes]) -> None:
    filtered = images_pb2.FilterStreamRequest(
        id="a", request=images_pb2.FilterRequest(image=file(photo()), bank="sobel", responses=["gx"])
    )
    (answer,) = service.FilterStream(iter([filtered]))
    assert (answer.id, answer.response.maps[0].name) == ("a", "gx")
    featured = images_pb2.FeaturesStreamRequest(
        id="b", request=images_pb2.FeaturesRequest(image=images_pb2.Image(file=pngs[0]), model="lenet5", layers=["c1"])
    )
    (shown,) = service.FeaturesStream(iter([featured]))
    assert (shown.id, shown.response.maps[0].name) == ("b", "c1")


def test_a_stream_s_image_that_comes_too_late_says_so(
    service: images_pb2_grpc.ImageServiceStub, pngs: list[bytes]
) -> None:
    request = images_pb2.ClassifyStreamRequest(
        id="late",
        request=images_pb2.ClassifyRequest(image=images_pb2.Image(file=pngs[0]), model="lenet5"),
        timeout_seconds=1e-9,
    )
    (answer,) = service.ClassifyStream(iter([request]))
    assert answer.failure.code in {"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
    assert answer.failure.message


def test_what_is_wrong_is_said_with_what_to_do(service: images_pb2_grpc.ImageServiceStub, pngs: list[bytes]) -> None:
    good = images_pb2.Image(file=pngs[0])
    classify, features, filtered = (
        images_pb2.ClassifyRequest, images_pb2.FeaturesRequest, images_pb2.FilterRequest
    )  # fmt: skip
    invalid, not_found = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
    half = images_pb2.Image(pixels=images_pb2.Pixels(height=2, width=2, channels=2, data=b"12345678"))
    for call, request, code, sentence in (
        (service.Classify, classify(model="lenet5"), invalid, "set image.file or image.pixels"),
        (service.Classify, classify(image=good, model="lenet"), not_found, "did you mean 'lenet5'"),
        (service.Classify, classify(image=good, model="lenet5", model_version="7"), not_found, "7"),
        (service.Classify, classify(image=good, model="sobel"), invalid, "is no classifier; its outputs are gx"),
        (service.Classify, classify(image=half, model="lenet5"), invalid, "height * width * channels bytes"),
        (service.Classify, classify(image=images_pb2.Image(file=b"?"), model="lenet5"), invalid, "not a readable PNG"),
        (service.Features, features(image=good, model="lenet5", layers=["c4"]), invalid, "it gives c1, c3"),
        (service.Filter, filtered(image=good, bank="sobel", responses=["gz"]), invalid, "did you mean 'gy'"),
    ):
        found = refused(call, request)
        assert found[0] is code, found
        assert sentence in found[1]


def test_too_large_and_unreadable_messages_are_explained(served: RunningServer) -> None:
    with grpc.insecure_channel(served.address) as channel:
        raw = channel.unary_unary("/fovea.v1.ImageService/Classify")
        assert refused(raw, b"\xff" * 20)[0] is grpc.StatusCode.INVALID_ARGUMENT
        code, sentence = refused(raw, b"\0" * (1024 * 1024 + 1))
        assert (code, "1048577" in sentence) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)


def test_what_is_asked_here_is_counted_with_everything_else(
    served: RunningServer, service: images_pb2_grpc.ImageServiceStub, pngs: list[bytes]
) -> None:
    def answered() -> float:
        lines = served.get("/metrics").splitlines()
        (line,) = [one for one in lines if one.startswith('fovea_requests_total{code="OK",model="lenet5"')]
        return float(line.split()[-1])

    service.Classify(images_pb2.ClassifyRequest(image=images_pb2.Image(file=pngs[0]), model="lenet5"))
    before = answered()
    for _ in range(3):
        service.Classify(images_pb2.ClassifyRequest(image=images_pb2.Image(file=pngs[0]), model="lenet5"))
    assert answered() == before + 3
