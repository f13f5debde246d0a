"""TLS and client certificates, right and wrong, and certificates replaced while calls come."""

import asyncio
import pathlib
import re
import subprocess
from collections.abc import Callable

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import parser

from service import client, errors
from service.wire.security import certificates
from tests.conftest import FOVEA, RunningServer, running
from tests.wire.security import authority
from tests.wire.security.conftest import MODEL, QUICK, asked, request


def flags(files: tuple[pathlib.Path, pathlib.Path], ca: pathlib.Path | None = None) -> tuple[str, ...]:
    chosen = ("--tls-certificate", str(files[0]), "--tls-key", str(files[1]))
    return (*QUICK, *chosen, *(() if ca is None else ("--tls-client-ca", str(ca))))


def channel(server: RunningServer, root: authority.Made, own: authority.Made | None = None) -> grpc.Channel:
    key, chain = (own.key_pem, own.pem) if own else (None, None)
    port = server.address.rpartition(":")[2]
    return grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(root.pem, key, chain))


def refused(opened: grpc.Channel) -> str:
    with opened, pytest.raises(grpc.RpcError) as caught:
        asked(opened)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    return str(caught.value.details())


def test_tls_lets_in_those_who_trust_it_and_probes_have_a_plain_port(
    repository: pathlib.Path, root: authority.Made, tmp_path: pathlib.Path
) -> None:
    files = authority.made("fovea.test", root).written(tmp_path)
    with running(repository, tmp_path / "log", *flags(files), "--health-port", "0") as server:
        with channel(server, root) as opened:
            asked(opened)
        stranger = authority.made("stranger", is_authority=True)
        assert "CERTIFICATE_VERIFY_FAILED" in refused(channel(server, stranger))
        refused(grpc.insecure_channel(server.address))
        plain = re.search(r"plain health on (\S+)", server.log())
        assert plain
        with grpc.insecure_channel(plain[1]) as probe:
            answer = health_pb2_grpc.HealthStub(probe).Check(health_pb2.HealthCheckRequest(service=MODEL), timeout=30)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.RpcError) as caught:
                asked(probe)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert server.get("/v2/health/ready") == "ok\n"


def test_mutual_tls_lets_in_only_clients_of_its_authority(
    repository: pathlib.Path, root: authority.Made, root_file: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    files = authority.made("fovea.test", root).written(tmp_path)
    stranger = authority.made("stranger", is_authority=True)
    with running(repository, tmp_path / "log", *flags(files, root_file)) as server:
        with channel(server, root, authority.made("mary", root)) as opened:
            asked(opened)
        refused(channel(server, root))
        refused(channel(server, root, authority.made("mary", stranger)))
        refused(channel(server, root, authority.made("mary", root, begins=-2, ends=-1)))
        with channel(server, root, authority.made("mary", root)) as opened:
            asked(opened)


def ends(server: RunningServer) -> dict[str, float]:
    """What a scrape says: when which certificate ends."""
    families = parser.text_string_to_metric_families(server.get("/metrics"))
    name = "fovea_certificate_expiry_timestamp_seconds"
    return {one.labels["certificate"]: one.value for family in families for one in family.samples if one.name == name}


def end(*made: authority.Made) -> float:
    return max(one.certificate.not_valid_after_utc.timestamp() for one in made)


def test_a_scrape_says_when_certificates_end_and_sees_new_files_before_a_handshake_does(
    repository: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """And the handshake after it gets them all the same. What cannot be used changes nothing."""
    old, new = (authority.made(f"root {days}", ends=days, is_authority=True) for days in (30, 60))
    first, second = (authority.made("fovea.test", by, ends=days) for by, days in ((old, 10), (new, 20)))
    bundle = tmp_path / "ca.crt"
    bundle.write_bytes(old.pem)
    with running(repository, tmp_path / "log", *flags(first.written(tmp_path), bundle)) as server:
        assert ends(server) == {"server": end(first), "client_ca": end(old)}
        (tmp_path / "tls.crt").write_bytes(b"not a certificate")
        assert ends(server) == {"server": end(first), "client_ca": end(old)}
        bundle.write_bytes(new.pem + old.pem)
        second.written(tmp_path)
        assert ends(server) == {"server": end(second), "client_ca": end(new, old)}
        with channel(server, new, authority.made("mary", new)) as opened:
            asked(opened)


def test_a_server_without_tls_has_no_certificate_that_ends(plain: RunningServer) -> None:
    assert ends(plain) == {}


async def test_a_certificate_is_replaced_under_load_and_no_call_fails(
    repository: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Clients of stock gRPC and Fovea's own call without pause; connections end after a second, so that new ones come.

    The new certificate is of another authority: in the end a client who trusts only that one gets in. In between the
    files do not fit each other, and for a while the certificate is none at all.
    """
    roots = [authority.made(f"root {number}", is_authority=True) for number in range(2)]
    trusted = b"".join(one.pem for one in roots)
    files = authority.made("fovea.test", roots[0]).written(tmp_path / "tls")
    extra = ("--connection-age-s", "1", "--connection-age-grace-s", "20")
    with running(repository, tmp_path / "log", *flags(files), *extra) as server:
        credentials = grpc.ssl_channel_credentials(trusted)
        address = f"127.0.0.1:{server.address.rpartition(':')[2]}"
        answered = [0, 0]
        is_over = asyncio.Event()

        async with (
            grpc.aio.secure_channel(address, credentials) as stock,
            client.Client(address, credentials=credentials, stream_age_s=3.0) as own,
        ):
            call = stock.unary_unary("/inference.GRPCInferenceService/ModelInfer")

            async def keep_calling() -> None:
                while not is_over.is_set():
                    assert await call(request().SerializeToString(), timeout=30)
                    answered[0] += 1

            async def keep_asking() -> None:
                while not is_over.is_set():
                    assert (await own.infer(request())).raw_output_contents
                    answered[1] += 1

            load = [asyncio.create_task(one()) for one in (keep_calling, keep_asking) for _ in range(4)]
            await grown(answered, 200, load)
            files[0].write_bytes(b"not a certificate")
            await lines(server, "the changed files are not used", load)
            authority.made("fovea.test", roots[1]).written(tmp_path / "tls")
            await lines(server, "certificate replaced", load)
            await grown(answered, 200, load)
            is_over.set()
            await asyncio.gather(*load)
        with channel(server, roots[1]) as opened:
            asked(opened)
        assert "CERTIFICATE_VERIFY_FAILED" in refused(channel(server, roots[0]))


async def grown(counts: list[int], by: int, load: list["asyncio.Task[None]"]) -> None:
    wanted = [count + by for count in counts]

    def is_there() -> bool:
        return all(count >= want for count, want in zip(counts, wanted, strict=True))

    await until(is_there, load)


async def lines(server: RunningServer, sentence: str, load: list["asyncio.Task[None]"]) -> None:
    await until(lambda: sentence in server.log(), load)


async def until(is_there: Callable[[], bool], load: list["asyncio.Task[None]"]) -> None:
    async with asyncio.timeout(60):
        while not is_there():
            for task in load:
                if task.done():
                    task.result()
            await asyncio.sleep(0.02)  # between looks at another process; bounded above


def wrong(tmp_path: pathlib.Path, **content: bytes) -> str:
    """What is said of files, by name: certificate, key, client_ca."""
    good = authority.made("fovea.test")
    all_of_them = {"certificate": good.pem, "key": good.key_pem, **content}
    paths = {name: tmp_path / name for name in all_of_them}
    for name, text in all_of_them.items():
        paths[name].write_bytes(text)
    with pytest.raises(errors.CertificateError) as caught:
        certificates.Certificates(certificates.Files(**paths))
    return str(caught.value)


def test_what_clients_would_refuse_is_an_error_before_the_start(tmp_path: pathlib.Path) -> None:
    other = authority.made("other")
    old = authority.made("old", begins=-2, ends=-1)
    early = authority.made("early", begins=1, ends=2)
    locked = other.key_as(serialization.BestAvailableEncryption(b"secret"))
    old_authority = authority.made("old", begins=-2, ends=-1, is_authority=True)
    assert "does not fit the certificate" in wrong(tmp_path, key=other.key_pem)
    assert "certificate has expired" in wrong(tmp_path, certificate=old.pem, key=old.key_pem)
    assert "certificate is not yet valid" in wrong(tmp_path, certificate=early.pem, key=early.key_pem)
    assert "is not text" in wrong(tmp_path, certificate=b"\x30\x82")
    assert "holds no certificate in PEM" in wrong(tmp_path, certificate=other.key_pem)
    assert "holds no private key in PEM" in wrong(tmp_path, key=b"")
    assert "cannot be used" in wrong(tmp_path, key=b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    assert "is not text" in wrong(tmp_path, key=b"\xff\xfe")
    assert "is encrypted" in wrong(tmp_path, certificate=other.pem, key=locked)
    assert "no certificate of an authority" in wrong(tmp_path, client_ca=other.pem)
    assert "only authorities that have expired" in wrong(tmp_path, client_ca=old_authority.pem)


def test_comments_between_certificates_may_be_of_any_letters(root: authority.Made, tmp_path: pathlib.Path) -> None:
    files = authority.made("fovea.test", root).written(tmp_path)
    bundle = tmp_path / "authorities.pem"
    bundle.write_bytes("NetLock Arany (Class Gold) Főtanúsítvány\n".encode() + root.pem)
    certificates.Certificates(certificates.Files(*files, bundle))


def test_a_server_whose_certificate_is_missing_says_so_and_does_not_start(
    repository: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for given, sentence in (
        (
            ("--tls-certificate", str(tmp_path / "no"), "--tls-key", str(tmp_path / "no")),
            "cannot be read: No such file",
        ),
        (("--tls-certificate", str(tmp_path / "no")), "--tls-certificate is given without --tls-key"),
        (("--tls-client-ca", str(tmp_path / "no")), "client certificates need TLS"),
    ):
        command = [FOVEA, "serve", "--repository", str(repository), "--grpc-port", "0", "--metrics-port", "0", *given]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (ended.returncode, sentence in ended.stderr, "Traceback" in ended.stderr) == (1, True, False)


def test_links_that_are_swapped_are_seen_as_kubernetes_does_it(tmp_path: pathlib.Path) -> None:
    """A secret's files are links into ..data, itself a link that is replaced."""
    first, second = authority.made("first"), authority.made("second")
    first.written(tmp_path / "..1")
    second.written(tmp_path / "..2")
    (tmp_path / "..data").symlink_to("..1")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    used = certificates.Certificates(certificates.Files(tmp_path / "tls.crt", tmp_path / "tls.key"))
    assert used.changed() is None
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    assert used.changed() is not None
    assert used.changed() is None
