"""The server's certificate: checked before it is used, and read again when its files change.

Path: settings → **certificates** → gRPC, which asks at every handshake; metrics, which ask at every scrape.

Checked by a handshake with itself in memory, so that what a client would refuse is an error at start.
"""

import dataclasses
import datetime
import logging
import pathlib
import re
import ssl
import threading
from collections.abc import Mapping
from typing import Any

import grpc

from service import errors
from service.wire.security import files

log = logging.getLogger(__name__)

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_STEPS_MAX = 10
"""Turns of a handshake in memory; TLS needs three."""


@dataclasses.dataclass(frozen=True, slots=True)
class Files:
    """Where the certificate, its key and the clients' authorities are."""

    certificate: pathlib.Path
    key: pathlib.Path
    client_ca: pathlib.Path | None = None

    @property
    def paths(self) -> tuple[pathlib.Path, ...]:
        """All of them."""
        return (self.certificate, self.key, *([] if self.client_ca is None else [self.client_ca]))


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
    """A certificate that a client would accept, as gRPC takes it."""

    configuration: Any
    name: str
    ends: datetime.datetime
    authorities_end: datetime.datetime | None
    """When the last of the clients' authorities ends, and no client is let in any more; None: clients need none."""


class Certificates:
    """The certificate in use. A change that cannot be used is logged, and the one before goes on.

    Mutable state: what is in use, whether gRPC has it, and the files that were looked at last; touched on gRPC's
    handshake threads and those of scrapes, under a lock.

    Raises:
        CertificateError: a file is missing or no PEM file, the key does not fit, or the certificate is out of date.
    """

    def __init__(self, places: Files) -> None:
        self._places = places
        self._lock = threading.Lock()
        self._seen = files.stamp(places.paths)
        self._used = check(places)
        self._given = self._used
        self._told_end = False

    def credentials(self) -> grpc.ServerCredentials:
        """Return what gRPC listens with: it asks for changes at every handshake."""
        with self._lock:
            self._given = self._used
        log.info("TLS: certificate of %s, valid until %s", self._given.name, self._given.ends)
        return grpc.dynamic_ssl_server_credentials(
            self._given.configuration,
            self.changed,
            require_client_authentication=self._places.client_ca is not None,
        )

    def changed(self) -> Any:
        """Return the configuration if the files have changed to one that can be used, else None: go on."""
        with self._lock:
            self._look()
            if self._used is self._given:
                return None
            self._given = self._used
            return self._used.configuration

    def ends_s(self) -> Mapping[str, float]:
        """Return when what the next handshake gets ends, in Unix seconds: `server`, and `client_ca` if there is one.

        The server's is that of its own certificate, not of those that signed it; of several authorities it is the last.
        """
        with self._lock:
            self._look()
            used = self._used
        ends = {"server": used.ends.timestamp()}
        return ends if used.authorities_end is None else ends | {"client_ca": used.authorities_end.timestamp()}

    def _look(self) -> None:
        """Use the files, if they have changed to what can be used."""
        self._tell_end()
        seen = files.stamp(self._places.paths)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._used = check(self._places)
        except errors.CertificateError as error:
            log.error("TLS: the changed files are not used, the certificate before goes on: %s", error)
            return
        self._told_end = False
        log.info("TLS: certificate replaced: %s, valid until %s", self._used.name, self._used.ends)

    def _tell_end(self) -> None:
        if not self._told_end and datetime.datetime.now(datetime.UTC) > self._used.ends:
            self._told_end = True
            log.error("TLS: the certificate has expired at %s; clients refuse it: replace the files", self._used.ends)


def check(places: Files) -> Checked:
    """Return the certificate in the files, if it can be used.

    Raises:
        CertificateError: see Certificates.
    """
    before = files.stamp(places.paths)
    chain, key = _pem(places.certificate, "certificate"), _pem(places.key, "private key")
    authorities, authorities_end = (None, None) if places.client_ca is None else _authorities(places.client_ca)
    server = _loaded(places)
    name, ends = _accepted(server, places.certificate, chain)
    if files.stamp(places.paths) != before:
        raise errors.CertificateError(places.certificate, "changed while it was read", "it is read again")
    configuration = grpc.ssl_server_certificate_configuration([(key.encode(), chain.encode())], authorities)
    return Checked(configuration, name, ends, authorities_end)


def _pem(path: pathlib.Path, what: str) -> str:
    try:
        text = files.text(path)
    except ValueError as error:
        raise errors.CertificateError(path, str(error), f"expected a PEM file with a {what}") from error
    if "-----BEGIN " not in text or (what == "certificate" and not _PEM.search(text)):
        raise errors.CertificateError(path, f"holds no {what} in PEM", "expected text with -----BEGIN ...-----")
    return text


def _authorities(path: pathlib.Path) -> tuple[bytes, datetime.datetime]:
    """Return the authorities in a file, and when the last of them ends."""
    text = _pem(path, "certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cadata="\n".join(_PEM.findall(text)))  # comments may be of any letters
    except ssl.SSLError as error:
        raise errors.CertificateError(path, f"holds no certificates: {error.reason}", "expected PEM") from error
    known = context.get_ca_certs()
    if not known:
        raise errors.CertificateError(
            path, "holds no certificate of an authority (CA:TRUE)", "give the one that signed the clients' certificates"
        )
    last_end = max(map(_end, known))
    if last_end < datetime.datetime.now(datetime.UTC):
        raise errors.CertificateError(path, "holds only authorities that have expired", "renew them")
    return text.encode(), last_end


def _loaded(places: Files) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def refuse() -> str:
        raise errors.CertificateError(places.key, "is encrypted", "write it without a passphrase, readable only here")

    try:
        context.load_cert_chain(places.certificate, places.key, password=refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            wrong, remedy = f"does not fit the certificate {places.certificate}", "give the key it was made with"
        else:
            wrong, remedy = f"or {places.certificate} cannot be used: {error.reason or error}", "write both anew"
        raise errors.CertificateError(places.key, wrong, remedy) from error
    except OSError as error:
        raise errors.CertificateError(places.key, f"cannot be read: {error.strerror}", "make it readable") from error
    return context


def _accepted(server: ssl.SSLContext, path: pathlib.Path, chain: str) -> tuple[str, datetime.datetime]:
    """Shake hands as a client who trusts this very certificate; return its name and its end."""
    leaf = _PEM.search(chain)
    assert leaf is not None, "checked when it was read"
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False  # under which names it is reached, only clients know
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        client.load_verify_locations(cadata=leaf[0])
        found = _shaken(server, client)
    except ssl.SSLCertVerificationError as error:
        raise errors.CertificateError(
            path, f"would be refused by clients: {error.verify_message}", "give a certificate that is valid now"
        ) from error
    except ssl.SSLError as error:
        raise errors.CertificateError(path, f"cannot be used: {error.reason or error}", "write it anew") from error
    names = [value for _, value in found.get("subjectAltName", ())]
    return ", ".join(names) or "nobody (no subjectAltName: clients refuse it)", _end(found)


def _shaken(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True))
    open_sides = set(sides)
    for _ in range(_STEPS_MAX):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            open_sides.discard(side)
        if not open_sides:
            break
    return sides[0].getpeercert() or {}


def _end(certificate: dict[str, Any]) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), datetime.UTC)
