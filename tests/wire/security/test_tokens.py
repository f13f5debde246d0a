"""API tokens: who is let in, to which models, how fast; and that the file is read again."""

import pathlib
import subprocess
import tomllib
from collections.abc import Callable, Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos import images_pb2, images_pb2_grpc, inference_pb2, inference_pb2_grpc
from service import errors
from service.wire.security import buckets, tokens
from tests.conftest import FOVEA, RunningServer, running
from tests.wire.security.conftest import MODEL, QUICK, asked, bearer, lay, request
from tests.wire.test_repository import own_address

Code = grpc.StatusCode
EXPLICIT = ("--model-control-mode", "explicit", "--load-model", "*")


class Secrets(dict[str, str]):
    """Names → tokens, and the file that a server reads."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def add(self, name: str, **given: object) -> None:
        self[name], digest = tokens.made()
        lines = [f"{key} = {value!r}".replace("'", '"') for key, value in ({"sha256": digest} | given).items()]
        with self.path.open("a") as file:
            file.write("\n".join((f"[{name}]", *lines, "")))


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Secrets:
    made = Secrets(tmp_path_factory.mktemp("tokens") / "tokens.toml")
    made.add("mary")
    made.add("limited", models=["other", "twi*x"])
    made.add("slow", images_per_s=0.01, burst=3)
    made.add("chief", rights=["infer", "control"], models=["twice"])
    made.add("deployer", rights=["control"])
    return made


@pytest.fixture(scope="module")
def server(secrets: Secrets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    place = tmp_path_factory.mktemp("models")
    for name in (MODEL, "other"):
        lay(place, name)
    flags = (*QUICK, *EXPLICIT, "--tokens", str(secrets.path))
    with running(place, place.parent / f"{place.name}.log", *flags) as started:
        yield started


@pytest.fixture
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as opened:
        yield opened


def refused(call: Callable[[], object], code: grpc.StatusCode) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() is code, caught.value.details()
    return caught.value


def test_a_known_token_is_let_in_and_no_other(channel: grpc.Channel, secrets: Secrets) -> None:
    asked(channel, secrets["mary"])
    assert "no authorization metadata" in refused(lambda: asked(channel), Code.UNAUTHENTICATED).details()
    for wrong in ("x", secrets["mary"][:-1], secrets["mary"] + "x", "fovea_" + "A" * 43):
        assert "not known" in refused(lambda wrong=wrong: asked(channel, wrong), Code.UNAUTHENTICATED).details()
    stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    basic = (("authorization", f"Basic {secrets['mary']}"),)
    twice = bearer(secrets["mary"]) * 2
    for metadata, sentence in ((basic, "scheme Bearer"), (twice, "2 authorization")):
        error = refused(lambda m=metadata: stub.ModelInfer(request(), metadata=m, timeout=30), Code.UNAUTHENTICATED)
        assert sentence in error.details()


def test_every_kind_of_call_needs_a_token_but_health(channel: grpc.Channel, secrets: Secrets) -> None:
    stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    pictures = images_pb2_grpc.ImageServiceStub(channel)
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    health = health_pb2_grpc.HealthStub(channel)
    listing = reflection_pb2.ServerReflectionRequest(list_services="")
    mary = bearer(secrets["mary"])
    calls: list[Callable[..., object]] = [
        lambda **by: stub.ServerMetadata(inference_pb2.ServerMetadataRequest(), **by),
        lambda **by: stub.RepositoryIndex(inference_pb2.RepositoryIndexRequest(), **by),
        lambda **by: stub.ModelMetadata(inference_pb2.ModelMetadataRequest(name=MODEL), **by),
        lambda **by: list(stub.ModelStreamInfer(iter([request()]), **by)),
        lambda **by: list(reflection.ServerReflectionInfo(iter([listing]), **by)),
        lambda **by: list(pictures.ClassifyStream(iter([]), **by)),
    ]
    for call in calls:
        refused(lambda call=call: call(timeout=30), Code.UNAUTHENTICATED)
        call(timeout=30, metadata=mary)
    classify = images_pb2.ClassifyRequest(model=MODEL)
    refused(lambda: pictures.Classify(classify, timeout=30), Code.UNAUTHENTICATED)
    refused(lambda: pictures.Classify(classify, timeout=30, metadata=mary), Code.INVALID_ARGUMENT)  # no image model
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=30).status == health_pb2.HealthCheckResponse.SERVING
    assert next(health.Watch(health_pb2.HealthCheckRequest(), timeout=30)).status


def test_a_stream_that_is_open_without_a_message_is_refused_at_once(channel: grpc.Channel) -> None:
    stream = inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(silence(), timeout=30)
    assert stream.code() is Code.UNAUTHENTICATED


def silence() -> Iterator[inference_pb2.ModelInferRequest]:
    import threading

    threading.Event().wait(5)
    yield from ()


def test_a_token_reaches_the_models_that_it_names(channel: grpc.Channel, secrets: Secrets) -> None:
    limited = secrets["limited"]
    asked(channel, limited, model="other")
    error = refused(lambda: asked(channel, limited), Code.PERMISSION_DENIED)
    assert "token 'limited' may not use model 'twice'; it is for other, twi*x" in error.details()
    nobody = refused(lambda: asked(channel, limited, model="nobody"), Code.PERMISSION_DENIED)
    assert "twice" not in nobody.details()  # what there is besides is not its business
    stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    about = inference_pb2.ModelMetadataRequest(name=MODEL)
    refused(lambda: stub.ModelMetadata(about, metadata=bearer(limited), timeout=30), Code.PERMISSION_DENIED)
    messages = iter([request(model="other", request_id="1"), request(request_id="2")])
    answers = {one.infer_response.id: one for one in stub.ModelStreamInfer(messages, metadata=bearer(limited))}
    assert not answers["1"].error_message
    assert "may not use model 'twice'" in answers["2"].error_message
    assert answers["2"].infer_response.parameters["grpc-status"].string_param == "PERMISSION_DENIED"


def test_statistics_are_of_the_models_that_a_token_names(channel: grpc.Channel, secrets: Secrets) -> None:
    stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    for name, models in (("mary", {MODEL, "other"}), ("chief", {MODEL})):
        answer = stub.ModelStatistics(
            inference_pb2.ModelStatisticsRequest(), metadata=bearer(secrets[name]), timeout=30
        )
        assert {one.name for one in answer.model_stats} == models


def test_a_token_s_rate_is_held_over_all_its_connections_and_says_when_to_come_back(
    server: RunningServer, channel: grpc.Channel, secrets: Secrets
) -> None:
    slow = secrets["slow"]
    asked(channel, slow, rows=2)
    asked(channel, slow, rows=2)  # there was one left: let in whole, to be paid back
    with grpc.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)]) as another:
        error = refused(lambda: asked(another, slow), Code.RESOURCE_EXHAUSTED)
    assert "token slow may send 0.01 images a second" in error.details()
    assert 100_000 < int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) <= 200_000
    asked(channel, secrets["mary"])


def test_control_needs_its_own_right(channel: grpc.Channel, secrets: Secrets) -> None:
    stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    load = inference_pb2.RepositoryModelLoadRequest(model_name=MODEL)
    elsewhere = inference_pb2.RepositoryModelLoadRequest(model_name="other")
    calls: list[Callable[..., object]] = [
        lambda **by: stub.RepositoryModelLoad(load, **by),
        lambda **by: stub.LogSettings(inference_pb2.LogSettingsRequest(), **by),
        lambda **by: stub.TraceSetting(inference_pb2.TraceSettingRequest(), **by),
        lambda **by: stub.SystemSharedMemoryUnregister(inference_pb2.SystemSharedMemoryUnregisterRequest(), **by),
    ]
    for call in calls:
        error = refused(lambda call=call: call(metadata=bearer(secrets["mary"]), timeout=30), Code.PERMISSION_DENIED)
        assert "may not control the server" in error.details()
        call(metadata=bearer(secrets["chief"]), timeout=30)
    chief = bearer(secrets["chief"])
    refused(lambda: stub.RepositoryModelLoad(elsewhere, metadata=chief, timeout=30), Code.PERMISSION_DENIED)
    error = refused(lambda: asked(channel, secrets["deployer"]), Code.PERMISSION_DENIED)
    assert "may not infer" in error.details()
    stub.RepositoryModelLoad(elsewhere, metadata=bearer(secrets["deployer"]), timeout=30)


def test_refused_callers_are_counted(server: RunningServer, channel: grpc.Channel) -> None:
    refused(lambda: asked(channel), Code.UNAUTHENTICATED)
    assert 'fovea_requests_total{code="UNAUTHENTICATED",model="",version=""}' in server.get("/metrics")


def test_a_changed_file_is_in_force_soon_also_in_open_streams(repository: pathlib.Path, tmp_path: pathlib.Path) -> None:
    secrets = Secrets(tmp_path / "tokens.toml")
    secrets.add("mary")
    with (
        running(repository, tmp_path / "log", *QUICK, "--tokens", str(secrets.path)) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        turn, messages = hand_over()
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        stream = stub.ModelStreamInfer(messages, metadata=bearer(secrets["mary"]), timeout=60)
        turn(request(request_id="1"))
        assert not next(stream).error_message
        secrets.path.write_text("mary = 1\n")
        wait_for(server, "the changed file is not used")
        asked(channel, secrets["mary"])
        secrets.path.write_text("")
        secrets.add("paul")
        wait_for(server, "tokens: read again, 1: paul")
        asked(channel, secrets["paul"])
        refused(lambda: asked(channel, secrets["mary"]), Code.UNAUTHENTICATED)
        turn(request(request_id="2"))
        assert "not known here any more" in next(stream).error_message
        turn(None)


def hand_over() -> tuple[Callable[[object], None], Iterator[inference_pb2.ModelInferRequest]]:
    import queue

    waiting: queue.Queue[object] = queue.Queue()
    return waiting.put, iter(waiting.get, None)  # type: ignore[arg-type]


def wait_for(server: RunningServer, sentence: str) -> None:
    import time

    give_up_s = time.monotonic() + 60
    while sentence not in server.log():
        assert time.monotonic() < give_up_s, server.log()
        time.sleep(0.02)  # between looks at another process's log; bounded above


def test_without_tokens_control_is_for_this_machine_and_so_is_shared_memory(
    repository: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    address = own_address()
    with running(repository, tmp_path / "log", *QUICK, "--host", "0.0.0.0", "--allow-client-shm") as server:
        assert "all who reach it may use it" in server.log()
        with grpc.insecure_channel(f"{address}:{server.address.rpartition(':')[2]}") as channel:
            stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
            asked(channel)
            register = inference_pb2.SystemSharedMemoryRegisterRequest(name="a", key="/b", byte_size=1)
            for call in (
                lambda: stub.SystemSharedMemoryRegister(register, timeout=30),
                lambda: stub.LogSettings(inference_pb2.LogSettingsRequest(), timeout=30),
                lambda: stub.TraceSetting(inference_pb2.TraceSettingRequest(), timeout=30),
            ):
                assert "call from there" in refused(call, Code.PERMISSION_DENIED).details()


def test_a_file_that_is_not_understood_says_what_and_where(tmp_path: pathlib.Path) -> None:
    digest = f"sha256 = '{'0' * 64}'\n"
    for text, sentence in (
        ("mary = 1", "'mary' is no table"),
        ("[mary]", "[mary] has no sha256"),
        (f"[mary]\nsha256 = '{'0' * 63}'", "64 hexadecimal digits"),
        (f"[mary]\n{digest}right = ['infer']", "[mary] right is not known (did you mean 'rights'?)"),
        (f"[mary]\n{digest}rights = ['all']", "[mary] rights is ['all']; expected a list of infer and control"),
        (f"[mary]\n{digest}models = 'a'", "expected a list of model names"),
        (f"[mary]\n{digest}images_per_s = 0", "expected a number above 0"),
        (f"[mary]\n{digest}burst = 3", "burst without images_per_s"),
        (f"[a]\n{digest}[b]\n{digest}", "one sha256 under two names"),
        ("['my token']\n" + digest, "names are 1 to 64 letters"),
        ("[mary", "token file"),
    ):
        path = tmp_path / "tokens.toml"
        path.write_text(text)
        with pytest.raises(errors.TokenFileError) as caught:
            tokens.Tokens(path)
        assert sentence in str(caught.value)
    with pytest.raises(errors.TokenFileError, match="cannot be read: No such file"):
        tokens.Tokens(tmp_path / "nowhere")


def test_the_command_makes_an_entry_without_the_token_and_shows_the_token_once(tmp_path: pathlib.Path) -> None:
    given = ("mary.smith", "--model", "lenet*", "--model", "b", "--images-per-s", "10", "--control")
    ended = subprocess.run([FOVEA, "token", *given], capture_output=True, text=True, timeout=60, check=True)
    secret = ended.stderr.split()[-1]
    assert secret.startswith(tokens.PREFIX)
    assert secret not in ended.stdout
    path = tmp_path / "tokens.toml"
    path.write_text(ended.stdout * 1)
    found = tokens.Tokens(path).find(secret)
    assert found is not None
    assert (found.name, found.models, found.images_per_s) == ("mary.smith", ("lenet*", "b"), 10.0)
    assert found.rights == {"infer", "control"}
    assert tomllib.loads(ended.stdout)["mary.smith"]["rights"] == ["infer", "control"]
    wrong = subprocess.run([FOVEA, "token", "my token"], capture_output=True, text=True, timeout=60, check=False)
    assert (wrong.returncode, wrong.stdout, "names are" in wrong.stderr) == (2, "", True)


def test_a_bucket_holds_its_rate_and_lets_in_what_is_larger_than_its_burst() -> None:
    bucket = buckets.Bucket(rate_per_s=10.0, burst=5.0, now_s=0.0)
    assert bucket.take(25, 0.0) == 0.0  # whole, though larger than the burst
    assert bucket.take(1, 0.0) == pytest.approx(2.1)  # 20 to pay back, and one more
    assert bucket.take(1, 1.9) > 0.0
    assert bucket.take(1, 2.2) == 0.0
    taken = sum(bucket.take(1, 100.0 + step / 100) == 0.0 for step in range(1000))  # 10 s, asked 100 times a second
    assert 100 <= taken <= 106
