"""Where servers are: their addresses, found by name.

Path: addresses → **places** → watch.
"""

import dataclasses
import re
import socket

from service import scrape


@dataclasses.dataclass(frozen=True, slots=True)
class Where:
    """A host and port, as they were given: a name stands for all addresses behind it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Its metrics."""
        return f"http://{self}/metrics"


def where(text: str) -> Where:
    """Return the place in `host`, `host:port`, `[::1]:port` or `http://host:port/metrics`.

    Raises:
        NoFigures: it is none of these.
    """
    found = re.fullmatch(
        r"(?:http://)?(?:\[(?P<six>[0-9a-fA-F:.%]+)\]|(?P<host>[^\s/:\[\]]+))(?::(?P<port>\d{1,5}))?(?:/|/metrics)?",
        text,
    )
    if found is None or not 0 < int(found["port"] or scrape.PORT) < 2**16:
        raise scrape.NoFigures(
            repr(text), "is no address", "expected host:port, such as 127.0.0.1:8002 or fovea-headless:8002"
        )
    return Where(found["six"] or found["host"], int(found["port"] or scrape.PORT))


def behind(name: Where) -> list[Where]:
    """Return the servers behind a name, sorted. Those with IPv4 addresses, if there are any: a server with both is one.

    Raises:
        NoFigures: the name cannot be looked up.
    """
    try:
        found = socket.getaddrinfo(name.host, name.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise scrape.NoFigures(str(name), f"cannot be looked up ({error})", "give a name that the DNS knows") from error
    fours = {str(address[0]) for family, _, _, _, address in found if family == socket.AF_INET}
    sixes = {str(address[0]) for family, _, _, _, address in found if family == socket.AF_INET6}
    return [Where(host, name.port) for host in sorted(fours or sixes)]
