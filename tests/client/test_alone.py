"""The client with nothing installed but numpy, grpcio, protobuf and protos; and over TLS."""

import pathlib
import shutil
import subprocess
import sys

import grpc
import pytest

from service import client
from tests.client import scripted
from tests.conftest import RunningServer

PROGRAM = """
import sys

ALLOWED = {"numpy", "grpc", "google", "protos", "service", "typing_extensions"} | set(sys.stdlib_module_names)

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ImportError(f"{name} is not installed here")
        return None

sys.meta_path.insert(0, Refuse())
from service import client

with client.SyncClient(sys.argv[1]) as served:
    print(served.classify(open(sys.argv[2], "rb").read(), "lenet5", top=1)[0].label)
"""


def test_the_client_works_where_nothing_else_is_installed(
    server: RunningServer, pngs: list[bytes], tmp_path: pathlib.Path
) -> None:
    image = tmp_path / "digit.png"
    image.write_bytes(pngs[0])
    command = [sys.executable, "-c", PROGRAM, server.address, str(image)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.stderr == ""
    with client.SyncClient(server.address) as served:
        assert result.stdout.strip() == served.classify(pngs[0], "lenet5")[0].label


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Key and certificate for localhost."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, and makes the certificate")
    folder = tmp_path_factory.mktemp("certificate")
    key, signed = folder / "key.pem", folder / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
    named = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(signed)]
    subprocess.run([*command.split(), *named], check=True, capture_output=True)
    return key.read_bytes(), signed.read_bytes()


async def test_tls_checks_the_name_and_not_the_address_behind_it(certificate: tuple[bytes, bytes]) -> None:
    credentials = grpc.ssl_server_credentials([certificate])
    trusted = grpc.ssl_channel_credentials(certificate[1])
    async with scripted.serving(scripted.echo, scripted.echo_stream, credentials) as server:
        port = server.address.rpartition(":")[2]
        async with client.Client(f"dns:///localhost:{port}", credentials=trusted) as served:
            assert (await served.infer(scripted.Request(id="a"))).id == "a"
        async with client.Client(server.address, credentials=trusted, timeout_s=0.3) as served:
            with pytest.raises(client.CallFailed, match="UNAVAILABLE"):
                await served.infer(scripted.Request())
