"""Every error that Fovea explains, as a client sees it: code, sentence, and google.rpc details."""

import pathlib
import signal
from collections.abc import Callable

import grpc
import grpc.aio
import numpy as np
import pytest

from export import options
from protos import inference_pb2
from service import errors
from service.wire import details, failures, status
from service.wire.security import tokens
from tests import conftest
from tests.conftest import RunningServer, running
from tests.wire import troubled
from tests.wire.test_repository import own_address
from tests.wire.troubled import Told, call, image, pixels, slow

Request = inference_pb2.ModelInferRequest
INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def walk(kind: type[errors.FoveaError]) -> list[type[errors.FoveaError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in walk(child))]


KINDS = {kind.__name__: kind for kind in walk(errors.FoveaError)}


def load(name: str) -> inference_pb2.RepositoryModelLoadRequest:
    return inference_pb2.RepositoryModelLoadRequest(model_name=name)


def index(value: int) -> Request:
    request = Request(model_name="outside")
    request.inputs.add(name="i", datatype="INT64", shape=(1,)).contents.int64_contents.append(value)
    return request


def after_its_deadline(channel: grpc.Channel) -> Told:
    """It waits behind a run that is longer than any before."""
    long = channel.unary_unary(troubled.SERVICE + "ModelInfer").future(slow(100).SerializeToString())
    try:
        return call(channel, slow(0, timeout_us=100_000))
    finally:
        long.result(60)


def too_many(channel: grpc.Channel) -> Told:
    """More samples than may wait, all at once, behind a long run."""
    send = channel.unary_unary(troubled.SERVICE + "ModelInfer")
    sent = [send.future(slow(0 if number else 100).SerializeToString()) for number in range(60)]
    failed = [error for one in sent if (error := one.exception(60)) is not None]
    assert failed
    return troubled.told(failed[0])


def plainly(request: Request | bytes, method: str = "") -> Callable[[grpc.Channel], Told]:
    return lambda channel: call(channel, request, method)


PROVOKED: dict[str, tuple[Callable[[grpc.Channel], Told], grpc.StatusCode, str]] = {
    "BadRequest": (plainly(pixels(wait=1)), INVALID, "parameter 'wait' is not supported"),
    "BadTensor": (plainly(troubled.bad_shape()), INVALID, "got shape [1, 31, 32, 1]"),
    "BadImage": (plainly(image(b"no image")), INVALID, "not a readable PNG"),
    "MessageTooLarge": (plainly(image(bytes(2**20))), EXHAUSTED, "the limit is 1048576"),
    "ModelNotFound": (plainly(Request(model_name="lenet")), grpc.StatusCode.NOT_FOUND, "did you mean 'lenet5'"),
    "VersionNotFound": (
        plainly(Request(model_name="lenet5", model_version="7")), grpc.StatusCode.NOT_FOUND, "version '7' of",
    ),
    "NotInRepository": (plainly(load("lenet6")), grpc.StatusCode.NOT_FOUND, "has no model 'lenet6'"),
    "ModelLoadError": (plainly(load("broken")), grpc.StatusCode.FAILED_PRECONDITION, "'broken' cannot be served"),
    "NotForThisDevice": (plainly(load("elsewhere")), grpc.StatusCode.FAILED_PRECONDITION, "it is the fp16 variant"),
    "QueueFull": (too_many, EXHAUSTED, "40 of 40 samples wait"),
    "TooLate": (plainly(pixels(timeout=1)), EXHAUSTED, "would need"),
    "DeadlineExceeded": (after_its_deadline, grpc.StatusCode.DEADLINE_EXCEEDED, "in the queue of model 'slow'"),
    "NotSupported": (
        plainly(inference_pb2.CudaSharedMemoryRegisterRequest()), grpc.StatusCode.UNIMPLEMENTED, "no CUDA shared",
    ),
    "RunFailed": (plainly(index(7)), grpc.StatusCode.INTERNAL, "the run of model 'outside' failed"),
}  # fmt: skip

ELSEWHERE = {
    "ControlOff": "test_a_server_that_loads_at_start_only_says_so",
    "ControlDenied": "test_a_caller_from_elsewhere_is_denied",
    "NotServing": "test_a_server_that_drains_says_so",
    **dict.fromkeys(
        ("NotAuthenticated", "NotPermitted", "CallerFull", "RateExceeded"), "test_a_caller_is_told_what_it_may_not"
    ),
    "ImagesFull": "test_images_of_any_size_beyond_what_is_held_are_told_to_come_later",
}
NO_CALL = {
    "FoveaError": "a base",
    "Refused": "a base",
    "StartupError": "a base; its kinds end the process before there is a port, but for those of one model",
    "SettingsError": "as StartupError",
    "MissingExtra": "as StartupError",
    "PortTaken": "as StartupError",
    "CertificateError": "as StartupError",
    "TokenFileError": "as StartupError",
    "ProviderUnavailable": "as StartupError",
    "RepositoryError": "as StartupError",
    "WasReplaced": "a race between two steps of one call; see test_every_error_is_told_by_the_edge",
}


def test_every_error_is_provoked_or_has_a_reason_why_not() -> None:
    tables = (PROVOKED, ELSEWHERE, NO_CALL)
    assert sorted(name for table in tables for name in table) == sorted(KINDS)
    assert all(name in globals() for name in ELSEWHERE.values())


@pytest.mark.parametrize("name", PROVOKED)
def test_a_client_is_told_code_sentence_and_reason(channel: grpc.Channel, name: str) -> None:
    provoke, code, sentence = PROVOKED[name]
    found = provoke(channel)
    assert (found.code, found.domain) == (code, "fovea")
    assert sentence in found.sentence
    assert found.reason == name_of(name)
    assert status.code(KINDS[name].__new__(KINDS[name])) is code


def name_of(kind: str) -> str:
    return {"BadTensor": "BAD_TENSOR", "RunFailed": "RUN_FAILED"}.get(
        kind, "".join(f"_{letter}" if letter.isupper() else letter for letter in kind)[1:].upper()
    )


def test_a_server_that_loads_at_start_only_says_so(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as opened:
        found = call(opened, load("lenet5"))
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "CONTROL_OFF")


def test_a_caller_from_elsewhere_is_denied(troubles: pathlib.Path, tmp_path: pathlib.Path) -> None:
    flags = (*troubled.EXPLICIT, "--host", "0.0.0.0", "--load-model", "outside")
    with running(troubles, tmp_path / "log", *flags) as remote:
        address = f"{own_address()}:{remote.address.rpartition(':')[2]}"
        with grpc.insecure_channel(address) as opened:
            found = call(opened, load("slow"))
    assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CONTROL_DENIED")


def test_a_caller_is_told_what_it_may_not(troubles: pathlib.Path, tmp_path: pathlib.Path) -> None:
    secret, digest = tokens.made()
    limits = 'models = ["slow"]\nimages_per_s = 0.01\nburst = 1'
    (tmp_path / "tokens.toml").write_text(f'[mary]\nsha256 = "{digest}"\n{limits}\n')
    flags = ("--load-model", "slow", "--tokens", str(tmp_path / "tokens.toml"), "--caller-samples-max", "1")
    by = (("authorization", f"Bearer {secret}"),)
    with (
        running(troubles, tmp_path / "log", *troubled.EXPLICIT, *flags) as guarded,
        grpc.insecure_channel(guarded.address) as opened,
    ):
        unknown, elsewhere = call(opened, slow(0)), call(opened, load("slow"), metadata=by)
        long = opened.unary_unary(troubled.SERVICE + "ModelInfer").future(slow(300).SerializeToString(), metadata=by)
        full = call(opened, slow(0), metadata=by)
        assert long.result(60)
        fast = call(opened, slow(0), metadata=by)
    assert [(one.code, one.reason) for one in (unknown, elsewhere, full, fast)] == [
        (grpc.StatusCode.UNAUTHENTICATED, "NOT_AUTHENTICATED"),
        (grpc.StatusCode.PERMISSION_DENIED, "NOT_PERMITTED"),
        (EXHAUSTED, "CALLER_FULL"),
        (EXHAUSTED, "RATE_EXCEEDED"),
    ]
    assert full.retry_ms
    assert fast.retry_ms


def test_a_server_that_drains_says_so(troubles: pathlib.Path, tmp_path: pathlib.Path) -> None:
    flags = (*troubled.EXPLICIT, "--load-model", "slow")
    with running(troubles, tmp_path / "log", *flags) as draining, grpc.insecure_channel(draining.address) as opened:
        send = opened.unary_unary(troubled.SERVICE + "ModelInfer")

        def failure(code: grpc.StatusCode) -> grpc.RpcError | None:
            error = send.future(slow(0, timeout_us=50_000).SerializeToString()).exception(60)
            return error if error is not None and error.code() is code else None

        long = send.future(slow(300).SerializeToString())
        troubled.until(lambda: failure(grpc.StatusCode.DEADLINE_EXCEEDED))  # it waited: the long one runs
        draining.process.send_signal(signal.SIGTERM)
        found = troubled.told(troubled.until(lambda: failure(grpc.StatusCode.UNAVAILABLE)))
        assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_SERVING")
        assert "the server is draining" in found.sentence
        assert long.result(60)


def test_images_of_any_size_beyond_what_is_held_are_told_to_come_later(tmp_path: pathlib.Path) -> None:
    conftest.export("sobel", tmp_path / "models", options.Options())
    request = image(conftest.encoded(np.zeros((500, 500), np.uint8), "PNG"))
    request.model_name = "sobel"
    with (
        running(tmp_path / "models", tmp_path / "log", "--device", "cpu", "--image-pixels-max", "250000") as server,
        grpc.insecure_channel(server.address) as opened,
    ):
        send = opened.unary_unary(troubled.SERVICE + "ModelInfer")

        def refused() -> Told | None:
            sent = [send.future(request.SerializeToString()) for _ in range(32)]
            failed = [error for one in sent if (error := one.exception(60)) is not None]
            assert len(failed) < len(sent), "as many as may be held are answered"
            return troubled.told(failed[0]) if failed else None

        found = troubled.until(refused)
    assert (found.code, found.reason) == (EXHAUSTED, "IMAGES_FULL")
    assert "the limit is 1000000 for images that keep their size" in found.sentence
    assert found.retry_ms


SAMPLES: tuple[errors.FoveaError, ...] = (
    errors.FoveaError("x"), errors.StartupError("x"), errors.SettingsError("x"), errors.PortTaken("a:1", "--port"),
    errors.MissingExtra("--flag", "Library", "extra", ImportError("x")),
    errors.ProviderUnavailable("cuda", "libcuda is missing"), errors.RepositoryError("x"),
    errors.ModelLoadError("m", "r"), errors.NotForThisDevice("m", "fp16", ["CUDA"], "CPU"),
    errors.BadRequest("x", "parameters"), errors.BadTensor("m", "t", "1", "2", ".shape"),
    errors.BadImage(3, "r", "s"), errors.MessageTooLarge(2, 1), errors.ModelNotFound("m", "", ["n"]),
    errors.VersionNotFound("m", "2", ["1"]), errors.NotInRepository("m", "/r", []), errors.Refused("x", 0.0015),
    errors.QueueFull("m", "all wait", 0.02), errors.TooLate("m", 1.0, 0.5, None), errors.DeadlineExceeded("m", 1.0),
    errors.NotServing("draining"), errors.WasReplaced("m"), errors.ControlOff(),
    errors.ControlDenied("ipv4:10.0.0.1:5"), errors.NotSupported("x"), errors.RunFailed("m"),
    errors.CertificateError(pathlib.Path("/c"), "is encrypted", "r"), errors.TokenFileError(pathlib.Path("/t"), "w"),
    errors.NotAuthenticated("no token"), errors.NotPermitted("mary", "infer", "r"),
    errors.RateExceeded("token mary", 1.0, 0.5), errors.CallerFull("token mary", 8, 8, 0.05),
    errors.ImagesFull(9, 8, 16, 0.25),
)  # fmt: skip


async def test_every_error_is_told_by_the_edge() -> None:
    """Also those that no call can provoke, by a server that raises them: unary and as the end of a stream."""
    assert sorted(type(sample).__name__ for sample in SAMPLES) == sorted(KINDS)
    raised = dict(enumerate(SAMPLES))

    async def answer(request: bytes, context: failures.Context) -> None:
        raise raised[int(request)]

    async def stream(requests: object, context: failures.Context) -> None:
        async for request in requests:  # type: ignore[attr-defined]  # gRPC's own iterator
            await failures.end_stream(context, raised[int(request)])

    server = grpc.aio.server()
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(failures.told(answer)),
        "Stream": grpc.stream_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("edge", methods),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with grpc.aio.insecure_channel(address) as opened:
        for number, error in raised.items():
            with pytest.raises(grpc.aio.AioRpcError) as unary:
                await opened.unary_unary("/edge/Unary")(str(number).encode())
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                async for _ in opened.stream_stream("/edge/Stream")(iter([str(number).encode()])):
                    raise AssertionError("there is no answer")
            for found in map(_told_by_aio, (unary.value, ended.value)):
                assert (found.code, found.sentence) == (status.code(error), str(error))
                assert found.reason == name_of(type(error).__name__)
                field = error.field if isinstance(error, errors.BadRequest) else ""
                expected = {field: error.violation} if field else {}  # type: ignore[attr-defined]  # it has both
                assert found.violations == expected
                pause_s = error.pause_s if isinstance(error, errors.Refused) else None
                assert found.retry_ms == (None if pause_s is None else status.pushback_ms(error))  # type: ignore[arg-type]
                assert found.pushback == (str(status.pushback_ms(error)) if isinstance(error, errors.Refused) else None)
                assert found.resource == (
                    ("model", "m/2" if error.version else "m") if isinstance(error, errors.ModelNotFound) else ("", "")
                )
    await server.stop(None)


def _told_by_aio(error: grpc.aio.AioRpcError) -> Told:
    class Synchronous:
        """What grpcio-status wants of a call; it has another function for aio's calls, which are awaited."""

        code, details, trailing_metadata = error.code, error.details, error.trailing_metadata

    return troubled.told(Synchronous)


def test_a_refusal_says_the_same_pause_to_both_kinds_of_clients(channel: grpc.Channel) -> None:
    found = too_many(channel)
    assert found.retry_ms is not None
    assert found.retry_ms > 0
    assert found.pushback == str(found.retry_ms)
    never = call(channel, pixels(41))
    assert (never.reason, never.retry_ms, never.pushback) == ("QUEUE_FULL", None, "-1")


@pytest.mark.parametrize("letter", ["x", "é", "日", "\n", '"'])
def test_a_name_as_long_as_a_message_still_gets_its_answer(channel: grpc.Channel, letter: str) -> None:
    """Sentences and details are headers, of which clients take 8 KiB."""
    for request in (Request(model_name=letter * 100_000), pixels(**{letter * 100_000: 1})):
        found = call(channel, request)
        assert found.code in {grpc.StatusCode.NOT_FOUND, INVALID}
        assert len(found.sentence.encode()) <= status.SENTENCE_BYTES_MAX
        assert found.reason in {"MODEL_NOT_FOUND", "BAD_REQUEST"}


def test_what_nobody_expected_has_no_details() -> None:
    assert details.trailing(KeyError("secret"), grpc.StatusCode.INTERNAL, "internal error 1") == ()


def test_a_name_that_is_no_text_can_be_told() -> None:
    """As a file's name may be: Python reads it with surrogates."""
    code, sentence = status.explain(errors.ModelLoadError("m", "cannot read /models/\udcff"))
    assert sentence.endswith(r"\udcff")
    assert details.trailing(errors.ModelLoadError("m", "\udcff"), code, sentence)
