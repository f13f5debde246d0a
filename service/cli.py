"""`fovea serve`: the settings as flags, and the server.

Path: command line → **cli** → server.
"""

import asyncio
import inspect
import logging
import pathlib
import sys
import typing
from typing import Annotated, Any

import typer

from service import errors, logs, settings, transport_settings

log = logging.getLogger(__name__)

serve_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_KINDS = (int, float, bool, pathlib.Path)
_PANEL = "Connections and callers"


def _serve(**flags: Any) -> None:
    """Serve a model repository over gRPC.

    Every option is also an environment variable FOVEA_<NAME> and a key in the --config file (TOML).
    Flags win over the environment, the environment over the file.
    """
    from service import server  # noqa: PLC0415 - loads ONNX Runtime, which --help does without

    log_format = "console"
    try:
        chosen = settings.load({name: value for name, value in flags.items() if value is not None})
        logs.set_up(chosen.log_format, chosen.log_level)
        log_format = chosen.log_format
        _event_loop_run(server.run(chosen))
    except errors.StartupError as error:
        if log_format == "json":
            log.critical("%s", error)
        else:
            print(f"fovea serve: {error}", file=sys.stderr)  # noqa: T201 - also when there is no log yet
        raise typer.Exit(1) from None


def _event_loop_run(main: Any) -> None:
    try:
        import uvloop  # noqa: PLC0415 - not there on Windows
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _settings_signature() -> inspect.Signature:
    """One option per settings field, so that name, help and default stand in one place only."""
    parameters = [_option("config", "TOML file with settings.", pathlib.Path, None)]
    for name, field in settings.Settings.model_fields.items():
        plain = next((part for part in typing.get_args(field.annotation) if part in _KINDS), field.annotation)
        kind = plain if plain in _KINDS else str
        kind = list[str] if field.annotation == tuple[str, ...] else kind
        parameters.append(_option(name, field.description or "", kind, field.default))
    return inspect.Signature(parameters)


def _option(name: str, text: str, kind: Any, default: Any) -> inspect.Parameter:
    shown = False if default is None or default == () else str(default)
    panel = _PANEL if name in transport_settings.TransportSettings.model_fields else None
    option = typer.Option(settings.flag_name(name), help=text, show_default=shown, rich_help_panel=panel)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


_serve.__signature__ = _settings_signature()  # type: ignore[attr-defined]  # typer reads it; mypy does not know it
serve_app.command()(_serve)
