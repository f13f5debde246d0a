"""A web server on this machine that answers, one after another, as a test has written down."""

import contextlib
import dataclasses
import email.message
import http.server
import threading
from collections.abc import Callable, Iterator

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@dataclasses.dataclass
class Site:
    """The last answer is given to all further requests."""

    url: str
    answers: list[Answer]
    requests: list[email.message.Message]


@contextlib.contextmanager
def site(*answers: Answer) -> Iterator[Site]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            shown.requests.append(self.headers)
            answer = shown.answers.pop(0) if len(shown.answers) > 1 else shown.answers[0]
            answer(self)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        shown = Site(f"http://127.0.0.1:{server.server_port}", list(answers), [])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield shown
        finally:
            server.shutdown()
            thread.join()


def whole(content: bytes, etag: str = '"1"', after: int | None = None, **headers: str) -> Answer:
    """All of it, whatever was asked for; with `after`, the connection breaks off there."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        _send(handler, 200, {"Content-Length": str(len(content)), "ETag": etag} | given, content[:after])

    return answer


def ranged(content: bytes, etag: str = '"1"', heeds_if_range: bool = True) -> Answer:
    """What was asked for: from a byte on, if the file is still the same."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        asked = handler.headers["Range"]
        if asked is None or (heeds_if_range and handler.headers["If-Range"] != etag):
            return whole(content, etag)(handler)
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        headers = {
            "Content-Length": str(len(content) - start),
            "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}",
            "ETag": etag,
        }
        return _send(handler, 206, headers, content[start:])

    return answer


def status(code: int) -> Answer:
    return lambda handler: _send(handler, code, {"Content-Length": "0"}, b"")


def chunked(content: bytes, is_whole: bool) -> Answer:
    """Without a length; with an end only if it is whole."""
    end = b"\r\n0\r\n\r\n" if is_whole else b""
    body = f"{len(content):x}\r\n".encode() + content + end
    return lambda handler: _send(handler, 200, {"Transfer-Encoding": "chunked", "ETag": '"1"'}, body)


def elsewhere(url: str) -> Answer:
    return lambda handler: _send(handler, 302, {"Location": url, "Content-Length": "0"}, b"")


def _send(handler: http.server.BaseHTTPRequestHandler, code: int, headers: dict[str, str], body: bytes) -> None:
    handler.send_response(code)
    for name, value in headers.items():
        if value:
            handler.send_header(name, value)
    handler.end_headers()
    with contextlib.suppress(ConnectionError):  # whoever has seen enough is gone
        handler.wfile.write(body)
