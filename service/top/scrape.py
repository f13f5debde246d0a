"""One look at one server: its address, found by name, and what it publishes at this moment.

Path: **scrape** → figures.
"""

import dataclasses
import http.client
import re
import socket
import time
from collections.abc import Mapping

from prometheus_client import parser

PORT = 8002
"""Where a server has its metrics, unless it is told otherwise."""
_TIMEOUT_S = 2.0
"""A server that is slower is shown as one that does not answer."""
_BYTES_MAX = 32 * 2**20
_OURS = "fovea_"

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


_ELSEWHERE = f"give the address of a server's metrics (--metrics-port of `fovea serve`, {PORT} unless told otherwise)"


@dataclasses.dataclass(frozen=True, slots=True)
class Where:
    """A host and port, as they were given: a name stands for all addresses behind it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclasses.dataclass(frozen=True, slots=True)
class Scrape:
    """What a server published: metric's name → labels → value; when, in seconds of `time.monotonic`."""

    at_s: float
    samples: Mapping[str, Mapping[Labels, float]]

    def of(self, name: str) -> Mapping[Labels, float]:
        """Return the samples of a metric; empty, if the server has none."""
        return self.samples.get(name, {})


def where(text: str) -> Where:
    """Return the place in `host`, `host:port`, `[::1]:port` or `http://host:port/metrics`.

    Raises:
        NoFigures: it is none of these.
    """
    found = re.fullmatch(
        r"(?:http://)?(?:\[(?P<six>[0-9a-fA-F:.%]+)\]|(?P<host>[^\s/:\[\]]+))(?::(?P<port>\d{1,5}))?(?:/|/metrics)?",
        text,
    )
    if found is None or not 0 < int(found["port"] or PORT) < 2**16:
        raise NoFigures(
            repr(text), "is no address", "expected host:port, such as 127.0.0.1:8002 or fovea-headless:8002"
        )
    return Where(found["six"] or found["host"], int(found["port"] or PORT))


def behind(name: Where) -> list[Where]:
    """Return the servers behind a name, sorted. Those with IPv4 addresses, if there are any: a server with both is one.

    Raises:
        NoFigures: the name cannot be looked up.
    """
    try:
        found = socket.getaddrinfo(name.host, name.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NoFigures(str(name), f"cannot be looked up ({error})", "give a name that the DNS knows") from error
    fours = {str(address[0]) for family, _, _, _, address in found if family == socket.AF_INET}
    sixes = {str(address[0]) for family, _, _, _, address in found if family == socket.AF_INET6}
    return [Where(host, name.port) for host in sorted(fours or sixes)]


def scrape(server: Where) -> Scrape:
    """Ask a server for its metrics.

    Raises:
        NoFigures: it does not answer, or what answers is no Fovea server's /metrics.
    """
    text = _get(server)
    samples: dict[str, dict[Labels, float]] = {}
    try:
        for family in parser.text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith(_OURS):
                    samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    except (ValueError, IndexError, KeyError) as error:
        raise NoFigures(f"http://{server}/metrics", "is not in Prometheus' text format", _ELSEWHERE) from error
    if not samples:
        raise NoFigures(f"http://{server}/metrics", f"has no {_OURS}* metrics: not a Fovea server", _ELSEWHERE)
    return Scrape(time.monotonic(), samples)


def _get(server: Where) -> str:
    """The text at /metrics. Not by urllib, which would ask a proxy."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        body = answer.read(_BYTES_MAX)
    except http.client.HTTPException as error:
        raise NoFigures(str(server), "does not speak HTTP (is it the gRPC port?)", _ELSEWHERE) from error
    except TimeoutError as error:
        raise NoFigures(str(server), f"does not answer within {_TIMEOUT_S:g} s", _ELSEWHERE) from error
    except OSError as error:
        raise NoFigures(str(server), f"cannot be reached ({error.strerror or error})", _ELSEWHERE) from error
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise NoFigures(f"http://{server}/metrics", f"answers {answer.status} {answer.reason}", _ELSEWHERE)
    return body.decode(errors="replace")
