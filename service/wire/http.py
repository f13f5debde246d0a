"""The HTTP port: /metrics for Prometheus, /v2/health/live and /v2/health/ready for probes.

Path: Prometheus, kubelet → **http**. A thread of its own; liveness goes through the event loop, so a
stuck loop is seen.
"""

import asyncio
import http.server
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

import prometheus_client

from service import engine, errors, metrics

log = logging.getLogger(__name__)

LOOP_ANSWERS_WITHIN_S = 5.0

CONNECTIONS_MAX = 64
"""Connections at once, each with a thread: scrapers and probes of a whole cluster need a few."""


class HttpPort:
    """Serves the three paths from `start` to `close`."""

    def __init__(self, served: engine.Engine, numbers: metrics.Metrics, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = served
        self._metrics = numbers
        self._loop = loop
        self._server: http.server.ThreadingHTTPServer | None = None
        self._paths: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/metrics": lambda: (200, prometheus_client.CONTENT_TYPE_LATEST, self._metrics.exposition()),
            "/v2/health/live": self._live,
            "/v2/health/ready": lambda: _health(self._engine.condition, is_well=self._engine.is_ready),
        }

    def start(self, host: str, port: int) -> int:
        """Listen, and return the port.

        Raises:
            PortTaken: somebody else listens there.
        """
        try:
            self._server = _server_class(host)((host, port), self._handler())
        except OSError as error:
            raise errors.PortTaken(f"{host}:{port}", "--metrics-port") from error
        threading.Thread(target=self._server.serve_forever, name="http", daemon=True).start()
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _live(self) -> tuple[int, str, bytes]:
        turned = threading.Event()
        self._loop.call_soon_threadsafe(turned.set)
        answers = turned.wait(LOOP_ANSWERS_WITHIN_S)
        return _health(f"the event loop has not turned for {LOOP_ANSWERS_WITHIN_S:g} s", is_well=answers)

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        paths = self._paths

        class Handler(http.server.BaseHTTPRequestHandler):
            """Answers GET."""

            timeout = 10  # seconds for a slow or silent client

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                not_found = (404, "text/plain", f"no such path; known: {', '.join(paths)}\n".encode())
                code, content_type, body = paths[path]() if path in paths else not_found
                self.send_response(code)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Scrapes and probes are not news."""

        return Handler


def _health(otherwise: str, *, is_well: bool) -> tuple[int, str, bytes]:
    return (200, "text/plain", b"ok\n") if is_well else (503, "text/plain", f"{otherwise}\n".encode())


def _server_class(host: str) -> type[http.server.ThreadingHTTPServer]:
    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True
        room = threading.BoundedSemaphore(CONNECTIONS_MAX)

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Log what the library would print: connections that are reset are nobody's alarm."""
            log.debug("the connection from %s failed", client_address, exc_info=True)

        def process_request(self, request: Any, client_address: Any) -> None:
            if self.room.acquire(blocking=False):
                super().process_request(request, client_address)
            else:
                self.shutdown_request(request)

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            try:
                super().process_request_thread(request, client_address)
            finally:
                self.room.release()

    return Server
