"""The flags of commands that talk to a server: whom to trust, and how to prove who one is.

Path: classify_cli, load_cli → **access_flags** → client.access.
"""

import os
from typing import Annotated

import grpc
import typer

from service.client import access

_NAMES = access.ENVIRONMENT

TlsCa = Annotated[
    str | None,
    typer.Option(
        envvar=_NAMES["tls_ca"],
        help=f"PEM file of the authorities that vouch for the server, or {access.SYSTEM!r}; left out: no TLS.",
    ),
]
TlsCertificate = Annotated[
    str | None,
    typer.Option(
        envvar=_NAMES["tls_certificate"], help="PEM file of the client's own certificate, if one is asked for."
    ),
]
TlsKey = Annotated[str | None, typer.Option(envvar=_NAMES["tls_key"], help="PEM file of its key.")]
TokenFile = Annotated[
    str | None,
    typer.Option(
        envvar=_NAMES["token_file"],
        help=f"File with the API token. The variable {access.TOKEN_VARIABLE} holds the token itself: on a command line "
        "every user of the machine could read it.",
    ),
]


def read(
    tls_ca: str | None, tls_certificate: str | None, tls_key: str | None, token_file: str | None
) -> tuple[grpc.ChannelCredentials | None, str]:
    """Return the credentials and the token for a client.

    Raises:
        ValueError: a file cannot be used.
    """
    flags = {"tls_ca": tls_ca, "tls_certificate": tls_certificate, "tls_key": tls_key, "token_file": token_file}
    chosen = access.of_environment(flags)
    return chosen.credentials(), chosen.token


def export(tls_ca: str | None, tls_certificate: str | None, tls_key: str | None, token_file: str | None) -> None:
    """Put the flags into the environment, where the other processes of a load generator find them too."""
    flags = {"tls_ca": tls_ca, "tls_certificate": tls_certificate, "tls_key": tls_key, "token_file": token_file}
    os.environ |= {_NAMES[name]: value for name, value in flags.items() if value is not None}
