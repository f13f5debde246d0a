"""The verb `fovea export`. Importing it loads neither torch nor onnx.

Path: command line → **cli** → options, command.
"""

import pathlib
import sys
from typing import Annotated, NoReturn

import typer

from export import errors, options, zoo

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
INTERRUPTED = 130
"""The shell's exit status for Ctrl-C."""


@app.command()
def export(  # noqa: PLR0913, PLR0917 - a command has as many parameters as flags
    target: Annotated[
        str | None,
        typer.Argument(
            help=f"{', '.join(zoo.ZOO)}; or path/to/file.py:function that returns a torch.nn.Module; or model.onnx.",
            show_default=False,
        ),
    ] = None,
    all_of_them: Annotated[bool, typer.Option("--all", help="Export every network of the zoo.")] = False,
    repository: Annotated[pathlib.Path, typer.Option(help="Folder of models, in Triton's layout.")] = pathlib.Path(
        "models"
    ),
    weights: Annotated[
        str,
        typer.Option(
            help="A .pth, .pt or .safetensors file, an https:// URL, a known name (imagenet, imagenet1k-v1), digits "
            "(trained now), or random. Default: digits for the digit networks, imagenet for torchvision's.",
            show_default=False,
        ),
    ] = "",
    classes: Annotated[
        int | None, typer.Option(min=2, help="Classes of a fine-tuned head.", show_default=False)
    ] = None,
    outputs: Annotated[
        str,
        typer.Option(
            help="Beside the network's own outputs, separated by commas: probabilities, top5 (or another number), "
            "features:STAGE such as features:layer4.",
            show_default=False,
        ),
    ] = "",
    input_: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="uint8-nhwc (pixels, normalised in the graph; the default for networks) or float32-nchw.",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="What to write, separated by commas: fp32, fp16 (for CUDA), int8 (for the CPU).")
    ] = "fp32",
    calibration: Annotated[
        pathlib.Path | None, typer.Option(help="Folder of images for int8.", show_default=False)
    ] = None,
    input_size: Annotated[
        str | None, typer.Option(help="CxHxW, such as 3x224x224; needed for a file.py.", show_default=False)
    ] = None,
    any_size: Annotated[bool, typer.Option("--any-size", help="Take images of any height and width.")] = False,
    mean: Annotated[
        str | None, typer.Option(help="Per channel, of pixels in 0..1: 0.485,0.456,0.406.", show_default=False)
    ] = None,
    std: Annotated[str | None, typer.Option(help="Per channel, like --mean.", show_default=False)] = None,
    resize: Annotated[
        int | None,
        typer.Option(min=0, help="Shorter side before the centre crop, in pixels; 0 stretches.", show_default=False),
    ] = None,
    transform_input: Annotated[
        bool | None,
        typer.Option(
            "--transform-input/--no-transform-input",
            help="googlenet: torchvision's second normalisation; known weights set it.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        pathlib.Path | None, typer.Option(help="A text file with a line for each class.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model; default: the network's.", show_default=False)
    ] = None,
    version: Annotated[int, typer.Option(min=1, help="Number of the version folder.")] = 1,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the version if it is there.")] = False,
    max_batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Largest batch that is served, and verified; default: 32, digits 64.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="For random weights and training.")] = 0,
) -> None:
    """Turn a network into a verified ONNX model in a model repository."""
    try:
        targets = _targets(target, all_of_them, name)
        chosen = options.Options(
            weights=weights,
            classes=classes,
            outputs=options.outputs(outputs),
            layout_asked=options.layout(input_) if input_ else None,
            precisions=options.precisions(precision),
            calibration=calibration,
            input_size=options.input_size(input_size) if input_size else None,
            is_any_size=any_size,
            mean=options.numbers("--mean", mean) if mean else None,
            std=options.numbers("--std", std) if std else None,
            resize_px=resize,
            transform_input=transform_input,
            labels=labels,
            batch_max=max_batch_size,
            seed=seed,
        )
        from export import command  # noqa: PLC0415 - loads torch, which --help and wrong flags do without

        command.run(targets, chosen, command.Destination(repository, name, version, replace))
    except errors.ExportError as error:
        _fail(str(error), 1)
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed; pip install 'fovea[export]'", 1)
    except KeyboardInterrupt:
        _fail("interrupted; nothing was written, and the repository is as it was", INTERRUPTED)


def _fail(sentence: str, status: int) -> NoReturn:
    print(f"fovea export: {sentence}", file=sys.stderr)  # noqa: T201 - the command's output
    raise typer.Exit(status) from None


def _targets(target: str | None, all_of_them: bool, name: str | None) -> list[str]:
    if all_of_them == (target is not None):
        raise errors.OptionError("name one network, or pass --all; `fovea export --help` lists the networks")
    if all_of_them and name:
        raise errors.OptionError("--name names one model; with --all each keeps its own")
    if target is None:
        return list(zoo.ZOO)
    if not target.endswith((".onnx", ".py")) and ".py:" not in target:
        zoo.find(target)  # said at once if there is none, before torch is loaded
    return [target]
