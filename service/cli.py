"""The verbs of the serving half: `fovea serve` and `fovea classify`.

Path: command line → **cli** → server or client.
"""

import asyncio
import inspect
import json
import pathlib
import sys
from typing import Annotated, Any

import grpc
import rich.console
import rich.table
import typer

from service import client, errors, logs, settings

serve_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
classify_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

UNARY_CALLS_MAX = 16
"""Images under way at once in `fovea classify`."""


def _serve(**flags: Any) -> None:
    """Serve a model repository over gRPC.

    Every option is also an environment variable FOVEA_<NAME> and a key in the --config file (TOML).
    Flags win over the environment, the environment over the file.
    """
    from service import server  # noqa: PLC0415 - loads ONNX Runtime, which --help does without

    try:
        chosen = settings.load({name: value for name, value in flags.items() if value is not None})
        logs.set_up(chosen.log_format, chosen.log_level)
        _event_loop_run(server.run(chosen))
    except errors.StartupError as error:
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
        kind = field.annotation if field.annotation in {int, float, pathlib.Path} else str
        parameters.append(_option(name, field.description or "", kind, field.default))
    return inspect.Signature(parameters)


def _option(name: str, text: str, kind: Any, default: Any) -> inspect.Parameter:
    shown = False if default is None else str(default)
    option = typer.Option(settings.flag_name(name), help=text, show_default=shown)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


_serve.__signature__ = _settings_signature()  # type: ignore[attr-defined]  # typer reads it; mypy does not know it
serve_app.command()(_serve)


@classify_app.command()
def _classify(
    files: Annotated[list[str], typer.Argument(help="Image files; - reads one from standard input.")],
    model: Annotated[str, typer.Option(help="Name of the model.")],
    address: Annotated[str, typer.Option(help="host:port of the server.")] = "127.0.0.1:8001",
    top: Annotated[int, typer.Option(min=1, help="How many of the best classes to show.")] = 3,
    timeout_s: Annotated[float, typer.Option(min=0.001, help="Seconds to wait for each answer.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
) -> None:
    """Send images to a server and print their labels and probabilities."""
    contents, failed = _read(files)
    try:
        answers = asyncio.run(_ask(contents, model, address, top, timeout_s))
    except (grpc.aio.AioRpcError, ValueError) as error:
        print(f"fovea classify: {_sentence(error, address)}", file=sys.stderr)  # noqa: T201 - the command's output
        raise typer.Exit(1) from None
    results = {name: answer for name, answer in answers.items() if isinstance(answer, list)}
    failed |= {name: _sentence(answer, address) for name, answer in answers.items() if isinstance(answer, Exception)}
    _print_json(results, failed) if as_json else _print_table(results, failed)
    if failed:
        raise typer.Exit(1)


def _read(files: list[str]) -> tuple[dict[str, bytes], dict[str, str]]:
    contents, failed = {}, {}
    for name in files:
        try:
            contents[name] = sys.stdin.buffer.read() if name == "-" else pathlib.Path(name).read_bytes()
        except OSError as error:
            failed[name] = f"cannot be read: {error.strerror}"
    return contents, failed


async def _ask(
    contents: dict[str, bytes], model: str, address: str, top: int, timeout_s: float
) -> dict[str, list[client.Prediction] | Exception]:
    """One request per image, so that a bad one costs the others nothing."""
    room = asyncio.Semaphore(UNARY_CALLS_MAX)
    async with client.Client(address) as connection:
        signature = await connection.signature(model)

        async def ask(content: bytes) -> list[client.Prediction] | Exception:
            async with room:
                try:
                    request = client.image_request(signature, [content], classes=top)
                    return client.predictions(await connection.infer(request, timeout_s))[0]
                except grpc.aio.AioRpcError as error:
                    return error

        answers = await asyncio.gather(*(ask(content) for content in contents.values()))
    return dict(zip(contents, answers, strict=True))


def _sentence(error: Exception, address: str) -> str:
    if not isinstance(error, grpc.aio.AioRpcError):
        return str(error)
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return f"no answer from {address}: {error.details()}; is `fovea serve` running there?"
    return f"{error.code().name}: {error.details()}"


def _print_json(results: dict[str, list[client.Prediction]], failed: dict[str, str]) -> None:
    for name, best in results.items():
        classes = [{"label": p.label, "index": p.index, "score": p.score} for p in best]
        print(json.dumps({"file": name, "classes": classes}))  # noqa: T201 - the command's output
    for name, sentence in failed.items():
        print(json.dumps({"file": name, "error": sentence}))  # noqa: T201 - the command's output


def _print_table(results: dict[str, list[client.Prediction]], failed: dict[str, str]) -> None:
    if results:
        table = rich.table.Table("file", "label", "score", "then", box=None, pad_edge=False)
        for name, (first, *others) in results.items():
            then = "  ".join(f"{other.label} {other.score:.4f}" for other in others)
            table.add_row(name, f"[bold]{first.label}[/bold]", f"{first.score:.4f}", then)
        rich.console.Console().print(table)
    for name, sentence in failed.items():
        print(f"{name}: {sentence}", file=sys.stderr)  # noqa: T201 - the command's output
