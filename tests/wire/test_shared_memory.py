"""System shared memory, tracing and logging settings, by NVIDIA's own client."""

import os
import pathlib
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, shared_memory

from export import digits
from service import errors
from service.wire import regions
from tests import conftest
from tests.conftest import Exported, RunningServer


@pytest.fixture(scope="module")
def served(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    with conftest.running(exported.repository, log, "--device", "cpu", "--allow-client-shm") as server:
        yield server


@pytest.fixture
def client(served: RunningServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(served.address) as connection:
        yield connection
        connection.unregister_system_shared_memory()


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> Iterator[object]:
    region = shared_memory.create_shared_memory_region("images", f"/fovea-{request.node.name[:40]}", 65_536)
    yield region
    shared_memory.destroy_shared_memory_region(region)


def key(request: pytest.FixtureRequest) -> str:
    return f"/fovea-{request.node.name[:40]}"


def test_inputs_are_read_from_and_outputs_written_to_shared_memory(
    request: pytest.FixtureRequest,
    client: triton.InferenceServerClient,
    memory: object,
    exported: Exported,
    held_out: digits.Digits,
) -> None:
    client.register_system_shared_memory("images", key(request), 65_536)
    images = held_out.images_nhwc[:8]
    image = triton.InferInput("image", list(images.shape), "UINT8")
    image.set_shared_memory("images", images.nbytes, 1024)
    logits = triton.InferRequestedOutput("logits")
    logits.set_shared_memory("images", 8 * 10 * 4, 32_768)
    for first in (0, 8):  # the second request has the same header and other pixels
        images = held_out.images_nhwc[first : first + 8]
        shared_memory.set_shared_memory_region(memory, [images], offset=1024)
        result = client.infer("lenet5", [image], outputs=[logits])
        output = result.get_output("logits")
        assert output.parameters["shared_memory_region"].string_param == "images"
        assert result.get_response().raw_output_contents[0] == b""
        written = shared_memory.get_contents_as_numpy(memory, np.float32, [8, 10], offset=32_768)
        np.testing.assert_allclose(written, exported.logits(images), atol=1e-4)


def test_a_region_registered_anew_is_the_one_that_is_used(
    request: pytest.FixtureRequest,
    client: triton.InferenceServerClient,
    memory: object,
    exported: Exported,
    held_out: digits.Digits,
) -> None:
    images = held_out.images_nhwc[:2]
    shared_memory.set_shared_memory_region(memory, [images[:1], images[1:]])
    image = triton.InferInput("image", [1, *images.shape[1:]], "UINT8")
    image.set_shared_memory("images", images[:1].nbytes)
    for number, offset in enumerate((0, images[:1].nbytes)):
        client.register_system_shared_memory("images", key(request), images[:1].nbytes, offset)
        status = client.get_system_shared_memory_status(as_json=True)["regions"]
        assert int(status["images"].get("offset", 0)) == offset
        found = client.infer("lenet5", [image]).as_numpy("logits")
        np.testing.assert_allclose(found, exported.logits(images[number : number + 1]), atol=1e-4)
        client.unregister_system_shared_memory("images")
    assert not client.get_system_shared_memory_status().regions


def test_what_is_wrong_with_a_region_is_said(
    request: pytest.FixtureRequest, client: triton.InferenceServerClient, memory: object
) -> None:
    with pytest.raises(InferenceServerException, match="cannot be opened"):
        client.register_system_shared_memory("other", "/fovea-not-there", 10)
    for bad in ("/../etc/passwd", "a/b", "/"):
        with pytest.raises(InferenceServerException, match="is no name"):
            client.register_system_shared_memory("other", bad, 10)
    with pytest.raises(InferenceServerException, match="has 65536 bytes"):
        client.register_system_shared_memory("other", key(request), 65_537)
    client.register_system_shared_memory("images", key(request), 65_536)
    with pytest.raises(InferenceServerException, match="registered already"):
        client.register_system_shared_memory("images", key(request), 65_536)
    for region, size, offset, sentence in (
        ("imagez", 1024, 0, "did you mean 'images'"),
        ("images", 1024, 65_000, "not within"),
        ("images", 1000, 0, "1000 raw bytes"),
        ("images", 0, 0, "0 bytes from offset 0"),
    ):
        image = triton.InferInput("image", [1, 32, 32, 1], "UINT8")
        image.set_shared_memory(region, size, offset)
        with pytest.raises(InferenceServerException, match=sentence):
            client.infer("lenet5", [image])
    image = triton.InferInput("image", [1, 32, 32, 1], "UINT8")
    image.set_shared_memory("images", 1024)
    small = triton.InferRequestedOutput("logits")
    small.set_shared_memory("images", 39)
    with pytest.raises(InferenceServerException, match="has 40 bytes; 39 of"):
        client.infer("lenet5", [image], outputs=[small])


def test_a_link_among_shared_memory_is_not_followed(client: triton.InferenceServerClient) -> None:
    link = pathlib.Path("/dev/shm/fovea-link")
    link.symlink_to("/etc/hostname")
    try:
        with pytest.raises(InferenceServerException, match="cannot be opened"):
            client.register_system_shared_memory("link", "/fovea-link", 1)
    finally:
        link.unlink()


def test_without_leave_no_memory_is_mapped(server: RunningServer, client: triton.InferenceServerClient) -> None:
    assert "system_shared_memory" in client.get_server_metadata().extensions
    with triton.InferenceServerClient(server.address) as denied:
        assert "system_shared_memory" not in denied.get_server_metadata().extensions
        denied.unregister_system_shared_memory()
        with pytest.raises(InferenceServerException, match="--allow-client-shm") as caught:
            denied.register_system_shared_memory("images", "/anything", 10)
        assert "UNIMPLEMENTED" in caught.value.status()


def test_cuda_memory_is_refused_and_nothing_is_unregistered(client: triton.InferenceServerClient) -> None:
    client.unregister_cuda_shared_memory()
    assert not client.get_cuda_shared_memory_status().regions
    with pytest.raises(InferenceServerException, match="takes no CUDA shared memory"):
        client.register_cuda_shared_memory("gpu", b"aGFuZGxl", 0, 10)


def test_tracing_is_off_and_stays_off(client: triton.InferenceServerClient) -> None:
    assert client.get_trace_settings(as_json=True)["settings"]["trace_level"]["value"] == ["OFF"]
    client.update_trace_settings(settings={"trace_level": ["OFF"]})
    with pytest.raises(InferenceServerException, match="does not trace"):
        client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})


def test_the_log_s_level_can_be_changed(served: RunningServer, client: triton.InferenceServerClient) -> None:
    def settings() -> dict[str, object]:
        told = client.get_log_settings().settings
        return {name: told[name].bool_param for name in ("log_info", "log_warning", "log_error")} | {
            "verbose": told["log_verbose_level"].uint32_param
        }

    assert settings() == {"log_info": True, "log_warning": True, "log_error": True, "verbose": 0}
    client.update_log_settings({"log_info": False, "log_warning": False})
    assert settings() == {"log_info": False, "log_warning": False, "log_error": True, "verbose": 0}
    client.update_log_settings({"log_verbose_level": 1})
    assert settings()["verbose"] == 1
    with pytest.raises(InferenceServerException, match="logs to stderr"):
        client.update_log_settings({"log_file": "/tmp/x"})
    client.update_log_settings({"log_info": True, "log_verbose_level": 0})
    assert settings() == {"log_info": True, "log_warning": True, "log_error": True, "verbose": 0}


def test_a_region_is_for_the_caller_who_registered_it(request: pytest.FixtureRequest, memory: object) -> None:
    known = regions.Regions(are_allowed=True)
    known.register("images", key(request), 0, 1024, "ipv4:127.0.0.1")
    part = regions.Part("images", 0, 16)
    known.require_own([part], "ipv6:%5B::1%5D")  # the same machine
    for other in ("ipv4:10.0.0.7", "token mary"):
        with pytest.raises(errors.BadRequest, match="no shared memory region 'images' is registered"):
            known.require_own([part], other)


def test_memory_that_the_file_system_cannot_give_is_refused(request: pytest.FixtureRequest, memory: object) -> None:
    free = os.statvfs(regions.FOLDER)
    path = regions.FOLDER / key(request).strip("/")
    wanted = (free.f_bavail + 1024) * free.f_frsize
    os.truncate(path, wanted)  # takes nothing yet
    with pytest.raises(errors.BadRequest, match="are not to be had"):
        regions.Regions(are_allowed=True).register("images", key(request), 0, wanted)
