"""`fovea token`: makes an API token, and the entry of the server's file that lets it in.

Path: command line → **token_cli** → wire.security.tokens.
"""

import json
import sys
from typing import Annotated

import typer

from service.wire.security import tokens

token_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@token_app.command()
def make(
    name: Annotated[str, typer.Argument(help="Whose it is; in messages, and the key of fairness and rate.")],
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model it may use, * and ? allowed; several times. Left out: every model."),
    ] = None,
    images_per_s: Annotated[float | None, typer.Option(help="Images a second it may send. Left out: no limit.")] = None,
    burst: Annotated[float | None, typer.Option(help="Images it may send at once. Left out: one second's.")] = None,
    control: Annotated[bool, typer.Option("--control", help="It may load and unload models, too.")] = False,
) -> None:
    """Make an API token.

    The entry for the server's file goes to stdout, without the secret: `fovea token mary >> tokens.toml`. The token
    goes to stderr, once: only its SHA-256 is kept.
    """
    secret, digest = tokens.made()
    rights = [tokens.INFER, tokens.CONTROL] if control else [tokens.INFER]
    settings = {"sha256": digest, "rights": rights, "models": model, "images_per_s": images_per_s, "burst": burst}
    given = {key: value for key, value in settings.items() if value not in (None, [])}
    try:
        tokens.checked(name, given)
    except ValueError as error:
        print(f"fovea token: {error}", file=sys.stderr)  # noqa: T201 - the command's output
        raise typer.Exit(2) from None
    lines = (f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in given.items())
    print("\n".join((f'["{name}"]', *lines, "")))  # noqa: T201 - the command's output; JSON's values are TOML's
    print(f"the token of {name}, shown only now: {secret}", file=sys.stderr)  # noqa: T201 - the command's output
