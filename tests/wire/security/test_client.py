"""Fovea's own client and commands at a server that wants TLS, a client certificate and a token."""

import dataclasses
import os
import pathlib
import subprocess
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from service import client
from service.client import access
from service.wire.security import tokens
from tests.conftest import FOVEA, RunningServer, running
from tests.wire.security import authority
from tests.wire.security.conftest import MODEL, QUICK

ONES = {"x": np.ones((2, 4), np.float32)}


@dataclasses.dataclass(frozen=True)
class Guarded:
    """A server that asks for everything, and what lets one in."""

    server: RunningServer
    address: str
    access: access.Access
    token_file: pathlib.Path

    @property
    def flags(self) -> dict[str, str]:
        """By name, as flags and variables have it."""
        one = self.access
        files = {"tls_ca": one.tls_ca, "tls_certificate": one.tls_certificate, "tls_key": one.tls_key}
        return files | {"token_file": str(self.token_file)}


@pytest.fixture(scope="module")
def guarded(
    repository: pathlib.Path, root: authority.Made, root_file: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    place = tmp_path_factory.mktemp("guarded")
    certificate, key = authority.made("localhost", root).written(place / "server")
    own = authority.made("mary", root).written(place / "client")
    secret, digest = tokens.made()
    (place / "tokens.toml").write_text(f'[mary]\nsha256 = "{digest}"\n')
    (place / "token").write_text(secret + "\n")
    flags = ("--tls-certificate", str(certificate), "--tls-key", str(key), "--tls-client-ca", str(root_file))
    with running(repository, place / "log", *QUICK, *flags, "--tokens", str(place / "tokens.toml")) as server:
        address = f"localhost:{server.address.rpartition(':')[2]}"
        chosen = access.Access(str(root_file), str(own[0]), str(own[1]), secret)
        yield Guarded(server, address, chosen, place / "token")


async def test_the_client_shows_certificate_and_token_over_streams_and_unary_calls(guarded: Guarded) -> None:
    for streams in (True, False):
        options = {"credentials": guarded.access.credentials(), "token": guarded.access.token, "streams": streams}
        async with client.Client(guarded.address, **options) as served:
            assert await served.is_ready()
            assert ((await served.infer_tensors(MODEL, ONES))["y"] == 2.0).all()


def test_the_client_of_threads_does_too(guarded: Guarded) -> None:
    credentials = guarded.access.credentials()
    with client.SyncClient(guarded.address, credentials=credentials, token=guarded.access.token) as served:
        assert (served.infer_tensors(MODEL, ONES)["y"] == 2.0).all()


async def test_without_the_token_the_client_says_what_is_missing_at_once(guarded: Guarded) -> None:
    async with client.Client(guarded.address, credentials=guarded.access.credentials(), token="fovea_no") as served:
        for _ in range(2):
            with pytest.raises(client.CallFailed, match="the token is not known here") as caught:
                await served.infer_tensors(MODEL, ONES, timeout_s=30)
            assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED


def command(guarded: Guarded, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FOVEA_")}
    return subprocess.run(
        [FOVEA, *arguments], capture_output=True, text=True, timeout=120, check=False, env=clean | environment
    )


def given(guarded: Guarded) -> tuple[list[str], dict[str, str]]:
    """Flags, and the same as variables."""
    flags = [text for name, value in guarded.flags.items() for text in (f"--{name.replace('_', '-')}", value)]
    return flags, {access.ENVIRONMENT[name]: value for name, value in guarded.flags.items()}


def test_classify_takes_flags_or_variables(guarded: Guarded, tmp_path: pathlib.Path) -> None:
    """The model takes no images; that it says so, it says to those who were let in."""
    (tmp_path / "a.png").write_bytes(b"x")
    flags, variables = given(guarded)
    asking = ("classify", "--model", MODEL, "--address", guarded.address, str(tmp_path / "a.png"))
    refused = command(guarded, *asking, *flags[:-2])
    assert "UNAUTHENTICATED: the call has no authorization metadata" in refused.stderr
    for ended in (
        command(guarded, *asking, *flags),
        command(guarded, *asking, **variables),
        command(guarded, *asking, *flags[:-2], FOVEA_CLIENT_TOKEN=guarded.access.token),
    ):
        assert ended.returncode == 1
        assert "image" in ended.stderr
        assert not {"UNAUTHENTICATED", "UNAVAILABLE", "Traceback"} & set(ended.stderr.replace(":", " ").split())


def test_load_takes_flags_or_variables(guarded: Guarded) -> None:
    flags, variables = given(guarded)
    asking = ("load", guarded.address, "--model", MODEL, "--requests", "20", "--concurrency", "2", "--warmup", "0")
    for ended in (
        command(guarded, *asking, *flags),
        command(guarded, *asking, **variables),
        command(guarded, *asking, "--streams", "1", **variables),
        command(guarded, *asking, "--processes", "2", *flags),
    ):
        assert ended.returncode == 0, ended.stderr
        assert "20 OK" in ended.stdout
    refused = command(guarded, *asking, *flags[:-2])
    assert (refused.returncode, "UNAUTHENTICATED" in refused.stderr) == (1, True)


def test_what_cannot_be_used_is_said_without_the_token(tmp_path: pathlib.Path) -> None:
    (tmp_path / "token").write_text("secret with spaces")
    (tmp_path / "no.pem").write_text("x")
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no token has") as caught:
        access.of_environment({"token_file": tmp_path / "token"}, {})
    assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        access.of_environment({}, {"FOVEA_CLIENT_TOKEN_FILE": nowhere})
    for wrong, sentence in (
        ({"tls_ca": nowhere}, "cannot be read"),
        ({"tls_ca": str(tmp_path / "no.pem")}, "is no PEM file"),
        ({"tls_certificate": "a"}, "needs its key"),
        ({"tls_certificate": "a", "tls_key": "b"}, "needs TLS"),
    ):
        with pytest.raises(ValueError, match=sentence):
            access.Access(**wrong).credentials()
    assert access.Access(tls_ca=access.SYSTEM).credentials() is not None
    assert "hidden" not in repr(access.Access(token="hidden"))
