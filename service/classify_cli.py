"""`fovea classify`: images from files, folders or standard input to their labels, as a table, JSON or CSV.

Path: command line → **classify_cli** → client.
"""

import asyncio
import csv
import dataclasses
import glob
import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated

import grpc
import rich.console
import rich.progress
import rich.table
import typer

from service import access_flags, client
from service.client import files

classify_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

STDIN = pathlib.Path("-")

FIND_WITHIN_S = 5.0
"""Seconds at most until a server has been found; more images may take longer each."""

A_HANDFUL = 8
"""Images from which on progress is shown."""

_errors = rich.console.Console(stderr=True, highlight=False)


@dataclasses.dataclass(slots=True)
class Results:
    """What was asked, in its order, and what came of it; `failed` also has what is no image at all."""

    asked: list[pathlib.Path]
    best: dict[pathlib.Path, list[client.Prediction]] = dataclasses.field(default_factory=dict)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)

    def rows(self) -> Iterator[tuple[str, list[client.Prediction]]]:
        """Yield the answered images with their best classes."""
        for path in self.asked:
            if path in self.best:
                yield str(path), self.best[path]


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """What is asked of each image, and whom."""

    model: str
    address: str
    top: int
    timeout_s: float


@classify_app.command()
def _classify(  # noqa: PLR0913, PLR0917 - a command has as many parameters as flags
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES...",
            help="Image files, folders (with all folders in them), patterns such as 'photos/*.jpg'; "
            "- reads one image from standard input.",
        ),
    ],
    model: Annotated[str, typer.Option(help="Name of the model.")],
    address: Annotated[
        str, typer.Option(help="host:port of the server; several with commas, or dns:///name:port.")
    ] = "127.0.0.1:8001",
    top: Annotated[int, typer.Option(min=1, help="How many of the best classes to show.")] = 3,
    timeout_s: Annotated[float, typer.Option(min=0.001, help="Seconds to wait for each answer.")] = 30.0,
    tls_ca: access_flags.TlsCa = None,
    tls_certificate: access_flags.TlsCertificate = None,
    tls_key: access_flags.TlsKey = None,
    token_file: access_flags.TokenFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV instead of a table: one class a line.")] = False,
) -> None:
    """Send images to a server and print their labels and probabilities.

    Exit status: 0 if all were answered, 1 if any was not, 2 for a command line that is wrong.
    """
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv are two formats; give one of them")
    results = find(images)
    question = Question(model, address, top, timeout_s)
    try:
        credentials, token = access_flags.read(tls_ca, tls_certificate, tls_key, token_file)
        served = client.Client(address, timeout_s=timeout_s, credentials=credentials, token=token)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--address") from None
    try:
        asyncio.run(_ask(served, question, results))
    except (client.CallFailed, ValueError) as error:
        print(f"fovea classify: {sentence(error)}", file=sys.stderr)  # noqa: T201 - the command's output
        raise typer.Exit(1) from None
    _print_json(results) if as_json else _print_csv(results) if as_csv else _print_table(results)
    if results.failed:
        raise typer.Exit(1)


def find(places: Iterable[str]) -> Results:
    """Return the images behind files, folders, patterns and -; a place without any has failed."""
    results = Results([])
    for place in places:
        found = _images(place)
        results.asked += found
        if not found:
            what = "has no image files in it" if pathlib.Path(place).is_dir() else "is a pattern that no file matches"
            results.failed[place] = f"{what}; image files end in {', '.join(sorted(files.SUFFIXES))}"
    return results


def _images(place: str) -> list[pathlib.Path]:
    if place == str(STDIN) or pathlib.Path(place).exists() or not glob.has_magic(place):
        return files.images(place)
    return files.images(sorted(glob.glob(place, recursive=True)))  # noqa: PTH207 - the pattern may be absolute


async def _ask(served: client.Client, question: Question, results: Results) -> None:
    """Ask for each image. When nobody answers any more, the rest is not asked."""
    columns = (rich.progress.BarColumn(), rich.progress.MofNCompleteColumn(), rich.progress.TextColumn("images"))
    hidden = not _errors.is_terminal or len(results.asked) <= A_HANDFUL
    with rich.progress.Progress(*columns, console=_errors, transient=True, disable=hidden) as bar:
        task = bar.add_task("", total=len(results.asked))
        async with served:
            await served.signature(question.model, min(FIND_WITHIN_S, question.timeout_s))
            await _ask_all(served, question, results, lambda: bar.advance(task))


async def _ask_all(served: client.Client, question: Question, results: Results, advance: Callable[[], None]) -> None:
    paths = [path for path in dict.fromkeys(results.asked) if path != STDIN]
    if STDIN in results.asked:
        _take(results, STDIN, await _of_stdin(served, question))
        advance()
    outcomes = served.classify_folder(paths, question.model, top=question.top)
    async for path, outcome in outcomes:
        _take(results, path, outcome)
        advance()
        if isinstance(outcome, client.CallFailed) and outcome.code is grpc.StatusCode.UNAVAILABLE:
            left = {str(path) for path in paths if path not in results.best} - results.failed.keys()
            results.failed |= dict.fromkeys(sorted(left), sentence(outcome))
            await outcomes.aclose()
            return


async def _of_stdin(served: client.Client, question: Question) -> list[client.Prediction] | Exception:
    content: bytes = await asyncio.to_thread(sys.stdin.buffer.read)
    try:
        return await served.classify(content, question.model, top=question.top)
    except client.CallFailed as error:
        return error


def _take(results: Results, path: pathlib.Path, outcome: list[client.Prediction] | Exception) -> None:
    if isinstance(outcome, Exception):
        results.failed[str(path)] = sentence(outcome)
    else:
        results.best[path] = outcome


def sentence(error: Exception) -> str:
    """Return what a person is told of an error."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror}"
    if not isinstance(error, client.CallFailed):
        return str(error)
    if error.code is grpc.StatusCode.UNAVAILABLE:
        return f"no answer from {error.address}: {error.details}; is `fovea serve` running there?"
    return f"{error.code.name}: {error.details}"


def _print_json(results: Results) -> None:
    for name, best in results.rows():
        classes = [{"label": p.label, "index": p.index, "score": p.score} for p in best]
        print(json.dumps({"file": name, "classes": classes}))  # noqa: T201 - the command's output
    for name, why in results.failed.items():
        print(json.dumps({"file": name, "error": why}))  # noqa: T201 - the command's output


def _print_csv(results: Results) -> None:
    written = csv.writer(sys.stdout, lineterminator="\n")
    written.writerow(("file", "rank", "label", "index", "score"))
    for name, best in results.rows():
        written.writerows((name, rank, p.label, p.index, p.score) for rank, p in enumerate(best, 1))
    _print_failed(results)


def _print_table(results: Results) -> None:
    if results.best:
        table = rich.table.Table("file", "label", "score", "then", box=None, pad_edge=False)
        for name, (first, *others) in results.rows():
            then = "  ".join(f"{other.label} {other.score:.4f}" for other in others)
            table.add_row(name, f"[bold]{first.label}[/bold]", f"{first.score:.4f}", then)
        rich.console.Console().print(table)
    _print_failed(results)


def _print_failed(results: Results) -> None:
    for name, why in results.failed.items():
        print(f"{name}: {why}", file=sys.stderr)  # noqa: T201 - the command's output
