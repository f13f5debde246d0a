"""The verb `fovea export`. Importing it loads neither torch nor onnx.

Path: command line → **cli** → zoo, weights, serving, trace, passes, verify, bundle.
"""

import contextlib
import hashlib
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import rich.console
import rich.table
import typer

from export import errors, zoo

if TYPE_CHECKING:
    import onnx

    from export import verify

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = rich.console.Console()


@app.command()
def export(
    architecture: Annotated[str, typer.Argument(help=f"One of: {', '.join(zoo.ZOO)}.")],
    repository: Annotated[pathlib.Path, typer.Option(help="Folder of models, in Triton's layout.")] = pathlib.Path(
        "models"
    ),
    weights: Annotated[
        str | None, typer.Option(help="digits (trained now), random, or a .pt/.pth file.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model; default: the architecture's.", show_default=False)
    ] = None,
    version: Annotated[int, typer.Option(min=1, help="Number of the version folder.")] = 1,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the version if it is there.")] = False,
    max_batch_size: Annotated[int, typer.Option(min=1, help="Largest batch that is served, and verified.")] = 64,
    seed: Annotated[int, typer.Option(help="For random weights and training.")] = 0,
) -> None:
    """Turn a network into a verified ONNX model in a model repository."""
    try:
        from export import bundle  # noqa: PLC0415 - loads onnx, which --help does without

        chosen = zoo.find(architecture)
        place = bundle.Place(repository, name or chosen.name, version, replace)
        _export(chosen, place, weights or chosen.weights, max_batch_size, seed)
    except errors.ExportError as error:
        print(f"fovea export: {error}", file=sys.stderr)  # noqa: T201 - the command's output
        raise typer.Exit(1) from None
    except ModuleNotFoundError as error:
        print(  # noqa: T201 - the command's output
            f"fovea export: {error.name} is not installed; pip install 'fovea[export]'", file=sys.stderr
        )
        raise typer.Exit(1) from None


def _export(chosen: zoo.Architecture, place: "bundle.Place", source: str, batch_max: int, seed: int) -> None:  # type: ignore[name-defined]  # noqa: F821 - loaded late
    from export import bundle, digits, passes, serving, trace, verify, weights  # noqa: PLC0415 - loads torch

    bundle.check(place)
    network = weights.load(chosen, source, seed)
    with _step("trace"):
        shape_hwc = (chosen.image.height, chosen.image.width, len(chosen.mean))
        model = trace.trace(serving.ServingModule(network, chosen), shape_hwc)
    with _step("passes"):
        model, _ = passes.run(model)
    with _step("verify"):
        report = verify.verify(model, network, chosen, digits.load()[1].images_nhwc, batch_max)
    with _step("write"):
        origin = bundle.Weights(pathlib.Path(source).name, weights.sha256(network))
        path = bundle.write(place, model, chosen, origin, report, batch_max)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    _print_figures(path, model, report, parameters)


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    started_s = time.perf_counter()
    with console.status(name):
        yield
    console.print(f"[green]✓[/green] {name:<7} {time.perf_counter() - started_s:6.2f} s")


def _print_figures(path: pathlib.Path, model: "onnx.ModelProto", report: "verify.Report", parameters: int) -> None:
    content = path.read_bytes()
    worst = max(max(row.float32, row.float64) for row in report.parity)
    table = rich.table.Table(show_header=False, box=None)
    table.add_row("parameters", f"{parameters:,}")
    table.add_row("graph", f"{len(model.graph.node)} nodes, {len(content):,} bytes")
    table.add_row("sha256", hashlib.sha256(content).hexdigest())
    table.add_row("parity", f"{worst:.1e} at worst, at batches {sorted({row.batch for row in report.parity})}")
    table.add_row("batches", "each row equal to itself alone, to the bit")
    table.add_row("written", str(path))
    console.print(table)
