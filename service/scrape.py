"""One look at what one server publishes at its /metrics, or a sentence why there is nothing to see.

Path: top, loadgen → **scrape** → HTTP.
"""

import dataclasses
import http.client
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping

from prometheus_client import parser

PORT = 8002
"""Where a server has its metrics, unless it is told otherwise."""
_BYTES_MAX = 32 * 2**20
_OURS = "fovea_"
_ELSEWHERE = (
    "give the address of a server's metrics: `fovea serve` says it at its start "
    f"(--metrics-port, {PORT} unless told otherwise)"
)

Labels = tuple[tuple[str, str], ...]
"""Sorted names and values."""


class NoFigures(Exception):
    """An address where no figures of a Fovea server are to be had.

    The viewer's own error: the server's tree of errors holds what a server tells its callers.
    """

    def __init__(self, address: str, wrong: str, remedy: str) -> None:
        super().__init__(f"{address} {wrong}; {remedy}")
        self.address = address
        self.wrong = wrong


@dataclasses.dataclass(frozen=True, slots=True)
class Scrape:
    """What a server published: metric's name → labels → value; when, in seconds of `time.monotonic`."""

    at_s: float
    samples: Mapping[str, Mapping[Labels, float]]

    def of(self, name: str) -> Mapping[Labels, float]:
        """Return the samples of a metric; empty, if the server has none."""
        return self.samples.get(name, {})


def read(url: str, within_s: float, *, by_proxy: bool = False) -> Scrape:
    """Ask a server for its metrics: http:// or https://, whose certificate the system's authorities must have signed.

    Args:
        url: All of it, with the path.
        within_s: How long it may be silent.
        by_proxy: Whether the environment's `http_proxy` and the like count. An address found by name is asked itself.

    Raises:
        NoFigures: it does not answer, or what answers is no Fovea server's /metrics.
    """
    return parse(_get(url, within_s, by_proxy), url)


def parse(text: str, url: str) -> Scrape:
    """Return what Prometheus' text says of us now; the address is for the error.

    Raises:
        NoFigures: it is another text, or a stranger's.
    """
    samples: dict[str, dict[Labels, float]] = {}
    try:
        for family in parser.text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith(_OURS):
                    samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    except (ValueError, IndexError, KeyError) as error:
        raise NoFigures(url, "is not in Prometheus' text format", _ELSEWHERE) from error
    if not samples:
        raise NoFigures(url, f"has no {_OURS}* metrics: not a Fovea server", _ELSEWHERE)
    return Scrape(time.monotonic(), samples)


def _get(url: str, within_s: float, by_proxy: bool) -> str:
    _look_at(url)
    proxies = urllib.request.ProxyHandler(None if by_proxy else {})
    try:
        with urllib.request.build_opener(proxies).open(url, timeout=within_s) as answer:
            body: bytes = answer.read(_BYTES_MAX + 1)
    except urllib.error.HTTPError as error:
        error.close()
        raise NoFigures(url, f"answers {error.code} {error.reason}", _ELSEWHERE) from error
    except http.client.HTTPException as error:
        raise NoFigures(url, "does not speak HTTP (is it the gRPC port?)", _ELSEWHERE) from error
    except OSError as error:
        raise _silent(url, within_s, getattr(error, "reason", error)) from error
    if len(body) > _BYTES_MAX:
        raise NoFigures(url, f"answers more than {_BYTES_MAX >> 20} MiB", _ELSEWHERE)
    return body.decode(errors="replace")


def _look_at(url: str) -> None:
    """Refuse what is no address, before urllib opens files or fails in ways of its own."""
    try:
        parts = urllib.parse.urlsplit(url)
        is_one = parts.scheme in {"http", "https"} and parts.hostname is not None and parts.port != 0
        url.encode("ascii")
    except ValueError:
        is_one = False
    if not is_one or re.search(r"[\x00-\x20\x7f]", url):
        raise NoFigures(repr(url), "is no address", f"expected http://host:port/metrics; {_ELSEWHERE}")


def _silent(url: str, within_s: float, cause: object) -> NoFigures:
    if isinstance(cause, TimeoutError):
        return NoFigures(url, f"does not answer within {within_s:g} s", _ELSEWHERE)
    if isinstance(cause, ssl.SSLCertVerificationError):
        wrong = f"has a certificate that is not trusted ({cause.verify_message})"
        return NoFigures(url, wrong, "add who signed it to the system's, or name a file of both in SSL_CERT_FILE")
    if isinstance(cause, ssl.SSLError):
        return NoFigures(url, f"does not speak TLS ({cause.reason})", "Fovea's own metrics are at http://")
    return NoFigures(url, f"cannot be reached ({getattr(cause, 'strerror', None) or cause})", _ELSEWHERE)
