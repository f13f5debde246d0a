"""One look at what a server publishes: real HTTP servers, right and wrong."""

import contextlib
import http.server
import pathlib
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from service import errors, scrape
from service.loadgen import stage_times
from tests.wire.security import authority

WITHIN_S = 30.0
OURS = b'# TYPE fovea_ready gauge\nfovea_ready 1\n# TYPE other gauge\nother{a="b"} 2\n'
TIMES = b'# TYPE fovea_run_duration_seconds histogram\nfovea_run_duration_seconds_bucket{model="net"} 1\n'


@contextlib.contextmanager
def serving(body: bytes, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server with these metrics; its host and port. /elsewhere leads to them."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302 if self.path == "/elsewhere" else 200 if self.path == "/metrics" else 503)
            self.send_header("Location", "/metrics")
            self.end_headers()
            with contextlib.suppress(OSError):  # who has heard enough leaves
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Handshakes that fail are what is tested."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def wrong(url: str, within_s: float = WITHIN_S, **options: bool) -> str:
    with pytest.raises(scrape.NoFigures) as caught:
        scrape.read(url, within_s, **options)
    return str(caught.value)


def test_our_samples_are_read_and_others_left() -> None:
    with serving(OURS) as address:
        for path in ("metrics", "elsewhere"):
            found = scrape.read(f"http://{address}/{path}", WITHIN_S)
            assert found.samples == {"fovea_ready": {(): 1.0}}
            assert found.of("other") == {}


def test_https_is_read_if_its_certificate_is_trusted(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = authority.made("root", is_authority=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.made("fovea.test", root).written(tmp_path))
    (tmp_path / "ca.crt").write_bytes(root.pem)
    with serving(OURS, tls) as address:
        said = wrong(f"https://{address}/metrics")
        assert "has a certificate that is not trusted (unable to get local issuer certificate); add who signed" in said
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.crt"))
        assert scrape.read(f"https://{address}/metrics", WITHIN_S).of("fovea_ready") == {(): 1.0}
    with serving(OURS) as address:
        assert "does not speak TLS" in wrong(f"https://{address}/metrics")


def test_a_proxy_is_asked_only_where_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(OURS) as address, socket.create_server(("127.0.0.1", 0)) as nobody_answers:
        proxy = f"http://127.0.0.1:{nobody_answers.getsockname()[1]}"
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", proxy)
        assert scrape.read(f"http://{address}/metrics", WITHIN_S).samples
        assert "does not answer within 0.2 s" in wrong(f"http://{address}/metrics", 0.2, by_proxy=True)


def test_whoever_is_no_server_of_ours_is_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert f"http://{address}/metrics does not answer within 0.2 s; give the" in wrong(
            f"http://{address}/metrics", 0.2
        )
    assert "cannot be reached (Connection refused)" in wrong(f"http://{address}/metrics")
    assert "cannot be reached (" in wrong("http://nowhere.invalid/metrics")
    with serving(OURS) as address:
        assert "answers 503 Service Unavailable; " in wrong(f"http://{address}/other")
    for body, sentence in (
        (b"other 1\n", "has no fovea_* metrics: not a Fovea server"),
        (b"<html>", "is not in Prometheus' text format"),
        (b"#" * (2**25 + 1), "answers more than 32 MiB"),
    ):
        with serving(body) as address:
            assert sentence in wrong(f"http://{address}/metrics")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:8002",
        "file:///etc/passwd",
        "http://",
        "http://a:b/",
        "http://a:0/",
        "http://[::1/",
        "http://a b/",
        "http://ä/",
    ],
)
def test_what_is_no_address_is_not_opened(url: str) -> None:
    assert "is no address; expected http://host:port/metrics" in wrong(url)


def test_the_load_generator_says_which_of_its_flags_is_wrong() -> None:
    """Case by case: no server, a server without the model, buckets that are none."""
    with serving(OURS) as address, pytest.raises(errors.StartupError, match=r"--metrics http.*/x answers 503"):
        stage_times.read(f"http://{address}/x", "net")
    with serving(OURS) as address, pytest.raises(errors.StartupError, match=r"has no fovea_\*_dur.* of model 'net'"):
        stage_times.read(f"http://{address}/metrics", "net")
    with serving(TIMES) as address, pytest.raises(errors.StartupError, match=r"not .* text format: a bucket without"):
        stage_times.read(f"http://{address}/metrics", "net")
