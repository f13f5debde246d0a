"""How a client proves who it is, and who the server is: TLS files and a token, from arguments or the environment.

Path: caller, commands → **access** → connection → endpoint.

A token never stands on a command line, where every user of the machine reads it: it comes from a file or from a
variable.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio

ENVIRONMENT = {
    "tls_ca": "FOVEA_CLIENT_TLS_CA",
    "tls_certificate": "FOVEA_CLIENT_TLS_CERTIFICATE",
    "tls_key": "FOVEA_CLIENT_TLS_KEY",
    "token_file": "FOVEA_CLIENT_TOKEN_FILE",
}
"""Field → variable. "system" as tls_ca: the authorities that this machine trusts."""

TOKEN_VARIABLE = "FOVEA_CLIENT_TOKEN"
SYSTEM = "system"

_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """What a client shows and expects. All empty: plain text, and nothing shown."""

    tls_ca: str = ""
    """PEM file of the authorities that the server's certificate must come from, or "system"; empty: no TLS."""
    tls_certificate: str = ""
    """PEM file of the client's own certificate, where the server wants one."""
    tls_key: str = ""
    """PEM file of its key."""
    token: str = dataclasses.field(default="", repr=False)

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return what gRPC's channel is opened with; None for plain text.

        Raises:
            ValueError: files that cannot be read, or one without the other.
        """
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("a client certificate needs its key, and the key its certificate; give both or neither")
        if not self.tls_ca:
            if self.tls_certificate:
                raise ValueError(f"a client certificate needs TLS; say whom to trust: a file, or {SYSTEM!r}")
            return None
        trusted = None if self.tls_ca == SYSTEM else _pem(self.tls_ca)
        own = (_pem(self.tls_key), _pem(self.tls_certificate)) if self.tls_key else (None, None)
        return grpc.ssl_channel_credentials(trusted, *own)


def of_environment(
    given: Mapping[str, object | None] | None = None, environment: Mapping[str, str] = os.environ
) -> Access:
    """Return what arguments say, by field, and where they say nothing, the variables.

    Raises:
        ValueError: a token's file cannot be read, or what it holds is no token.
    """
    given = given or {}
    chosen = {field: str(given.get(field) or environment.get(name, "")) for field, name in ENVIRONMENT.items()}
    token_file = chosen.pop("token_file")
    token = _text(token_file) if token_file else environment.get(TOKEN_VARIABLE, "")
    return Access(**chosen, token=checked(token.strip()))


def checked(token: str) -> str:
    """Return a token that can be sent; "" is none.

    Raises:
        ValueError: it has characters that no token has. It is not repeated in the message.
    """
    if token and not _TOKEN.fullmatch(token):
        raise ValueError("the token has spaces, line breaks or other characters that no token has; give it alone")
    return token


def _pem(path: str) -> bytes:
    content = _text(path)
    if "-----BEGIN " not in content:
        raise ValueError(f"{path} is no PEM file; expected text with -----BEGIN ...-----")
    return content.encode()


def _text(path: str) -> str:
    try:
        return pathlib.Path(path).read_text()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text") from error


class Bearing:
    """A channel of grpc.aio whose calls carry a token; it is sent in the clear where the channel has no TLS."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),)

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._with_token(self._channel.unary_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._with_token(self._channel.stream_stream(*args, **kwargs))

    async def close(self, grace: float | None = None) -> None:
        """See grpc.aio.Channel."""
        await self._channel.close(grace)

    def _with_token(self, method: Any) -> Any:
        def call(*args: Any, metadata: Any = (), **kwargs: Any) -> Any:
            return method(*args, metadata=(*metadata, *self._metadata), **kwargs)

        return call
