"""Where a call comes from.

Path: gRPC's name of a peer → **peers** → guard, regions, server.
"""

import ipaddress
import urllib.parse


def is_local(peer: str) -> bool:
    """Return whether a peer, as gRPC names it, is on this machine: "ipv4:127.0.0.1:5", "ipv6:[::1]:5", "unix:...".

    gRPC writes brackets as %5B and %5D. An IPv4 address may come as IPv6: ::ffff:127.0.0.1.
    """
    kind, _, address = urllib.parse.unquote(peer).partition(":")
    if kind == "unix":
        return True
    return kind in {"ipv4", "ipv6"} and is_loopback(address.rpartition(":")[0].strip("[]"))


def is_loopback(host: str) -> bool:
    """Return whether a host's address, as text, is one of the machine itself; False for a name."""
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback
