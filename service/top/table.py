"""Draws a view for a terminal.

Path: watch → **table** → rich.
"""

from collections.abc import Sequence

import rich.console
import rich.table
import rich.text

from service.top import figures, watch

MISSING = "–"  # noqa: RUF001 - a minus would look like a number
_BARS = "▁▂▃▄▅▆▇█"
_BUSY, _FULL = 0.7, 0.9
"""From here on saturation is yellow, red: waiting grows steeply where a server is taken for more than that."""
_COLUMNS = ("images/s", "req/s", "p50 ms", "p99 ms", "batch", "queued", "age ms", "busy", "shed/s", "err/s")
_COLUMNS_WIDTH = 76
"""Characters of a table of large numbers, without the models' names and the sparklines."""
_SPARKS_MIN = 6


def draw(view: watch.View, width: int) -> rich.console.Group:
    """Return the servers' states and a table of the models, for so many characters a line.

    `age` is how long the oldest request of the queue waits; the sparkline is of images a second.
    """
    return rich.console.Group(_servers(view), _models(view, width))


def sparkline(values: Sequence[float], width: int) -> str:
    """Return a bar for each of the last values, the highest of them full; blanks where there is none yet."""
    shown = list(values)[-width:]
    highest = max(shown, default=0.0)
    if highest <= 0:
        return (_BARS[0] * len(shown)).rjust(width)
    return "".join(_BARS[min(7, int(value / highest * 7.999))] for value in shown).rjust(width)


def _servers(view: watch.View) -> rich.text.Text:
    answering = sum(server.answers for server in view.servers)
    many = "server" if len(view.servers) == 1 else "servers"
    text = rich.text.Text(f"fovea top   {answering} of {len(view.servers)} {many} answering", style="bold")
    text.append(f"   last {view.elapsed_s:.1f} s\n" if view.elapsed_s else "   measuring\n", style="dim")
    for server in view.servers:
        text.append("● " if server.answers else "○ ", style="green" if server.answers else "red")
        text.append(f"{server.where}  {server.condition}\n", style="" if server.answers else "red")
    return text


def _models(view: watch.View, width: int) -> rich.table.Table:
    names = [f"{one.model}/{one.version}" if one.model else "(unknown)" for one in view.models]
    room = min(watch.HISTORY, width - _COLUMNS_WIDTH - max(map(len, names), default=0))
    has_sparks = room >= _SPARKS_MIN and any(len(past) > 1 for past in view.history.values())
    table = rich.table.Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold cyan")
    for column in ("model", *[""] * has_sparks):
        table.add_column(column, no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for name, model in zip(names, view.models, strict=True):
        past = view.history.get((model.model, model.version), ())
        sparks = [rich.text.Text(sparkline(past, room), style="cyan")] if has_sparks else []
        table.add_row(rich.text.Text(name), *sparks, *_numbers(model))
    if not view.models:
        table.add_row("no model has served yet")
    return table


def _numbers(model: figures.ModelFigures) -> list[rich.text.Text]:
    """One for each of the columns."""
    return [
        _number(model.images_per_s),
        _number(model.requests_per_s),
        _milliseconds(model.p50_s),
        _milliseconds(model.p99_s),
        _number(model.batch_mean),
        _number(model.queue_samples, digits=0),
        _milliseconds(model.oldest_s),
        _share(model.saturation),
        _number(model.shed_per_s, style="yellow"),
        _number(model.errors_per_s, style="red"),
    ]


def _number(value: float | None, *, digits: int = 1, style: str = "") -> rich.text.Text:
    """A number; with its style, if it is not 0."""
    if value is None:
        return rich.text.Text(MISSING, style="dim")
    digits = digits if value < 1000 else 0
    return rich.text.Text(f"{value:,.{digits}f}", style=style if value else "")


def _milliseconds(seconds: float | None) -> rich.text.Text:
    if seconds is None:
        return rich.text.Text(MISSING, style="dim")
    milliseconds = seconds * 1e3
    return rich.text.Text(f"{milliseconds:.2f}" if milliseconds < 10 else f"{milliseconds:,.0f}")


def _share(share: float | None) -> rich.text.Text:
    if share is None:
        return rich.text.Text(MISSING, style="dim")
    return rich.text.Text(f"{share:.0%}", style="red" if share >= _FULL else "yellow" if share >= _BUSY else "green")
