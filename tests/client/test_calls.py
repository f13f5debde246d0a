"""Every call, from asyncio and from threads, over streams and without, against a real server."""

import asyncio
import pathlib
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from export import digits
from service import client
from tests.conftest import Exported, RunningServer


@pytest.fixture(params=[True, False], ids=["streams", "unary"])
def streams(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def served(server: RunningServer, streams: bool) -> Iterator[client.SyncClient]:
    with client.SyncClient(server.address, streams=streams) as opened:
        yield opened


def labels(best: list[list[client.Prediction]]) -> list[str]:
    return [one[0].label for one in best]


async def test_classify(server: RunningServer, streams: bool, held_out: digits.Digits, pngs: list[bytes]) -> None:
    expected = [str(label) for label in held_out.labels[:4]]
    async with client.Client(server.address, streams=streams) as served:
        best = await served.classify(pngs[0], "lenet5", top=2)
        assert (len(best), best[0].label) == (2, expected[0])
        assert await served.classify(held_out.images_nhwc[0], "lenet5", top=2) == best
        assert labels(await served.classify(held_out.images_nhwc[:4], "lenet5", priority=0)) == expected


def test_classify_from_a_thread(served: client.SyncClient, held_out: digits.Digits, pngs: list[bytes]) -> None:
    expected = [str(label) for label in held_out.labels[:4]]
    assert served.classify(pngs[0], "lenet5")[0].label == expected[0]
    assert labels(served.classify(held_out.images_nhwc[:4], "lenet5")) == expected


async def test_infer_and_infer_tensors(
    server: RunningServer, streams: bool, exported: Exported, held_out: digits.Digits
) -> None:
    images_nhwc = held_out.images_nhwc[:3]
    async with client.Client(server.address, streams=streams) as served:
        signature = await served.signature("lenet5")
        request = client.pixel_request(signature, images_nhwc, request_id="mine")
        before = request.SerializeToString()
        answer = await served.infer(request, 10.0)
        assert answer.id == "mine"
        assert request.SerializeToString() == before
        outputs = await served.infer_tensors("lenet5", {"image": images_nhwc}, outputs=["logits"], timeout_s=10.0)
    assert outputs.keys() == {"logits"}
    assert np.allclose(outputs["logits"], exported.logits(images_nhwc), atol=1e-4)


def test_infer_and_infer_tensors_from_a_thread(
    served: client.SyncClient, exported: Exported, held_out: digits.Digits
) -> None:
    images_nhwc = held_out.images_nhwc[:3]
    answer = served.infer(client.pixel_request(served.signature("lenet5"), images_nhwc, request_id="mine"))
    assert answer.id == "mine"
    outputs = served.infer_tensors("lenet5", {"image": images_nhwc})
    assert np.allclose(outputs["logits"], exported.logits(images_nhwc), atol=1e-4)


async def test_what_a_server_says_of_itself(server: RunningServer) -> None:
    async with client.Client(server.address) as served:
        assert await served.signature("lenet5") == client.Signature("lenet5", "image", "probabilities")
        assert [tensor.name for tensor in (await served.metadata("lenet5", version="1")).inputs] == ["image"]
        assert (await served.config("lenet5")).name == "lenet5"
        assert (await served.statistics("lenet5")).name == "lenet5"
        assert await served.is_ready()
        assert await served.is_ready("lenet5")
        assert not await served.is_ready("nobody")


def test_what_a_server_says_of_itself_to_a_thread(served: client.SyncClient) -> None:
    assert served.signature("lenet5") == client.Signature("lenet5", "image", "probabilities")
    assert [tensor.name for tensor in served.metadata("lenet5").inputs] == ["image"]
    assert served.config("lenet5", version="1").name == "lenet5"
    assert served.statistics("lenet5").name == "lenet5"
    assert (served.is_ready(), served.is_ready("lenet5"), served.is_ready("nobody")) == (True, True, False)


async def test_nobody_there_is_not_ready() -> None:
    async with client.Client("127.0.0.1:1") as served:
        assert not await served.is_ready()


async def test_an_error_has_its_code_the_servers_sentence_and_the_address(server: RunningServer, streams: bool) -> None:
    async with client.Client(server.address, streams=streams) as served:
        with pytest.raises(client.CallFailed) as caught:
            await served.infer_tensors("nobody", {"image": np.zeros((1, 32, 32, 1), np.uint8)})
        assert "nobody" in caught.value.details
        assert caught.value.address == server.address
        with pytest.raises(client.CallFailed) as caught:
            await served.metadata("nobody")
        assert caught.value.code is grpc.StatusCode.NOT_FOUND


async def test_a_message_over_the_servers_limit_fails_alone(server: RunningServer, pngs: list[bytes]) -> None:
    """The server cannot say which message of the stream it was, so all are repeated one by one."""
    too_large = np.zeros((1100, 32, 32, 1), np.uint8)
    async with client.Client(server.address) as served:
        await served.signature("lenet5")
        *others, refused = await asyncio.gather(
            *(served.classify(png, "lenet5") for png in pngs[:8]),
            served.infer_tensors("lenet5", {"image": too_large}),
            return_exceptions=True,
        )
    assert all(isinstance(best, list) for best in others)
    assert isinstance(refused, client.CallFailed)
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_folder_is_classified_and_a_bad_file_costs_the_others_nothing(
    server: RunningServer, exported: Exported, held_out: digits.Digits, pngs: list[bytes], tmp_path: pathlib.Path
) -> None:
    expected = exported.logits(held_out.images_nhwc[:20]).argmax(1)
    (tmp_path / "deeper").mkdir()
    for number in range(20):
        (tmp_path / ("deeper" if number % 2 else ".") / f"{number}.png").write_bytes(pngs[number])
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no image, and not asked for")
    progress: list[tuple[int, int]] = []
    async with client.Client(server.address) as served:
        outcomes = {
            path: outcome
            async for path, outcome in served.classify_folder(
                [tmp_path, tmp_path / "nowhere.png"],
                "lenet5",
                on_progress=lambda *now: progress.append(now),
                in_flight=4,
            )
        }
    assert isinstance(outcomes.pop(tmp_path / "nowhere.png"), FileNotFoundError)
    bad = outcomes.pop(tmp_path / "bad.png")
    assert isinstance(bad, client.CallFailed)
    assert "not a readable" in bad.details
    assert {path.stem: best[0].label for path, best in outcomes.items()} == {
        str(number): str(label) for number, label in enumerate(expected)
    }
    assert progress == [(done, 22) for done in range(1, 23)]


def test_a_folder_from_a_thread(server: RunningServer, pngs: list[bytes], tmp_path: pathlib.Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(pngs[number])
    progress: list[tuple[int, int]] = []
    with client.SyncClient(server.address) as served:
        outcomes = dict(served.classify_folder(tmp_path, "lenet5", on_progress=lambda *now: progress.append(now)))
        assert len(outcomes) == 5
        assert progress[-1] == (5, 5)
        for _, best in served.classify_folder(str(tmp_path), "lenet5", top=1):
            assert isinstance(best, list)
            break  # the others are given up


async def test_a_stream_of_ones_own(server: RunningServer, pngs: list[bytes]) -> None:
    async with client.Client(server.address) as served:
        signature = await served.signature("lenet5")

        async def requests():
            for number in range(5):
                yield client.image_request(signature, [pngs[number]], request_id=str(number), classes=1)

        assert {answer.infer_response.id async for answer in served.stream(requests())} == set("01234")


async def test_arguments_that_are_wrong_say_so(server: RunningServer, pngs: list[bytes]) -> None:
    pixels = np.zeros((32, 32, 1), np.uint8)
    async with client.Client(server.address) as served:
        for wrong, kind, sentence in (
            (served.classify("cat.png", "lenet5"), TypeError, "the image is a str; expected a file's bytes"),
            (served.classify(pixels.astype(np.float32), "lenet5"), TypeError, "dtype float32; expected uint8"),
            (served.classify(pixels[:, :, 0], "lenet5"), ValueError, "expected \\(H, W, C\\) or \\(N, H, W, C\\)"),
            (served.classify(pngs[0], "lenet5", top=0), ValueError, "top is 0; expected at least 1"),
            (served.classify(pngs[0], "lenet5", priority=-1), ValueError, "priority is -1; expected at least 0"),
            (served.classify(pngs[0], "lenet5", timeout_s=0), ValueError, "timeout_s is 0; expected seconds"),
            (served.classify(pngs[0], "lenet5", top=1.5), TypeError, "top is a float; expected a whole number"),
            (served.infer_tensors("lenet5", {"image": [1]}), TypeError, "input 'image' is a list; expected a NumPy"),
            (served.infer_tensors("lenet5", {"image": np.zeros(1, "c8")}), TypeError, "has dtype complex64; the proto"),
        ):
            with pytest.raises(kind, match=sentence):
                await wrong


def test_options_that_are_wrong_say_so() -> None:
    for options, kind, sentence in (
        ({"timeout_s": 0.0}, ValueError, "timeout_s is 0.0; expected seconds"),
        ({"stream_age_s": float("inf")}, ValueError, "stream_age_s is inf; expected seconds"),
        ({"compression": "gzip"}, TypeError, "compression is a str; expected a grpc.Compression"),
        ({"credentials": b"certificate"}, TypeError, "credentials is a bytes; expected a grpc.ChannelCredentials"),
    ):
        with pytest.raises(kind, match=sentence):
            client.SyncClient("127.0.0.1:1", **options)


async def test_outside_of_async_with_it_says_how() -> None:
    with pytest.raises(RuntimeError, match="use it inside `async with"):
        await client.Client("127.0.0.1:1").is_ready()
    with pytest.raises(RuntimeError, match="use it inside `with"):
        client.SyncClient("127.0.0.1:1").is_ready()
