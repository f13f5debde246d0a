"""`fovea tune`: measures configurations of a model on this machine and writes the best into its config.pbtxt.

Path: command line → **tune_cli** → tuning.
"""

import asyncio
import datetime
import os
import pathlib
import platform
import shutil
import sys
import time
from typing import Annotated

import rich.console
import rich.table
import typer
from google.protobuf import text_format

from service import errors, plots
from service.loadgen import plan
from service.models import config as model_config
from service.models import repository
from service.runtime import providers, session
from service.tuning import candidates, search

tune_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@tune_app.command()
def _tune(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    repository_path: Annotated[pathlib.Path, typer.Option("--repository", help="Folder of models.")] = pathlib.Path(
        "models"
    ),
    budget: Annotated[str, typer.Option(help="How long it may take, such as 60s or 5m.")] = "60s",
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure and print only; write nothing.")] = False,
    plot: Annotated[
        pathlib.Path | None, typer.Option(help="Where to draw latency against throughput (PNG or SVG).")
    ] = None,
) -> None:
    """Measure instances, threads, batch sizes, provider options and delay; keep what is fastest.

    The model is served by each configuration exactly as `fovea serve` would. Of those within 3 % of
    the highest throughput, the one that answers a lone caller soonest wins. The file as it was is kept beside it.
    """
    try:
        budget_s = plan.seconds(budget)
        if device not in {"auto", "cuda", "cpu"}:
            raise errors.SettingsError(f"--device is {device!r}; expected auto, cuda or cpu")
        folder = _folder(repository_path, model)
        said, _ = model_config.read(model, folder.path / "config.pbtxt")
        options = session.Options(providers.choose(device), 0)  # type: ignore[arg-type]  # checked above
        start = said if said is not None else candidates.Config()
        found = asyncio.run(_search(folder, options, start, budget_s))
        _print(found)
        if plot is not None:
            _plot(found, plot)
        if not dry_run:
            _write(folder, found)
    except (errors.StartupError, ValueError) as error:  # ValueError: a --budget that is no duration
        print(f"fovea tune: {error}", file=sys.stderr)  # noqa: T201 - the command's output
        raise typer.Exit(1) from None


async def _search(
    folder: repository.ModelFolder, options: session.Options, config: candidates.Config, budget_s: float
) -> search.Found:
    console = rich.console.Console(stderr=True)
    with console.status("loading") as status:

        def say(sentence: str) -> None:
            console.print(sentence, highlight=False)
            status.update(sentence)

        return await search.Search(folder, options, time.perf_counter() + budget_s, say).run(config)


def _folder(path: pathlib.Path, model: str) -> repository.ModelFolder:
    folders = {folder.name: folder for folder in repository.scan(path)}
    if model not in folders:
        raise errors.RepositoryError(
            f"{path} has no model {model!r}{errors.nearest(model, folders)}; it has {', '.join(folders)}"
        )
    return folders[model]


def _print(found: search.Found) -> None:
    table = rich.table.Table("configuration", "images/s", "p99 ms", "alone p50 ms", box=None)
    for trial in found.tried:
        table.add_row(
            trial.candidate.name,
            f"{trial.full.rate:.1f}",
            f"{trial.full.p99_s * 1e3:.1f}",
            f"{trial.alone.p50_s * 1e3:.2f}",
        )
    for name, reason in found.refused.items():
        table.add_row(name, "refused", reason, "")
    console = rich.console.Console()
    console.print(table)
    if found.skipped:
        console.print(f"no time for: {'; '.join(found.skipped)}")
    console.print(verdict(found))


def verdict(found: search.Found) -> str:
    """Return what came out, in a sentence."""
    duel = found.duel
    if duel is None and len(found.tried) == 1:
        why = f"there was no time; --budget {found.budget_s:.0f}s is enough to try some" if found.skipped else ""
        return f"nothing but the configuration as it is was measured: {why or 'no other one can be loaded'}"
    if duel is None:
        return "nothing that was measured is better than the configuration as it is"
    if duel.is_won:
        return f"winner: {duel.name}; in turns with the configuration as it is: {duel.ratio:.3f} x"
    return f"the configuration as it is stays; in turns with it {duel.name} was {duel.ratio:.3f} x as fast"


def _plot(found: search.Found, path: pathlib.Path) -> None:
    plots.latency_throughput(found.curves, path)
    alone = "" if found.duel else "; it shows the configuration as it is only: nothing was compared with it in turns"
    rich.console.Console().print(f"drawn: {path}{alone}", soft_wrap=True)


def _write(folder: repository.ModelFolder, found: search.Found) -> None:
    """Write the winner; whole or not at all, with the file as it was kept beside it."""
    console = rich.console.Console()
    path = folder.path / "config.pbtxt"
    if found.winner.name == search.AS_IT_IS:
        console.print(f"{path} is left as it is")
        return
    today = datetime.datetime.now(datetime.UTC).date()
    header = f"# fovea tune, {today}, {platform.node()} with {os.cpu_count()} cores: {found.winner.name}\n"
    if path.exists():
        shutil.copy2(path, folder.path / "config.pbtxt.before-tune")
    temporary = folder.path / ".config.pbtxt.new"
    temporary.write_text(header + text_format.MessageToString(found.winner.config))
    temporary.replace(path)
    console.print(f"written: {path} (as it was: config.pbtxt.before-tune)")
