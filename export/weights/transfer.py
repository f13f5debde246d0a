"""One attempt to fetch a file over HTTP: what is missing is asked for, and what arrives is kept.

Path: download → **transfer** → a part of the file on the disk.

While it arrives, the file is `NAME.part`; `NAME.part.tag` holds what the server calls this state of it (its
ETag or date), without which the two halves might be of different files.
"""

import dataclasses
import errno
import http.client
import pathlib
import shutil
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import IO

from export import errors

CHUNK_BYTES = 1 << 20

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PASSING = (408, 416, 429, 500, 502, 503, 504)
_NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
_REFUSALS = {
    401: "the server wants a login",
    403: "the server denies it",
    404: "no such file is there; check the address",
}

Report = Callable[[int, int | None], None]
"""Called with the bytes that are here, and how many there will be, if that is known."""


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """What is fetched from where to where."""

    url: str
    path: pathlib.Path
    sha256: str
    """How its SHA-256 begins; "" if that is not known."""
    timeout_s: float
    """The longest silence of the server."""

    @property
    def part(self) -> pathlib.Path:
        """What has arrived."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def tag(self) -> pathlib.Path:
        """What the server calls the state of the file that the part is of."""
        return self.path.with_name(f"{self.path.name}.part.tag")

    def begun(self) -> tuple[int, str]:
        """Return how many bytes are here already, and the tag that they were sent under; (0, "") if none."""
        if not (self.part.is_file() and self.tag.is_file()):
            return 0, ""
        tag = self.tag.read_text(encoding="latin-1")
        return (self.part.stat().st_size, tag) if tag else (0, "")

    def forget(self) -> None:
        """Remove what has arrived: the part first, for a part must never stand beside another's tag."""
        self.part.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)


def refuse_unsafe(url: str) -> None:
    """Let nobody on the way change what is loaded: http is for this machine, everything else is https.

    Raises:
        DownloadError: the address is neither, or none at all.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise errors.DownloadError(url, f"this is no address: {error}") from error
    if parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK):
        return
    raise errors.DownloadError(url, f"{parts.scheme}:// is not safe from changes on the way; expected https://")


def attempt(target: Target, report: Report) -> None:
    """Ask for what is missing, or for everything, and keep what arrives, be it only a part.

    Raises:
        DownloadError: it is not all here; `may_pass` if another attempt may bring the rest.
        OSError: it cannot be kept.
    """
    begun, tag = target.begun()
    with _open(target, begun, tag) as response:
        _refuse_page(target, response.headers.get_content_type() == "text/html")
        if not _continues(response, begun, tag):
            target.forget()
            begun = 0
            if response.status == http.HTTPStatus.PARTIAL_CONTENT:
                raise errors.DownloadError(target.url, "it changed while it was downloaded", may_pass=True)
            target.tag.write_text(_tag(response), encoding="latin-1")
        total = None if response.length is None else begun + response.length
        _refuse_without_space(target, (total or 0) - begun)
        done = begun
        with target.part.open("ab") as file:
            for chunk in _chunks(target, response):
                _refuse_page(target, not done and chunk.lstrip().startswith(b"<"))
                file.write(chunk)
                done += len(chunk)
                report(done, total)
    if total not in (None, done):
        hint = "; run again to go on from there" if target.begun()[0] else ""
        raise errors.DownloadError(target.url, f"it broke off after {done:,} of {total:,} bytes{hint}", may_pass=True)


def _open(target: Target, begun: int, tag: str) -> http.client.HTTPResponse:
    headers = {"User-Agent": "fovea", "Accept-Encoding": "identity"}
    if begun:
        # A server whose file is another by now disregards the range, and sends all of it.
        headers |= {"Range": f"bytes={begun}-", "If-Range": tag}
    handlers: list[urllib.request.BaseHandler] = [_Redirects()]
    if urllib.parse.urlsplit(target.url).hostname in _LOOPBACK:
        handlers.append(urllib.request.ProxyHandler({}))
    try:
        request = urllib.request.Request(target.url, headers=headers)
        response: http.client.HTTPResponse = urllib.request.build_opener(*handlers).open(
            request, timeout=target.timeout_s
        )
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                target.forget()  # the part is no part of what is there now: start over
            raise _refused(target, error) from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise _disconnected(target, error) from error
    return response


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server elsewhere, but not to where it is unsafe."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            refuse_unsafe(newurl)
            if req.type == "https" and not newurl.startswith("https://"):
                raise errors.DownloadError(newurl, f"{req.full_url} leads there, which is not safe; expected https://")
        except errors.DownloadError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _continues(response: http.client.HTTPResponse, begun: int, tag: str) -> bool:
    """Whether the response goes on where the part ends: the same state of the file, from that byte."""
    starts = str(response.headers["Content-Range"]).startswith(f"bytes {begun}-")
    return response.status == http.HTTPStatus.PARTIAL_CONTENT and starts and _tag(response) == tag


def _tag(response: http.client.HTTPResponse) -> str:
    """Return what names this state of the file to the byte: a strong ETag, else its date, else ""."""
    etag = response.headers["ETag"] or ""
    return etag if etag.startswith('"') else response.headers["Last-Modified"] or ""


def _chunks(target: Target, response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read1(CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _disconnected(target, error) from error
        if not chunk:
            return
        yield chunk


def _refuse_page(target: Target, is_page: bool) -> None:
    if is_page:
        raise errors.DownloadError(
            target.url, "the server sent a web page (a login or a notice?); open the address in a browser to see it"
        )


def _refuse_without_space(target: Target, wanted_bytes: int) -> None:
    free_bytes = shutil.disk_usage(target.path.parent).free
    if wanted_bytes > free_bytes:
        raise OSError(errno.ENOSPC, f"{wanted_bytes:,} bytes are wanted, {free_bytes:,} are free")


def _refused(target: Target, error: urllib.error.HTTPError) -> errors.DownloadError:
    reason = _REFUSALS.get(error.code, f"the server answers {error.reason}")
    return errors.DownloadError(target.url, f"{reason} (HTTP {error.code})", may_pass=error.code in _PASSING)


def _disconnected(target: Target, error: Exception) -> errors.DownloadError:
    """Return why there is no connection (any more), and whether there may be one in a moment."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, socket.gaierror):
        host = urllib.parse.urlsplit(target.url).hostname
        return errors.DownloadError(target.url, f"the host {host} is not found; check the address and the network")
    if isinstance(cause, ssl.SSLCertVerificationError):
        return errors.DownloadError(target.url, f"the server's certificate is not trusted: {cause.verify_message}")
    if isinstance(cause, TimeoutError):
        return errors.DownloadError(target.url, f"the server was silent for {target.timeout_s:g} s", may_pass=True)
    may_pass = (
        not isinstance(cause, http.client.InvalidURL | UnicodeError) and getattr(cause, "errno", None) not in _NO_WAY
    )
    return errors.DownloadError(target.url, f"the connection failed: {cause}", may_pass=may_pass)
