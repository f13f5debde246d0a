"""The verb `fovea inspect`. Importing it loads neither torch nor onnx.

Path: command line → **inspect_cli** → stored → summary, inspection.
"""

import pathlib
import sys
from collections.abc import Mapping
from typing import Annotated, NoReturn

import typer

from export import errors

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
INTERRUPTED = 130
"""The shell's exit status for Ctrl-C."""


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="Name of a model in the repository.")],
    repository: Annotated[pathlib.Path, typer.Option(help="Folder of models.")] = pathlib.Path("models"),
    version: Annotated[
        int | None, typer.Option(min=1, help="Version; default: the highest.", show_default=False)
    ] = None,
    image: Annotated[
        pathlib.Path | None,
        typer.Option(help="A PNG or JPEG to look at through the model: classes, feature maps.", show_default=False),
    ] = None,
    out: Annotated[
        pathlib.Path | None, typer.Option(help="Folder for pictures; default: build/inspect/MODEL.", show_default=False)
    ] = None,
) -> None:
    """Show what is known of an exported model, and draw what it sees."""
    try:
        _inspect(model, repository, version, image, out or pathlib.Path("build", "inspect", model))
    except errors.ExportError as error:
        _fail(str(error), 1)
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed; pip install 'fovea[export]'", 1)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)


def _inspect(
    model: str, repository: pathlib.Path, version: int | None, image: pathlib.Path | None, out: pathlib.Path
) -> None:
    import rich.console  # noqa: PLC0415 - --help does without

    from export import stored  # noqa: PLC0415 - loads onnx, which --help does without
    from export.report import inspection, summary  # noqa: PLC0415 - loads onnx, which --help does without

    found = stored.read(repository, model, version)
    seen = {}
    if image is not None:
        inputs, image_hwc = stored.as_input(found, image)
        seen = inspection.of_image(found.model, found.evidence, found.labels, inputs, image_hwc)
    seen |= inspection.of_graph(found.model, found.evidence)
    console = rich.console.Console(highlight=False)
    summary.show(console, found.evidence)
    for path in _write(seen, out):
        console.print(f"written {path}", soft_wrap=True)


def _write(pictures: Mapping[str, bytes], folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, png in pictures.items():
            (folder / f"{name}.png").write_bytes(png)
    except OSError as error:
        raise errors.RepositoryError(
            f"cannot write pictures to {folder}: {error.strerror or error}; name another folder with --out"
        ) from error
    return [folder / f"{name}.png" for name in pictures]


def _fail(sentence: str, status: int) -> NoReturn:
    print(f"fovea inspect: {sentence}", file=sys.stderr)  # noqa: T201 - the command's output
    raise typer.Exit(status) from None
