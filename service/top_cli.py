"""`fovea top`: a live view of running servers, or one table of them.

Path: command line → **top_cli** → top.
"""

import time
from typing import Annotated

import rich.console
import rich.live
import typer

from service import errors, scrape
from service.loadgen import plan
from service.top import places, table, watch

top_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_errors = rich.console.Console(stderr=True, highlight=False)

_WIDTH_UNSEEN = 160
"""Characters of a line where nobody looks at a terminal: the whole table."""


def _duration(text: str) -> float:
    try:
        return plan.seconds(str(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@top_app.command()
def _top(
    addresses: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ADDRESS...",
            help=f"host:port of a server's metrics; a name stands for all servers behind it. "
            f"Default: 127.0.0.1:{scrape.PORT}.",
            show_default=False,
        ),
    ] = None,
    interval: Annotated[
        float, typer.Option(parser=_duration, metavar="TIME", help="Between two looks: 2s, 500ms.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look twice, print one table, and end.")] = False,
) -> None:
    """Watch what servers do: throughput, latency, batches, queue, how busy they are, what they shed.

    From their /metrics; figures are of the time between two looks, and summed over the servers. Ctrl-C ends it.
    """
    console = rich.console.Console(highlight=False)
    try:
        names = [places.where(text) for text in addresses or [f"127.0.0.1:{scrape.PORT}"]]
        if not once and not console.is_terminal:
            raise errors.StartupError("the output is no terminal to draw on; --once prints one table")
        with watch.Watch(names) as watching:
            watching.begin()
            if once:
                _print_once(watching, interval, console)
            else:
                _show(watching, interval, console)
    except (errors.StartupError, scrape.NoFigures) as error:
        _errors.print(f"fovea top: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _print_once(watching: watch.Watch, interval_s: float, console: rich.console.Console) -> None:
    time.sleep(interval_s)
    wide = console if console.is_terminal else rich.console.Console(highlight=False, width=_WIDTH_UNSEEN)
    wide.print(table.draw(watching.look(), wide.width))


def _show(watching: watch.Watch, interval_s: float, console: rich.console.Console) -> None:
    """Draw until Ctrl-C."""
    next_s = time.monotonic()
    with rich.live.Live(console=console, screen=True, auto_refresh=False) as live:
        live.update(table.draw(watching.look(), console.width), refresh=True)
        while True:
            next_s = max(next_s + interval_s, time.monotonic())  # a slow look delays, it does not pile up
            time.sleep(max(0.0, next_s - time.monotonic()))
            live.update(table.draw(watching.look(), console.width), refresh=True)


if __name__ == "__main__":
    top_app(prog_name="fovea top")
