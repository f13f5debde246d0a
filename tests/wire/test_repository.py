"""Versions and model control, by NVIDIA's own client: index, load, unload, the modes, what is refused."""

import contextlib
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

import grpc
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

from service.wire.security import peers
from tests.conftest import FOVEA, RunningServer, running
from tests.wire import repositories
from tests.wire.repositories import MODEL, Weights, lay, served, states, until

Both = tuple[Weights, Weights]
READY, UNAVAILABLE = "READY", "UNAVAILABLE"
THREADS = ("--threads", "1")
EXPLICIT = ("--model-control-mode", "explicit", *THREADS)
ALL = repositories.CONFIG + " version_policy { all {} }"


@pytest.fixture(scope="module")
def place(both: Both, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    repository = tmp_path_factory.mktemp("repository")
    lay(repository, {"1": both[0], "3": both[1]})
    lay(repository, {"1": both[0]}, name="other")
    return repository


@pytest.fixture(scope="module")
def explicit(place: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(place, tmp_path_factory.mktemp("explicit") / "log", *EXPLICIT, "--load-model", "other") as server:
        yield server


@contextlib.contextmanager
def serving(
    repository: pathlib.Path, log_path: pathlib.Path, *flags: str
) -> Iterator[tuple[RunningServer, triton.InferenceServerClient]]:
    with running(repository, log_path, *flags) as server, triton.InferenceServerClient(server.address) as client:
        yield server, client


@pytest.fixture
def stock(explicit: RunningServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(explicit.address) as client:
        yield client


def refused(call, *arguments, **named) -> str:  # type: ignore[no-untyped-def]  # any call
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **named)
    return str(caught.value)


def config(text: str) -> str:
    from google.protobuf import json_format

    return json_format.MessageToJson(repositories.config_text(text))


def test_only_the_models_named_are_loaded_at_start(stock: triton.InferenceServerClient) -> None:
    assert states(stock)["other", "1"] == (READY, "")
    assert stock.is_server_ready()
    assert {"model_repository", "model_repository(unload_dependents)"} <= set(stock.get_server_metadata().extensions)


def test_load_serve_unload(stock: triton.InferenceServerClient, explicit: RunningServer, both: Both) -> None:
    assert states(stock)[MODEL, ""] == (UNAVAILABLE, "not loaded")
    assert not stock.is_model_ready(MODEL)
    stock.load_model(MODEL)
    assert states(stock)[MODEL, "3"] == (READY, "")
    assert stock.is_model_ready(MODEL, "3")
    assert not stock.is_model_ready(MODEL, "1")
    assert served(stock, both) == 1
    assert f'fovea_images_total{{model="{MODEL}",version="3"}} 1.0' in explicit.get("/metrics")
    stock.unload_model(MODEL, unload_dependents=True)
    assert not stock.is_model_ready(MODEL)
    assert states(stock)[MODEL, "3"] == (UNAVAILABLE, "unloaded")
    assert MODEL in refused(served, stock, both)
    assert MODEL not in explicit.get("/metrics")
    assert [one.name for one in stock.get_inference_statistics().model_stats] == ["other"]
    assert MODEL in refused(stock.unload_model, MODEL)


def test_the_ready_filter_leaves_out_the_others(stock: triton.InferenceServerClient) -> None:
    assert set(states(stock, ready=True)) == {("other", "1")}


def test_a_config_handed_over_replaces_the_file(stock: triton.InferenceServerClient, both: Both) -> None:
    stock.load_model(MODEL, config=config("max_batch_size: 2 version_policy { specific { versions: 1 } }"))
    assert stock.get_model_config(MODEL).config.max_batch_size == 2
    assert served(stock, both) == 0
    stock.load_model(MODEL)
    assert stock.get_model_config(MODEL).config.max_batch_size == 8
    assert served(stock, both) == 1
    stock.unload_model(MODEL)


def test_files_handed_over_are_served_and_leave_nothing_behind(
    stock: triton.InferenceServerClient, place: pathlib.Path, both: Both
) -> None:
    before = sorted(place.rglob("*"))
    files = {"file:7/model.onnx": (both[0].folder / "model.onnx").read_bytes()}
    stock.load_model(MODEL, config=config("max_batch_size: 4"), files=files)
    assert (served(stock, both), served(stock, both, "7")) == (0, 0)
    assert list(stock.get_model_metadata(MODEL).versions) == ["7"]
    stock.load_model("handed", config="{}", files=files)
    assert states(stock)["handed", "7"] == (READY, "")
    stock.unload_model("handed")
    assert ("handed", "7") not in states(stock)
    stock.unload_model(MODEL)
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("path", ["/etc/1/model.onnx", "../1/model.onnx", "1/../../model.onnx", "1\\model.onnx", ""])
def test_files_stay_in_the_model_s_folder(stock: triton.InferenceServerClient, path: str) -> None:
    sentence = refused(stock.load_model, MODEL, config="{}", files={f"file:{path}": b"x"})
    assert "must stay within the model's folder" in sentence
    assert "INVALID_ARGUMENT" in sentence


def test_a_model_s_name_is_no_way_out_of_the_repository(
    stock: triton.InferenceServerClient, tmp_path: pathlib.Path
) -> None:
    for name in (
        str(tmp_path / "absolute"),
        f"../../../..{tmp_path}/relative",
        f"{MODEL}/../../../../..{tmp_path}/both",
        "",
    ):
        sentence = refused(stock.load_model, name, config="{}", files={"file:1/model.onnx": b"x"})
        assert "has no model" in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_load_that_makes_no_sense_is_refused_with_a_sentence(stock: triton.InferenceServerClient) -> None:
    assert "without 'config'" in refused(stock.load_model, MODEL, files={"file:1/model.onnx": b"x"})
    assert "no ModelConfig in JSON" in refused(stock.load_model, MODEL, config="{")
    assert "did you mean 'lenet5'?" in refused(stock.load_model, "lenet6")
    assert "has no model '../lenet5'" in refused(stock.load_model, "../lenet5")
    nine = config("version_policy { specific { versions: 9 } }")
    assert "the folder has 1, 3: name one of them" in refused(stock.load_model, MODEL, config=nine)
    request = triton.service_pb2.RepositoryModelLoadRequest(repository_name="second", model_name=MODEL)
    with pytest.raises(grpc.RpcError) as caught:
        stock._client_stub.RepositoryModelLoad(request)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    request = triton.service_pb2.RepositoryModelLoadRequest(model_name=MODEL)
    request.parameters["confg"].string_param = "{}"
    with pytest.raises(grpc.RpcError) as caught:
        stock._client_stub.RepositoryModelLoad(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "'confg' is not known" in caught.value.details()


def test_a_broken_version_keeps_the_old_one_serving(both: Both, tmp_path: pathlib.Path) -> None:
    folder = lay(tmp_path / "models", {"1": both[0]})
    with (
        serving(tmp_path / "models", tmp_path / "log", *EXPLICIT, "--load-model", "*") as (server, stock),
        grpc.insecure_channel(server.address) as channel,
    ):
        (folder / "2").mkdir()
        (folder / "2/model.onnx").write_bytes(b"no graph")
        assert "ONNX Runtime cannot load" in refused(stock.load_model, MODEL)
        assert states(stock)[MODEL, "1"] == (READY, "")
        state, reason = states(stock)[MODEL, "2"]
        assert (state, "ONNX Runtime cannot load" in reason) == (UNAVAILABLE, True)
        repositories.put(folder / "1", b"no graph either")
        shutil.rmtree(folder / "2")
        refused(stock.load_model, MODEL)
        state, reason = states(stock)[MODEL, "1"]
        assert (state, "ONNX Runtime cannot load" in reason) == (READY, True)
        (folder / "config.pbtxt").write_text("no such field")
        refused(stock.load_model, MODEL)
        assert "config.pbtxt cannot be read" in states(stock)[MODEL, "1"][1]
        assert served(stock, both) == 0
        assert stock.is_server_ready()
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(service=MODEL)).status == 1
        assert f'fovea_model_load_failures_total{{model="{MODEL}"}} 3.0' in server.get("/metrics")
        assert "still serving: version 1" in server.log()
        (folder / "config.pbtxt").write_text(repositories.CONFIG)
        repositories.exchange(folder / "1", both[1])
        stock.load_model(MODEL)
        assert states(stock)[MODEL, "1"] == (READY, "")
        assert served(stock, both) == 1
        stock.unload_model(MODEL)
        assert health.Check(health_pb2.HealthCheckRequest(service=MODEL)).status == 2
        assert health.Check(health_pb2.HealthCheckRequest(service="")).status == 1


def test_a_repository_as_triton_s_documentation_shows_it(both: Both, tmp_path: pathlib.Path) -> None:
    """Several versions, labels; a config with dims, one without, and none at all."""
    repository = tmp_path / "models"
    tensors = (
        'input [ { name: "image" data_type: TYPE_UINT8 dims: [ 32, 32, 1 ] } ]'
        'output [ { name: "logits" data_type: TYPE_FP32 dims: [ 10 ] label_filename: "labels.txt" } ]'
    )
    whole = (
        f'platform: "onnxruntime_onnx" max_batch_size: 4 {tensors} version_policy: {{ latest {{ num_versions: 2 }} }}'
    )
    folder = lay(repository, {"1": both[0], "2": both[1], "10": both[0]}, "dims", whole)
    shutil.copy(both[0].folder.parent / "labels.txt", folder)
    (folder / "notes").mkdir()
    (folder / "03").mkdir()
    lay(repository, {"1": both[1]}, "no-dims", 'backend: "onnxruntime" max_batch_size: 4')
    (lay(repository, {"5": both[0]}, "no-config") / "config.pbtxt").unlink()
    with serving(repository, tmp_path / "log", *THREADS) as (_server, stock):
        assert list(stock.get_model_metadata("dims").versions) == ["2", "10"]
        assert [stock.is_model_ready("dims", version) for version in ("", "1", "2", "10")] == [
            True,
            False,
            True,
            True,
        ]
        image = [repositories.pixels(both[0].images[:1])]
        for model, version, answered, which in (
            ("dims", "", "10", 0),
            ("dims", "2", "2", 1),
            ("no-dims", "", "1", 1),
            ("no-config", "5", "5", 0),
        ):
            result = stock.infer(model, image, model_version=version)
            assert result.get_response().model_version == answered
            assert both[which].fits(result.as_numpy("logits")[0], 0)
        best = stock.infer("dims", image, outputs=[triton.InferRequestedOutput("logits", class_count=1)])
        assert best.as_numpy("logits")[0, 0].count(b":") == 2
        statistics = stock.get_inference_statistics("dims").model_stats
        assert [(one.version, one.inference_count) for one in statistics] == [("2", 1), ("10", 2)]
        assert [one.version for one in stock.get_inference_statistics("dims", "2").model_stats] == ["2"]
        assert "versions served: 2, 10" in refused(stock.infer, "dims", image, model_version="1")
        assert "served: dims" in refused(stock.infer, "nobody", image)
        for call in (stock.load_model, stock.unload_model):
            sentence = refused(call, "dims")
            assert "UNAVAILABLE" in sentence
            assert "--model-control-mode explicit" in sentence
        assert len(states(stock)) == 4


def test_a_model_that_cannot_be_served_stops_the_start_only_without_control(both: Both, tmp_path: pathlib.Path) -> None:
    repository = tmp_path / "models"
    lay(repository, {"1": both[0]})
    folder = lay(repository, {"1": both[0]}, "broken")
    repositories.put(folder / "1", b"no graph")
    command = [FOVEA, "serve", "--repository", str(repository), "--grpc-port", "0", "--metrics-port", "0", *THREADS]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "fovea serve: model 'broken' cannot be served" in ended.stderr
    for flags in (("--model-control-mode", "poll"), (*EXPLICIT, "--load-model", MODEL, "--load-model", "broken")):
        with serving(repository, tmp_path / "log", *flags) as (_server, stock):
            assert stock.is_server_ready()
            assert served(stock, both[:1]) == 0
            assert states(stock)["broken", "1"][0] == UNAVAILABLE


def test_load_model_needs_explicit_control(tmp_path: pathlib.Path) -> None:
    command = [FOVEA, "serve", "--repository", str(tmp_path), "--load-model", "m"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "choose --model-control-mode explicit" in ended.stderr


def test_poll_follows_the_folder(both: Both, tmp_path: pathlib.Path) -> None:
    repository = tmp_path / "models"
    folder = lay(repository, {"1": both[0]})
    flags = ("--model-control-mode", "poll", "--repository-poll-s", "0.1", *THREADS)
    with serving(repository, tmp_path / "log", *flags) as (_server, stock):
        assert served(stock, both) == 0
        shutil.copytree(both[1].folder, folder / "2")
        until(lambda: stock.is_model_ready(MODEL, "2"), "version 2")
        assert served(stock, both) == 1
        shutil.rmtree(folder / "2")
        until(lambda: stock.is_model_ready(MODEL, "1"), "version 1")
        assert served(stock, both) == 0
        lay(repository, {"1": both[1]}, "new")
        until(lambda: stock.is_model_ready("new"), "a new model")
        shutil.rmtree(repository / "new")
        until(lambda: not stock.is_model_ready("new"), "a model's end")
        until(lambda: not any(name == "new" for name, _ in states(stock)), "an index without it")


def test_only_callers_on_the_same_machine_may_control() -> None:
    local = ("ipv4:127.0.0.1:5", "ipv4:127.1.2.3:5", "ipv6:[::1]:5", "ipv6:%5B::1%5D:5", "unix:/tmp/x", "unix:")
    remote = ("ipv4:10.0.0.1:5", "ipv6:[2001:db8::1]:5", "ipv6:%5Bfe80::1%25eth0%5D:5", "unknown", "", "ipv4:")
    assert all(peers.is_local(peer) for peer in (*local, "ipv6:[::ffff:127.0.0.1]:5"))
    assert not any(peers.is_local(peer) for peer in (*remote, "ipv6:[::ffff:10.0.0.1]:5"))


def test_a_caller_from_elsewhere_is_denied_unless_allowed(place: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Asked at the machine's own address in the network, the caller comes from there too."""
    address = own_address()
    for flags, code in (((), grpc.StatusCode.PERMISSION_DENIED), (("--allow-remote-control",), None)):
        with running(place, tmp_path / "log", *EXPLICIT, "--host", "0.0.0.0", *flags) as server:
            port = server.address.rpartition(":")[2]
            with triton.InferenceServerClient(f"{address}:{port}") as stock:
                assert states(stock)["other", ""][0] == UNAVAILABLE
                if code is None:
                    stock.load_model("other")
                    assert stock.is_model_ready("other")
                else:
                    for call in (stock.load_model, stock.unload_model):
                        sentence = refused(call, "other")
                        assert code.name in sentence
                        assert "--allow-remote-control" in sentence


def own_address() -> str:
    import ipaddress
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks which way packets would go
        except OSError:
            pytest.skip("this machine has no address but loopback")
        found: str = probe.getsockname()[0]
    if ipaddress.ip_address(found).is_loopback:
        pytest.skip("this machine has no address but loopback")
    return found
