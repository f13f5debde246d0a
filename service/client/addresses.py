"""Where servers are: the text that a caller gives, and the addresses that stand behind a name.

Path: caller's address → **addresses** → fleet.
"""

import asyncio
import dataclasses
import re
import socket

_DNS = "dns:///"
_WANTED = "host:port, several with commas between, or dns:///name:port for all addresses of a name"


@dataclasses.dataclass(frozen=True, slots=True)
class Name:
    """A name to look up again and again, and the port of every address behind it."""

    host: str
    port: int

    @property
    def authority(self) -> str:
        """The name as servers and certificates know it."""
        return f"{self.host}:{self.port}"


@dataclasses.dataclass(frozen=True, slots=True)
class Places:
    """What an address text holds: fixed addresses, which gRPC resolves itself, and names."""

    fixed: tuple[str, ...]
    names: tuple[Name, ...]


def parse(text: str) -> Places:
    """Return the places in an address text.

    Raises:
        ValueError: not host:port, or nothing at all.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ValueError(f"the address is empty; expected {_WANTED}")
    names = tuple(_name(part, text) for part in parts if part.startswith("dns:"))
    fixed = tuple(dict.fromkeys(part for part in parts if not part.startswith("dns:")))
    for part in fixed:
        if not part.startswith("unix:"):
            _split(part, text)
    return Places(fixed, names)


def _name(part: str, text: str) -> Name:
    if not part.startswith(_DNS):
        raise ValueError(f"address {text!r} has {part!r}; expected {_DNS}name:port, three slashes and no DNS server")
    return Name(*_split(part.removeprefix(_DNS), text))


def _split(part: str, text: str) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[0-9a-fA-F:.%]+\]|[^\s/:\[\]]+):(\d{1,5})", part)
    if not found or not 0 < int(found[2]) < 2**16:
        raise ValueError(f"address {text!r} has {part!r}; expected {_WANTED}")
    return found[1].strip("[]"), int(found[2])


async def resolve(name: Name) -> list[str]:
    """Return the addresses behind a name, as ip:port.

    Raises:
        OSError: the name cannot be looked up.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(name.host, name.port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a part of the name is empty or has more than 63 letters
        raise socket.gaierror(socket.EAI_NONAME, f"{name.host!r} is not a name of the DNS") from error
    hosts = (f"[{where[0]}]" if family == socket.AF_INET6 else str(where[0]) for family, _, _, _, where in found)
    return [f"{host}:{name.port}" for host in hosts]
