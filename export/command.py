"""What `fovea export` does: one network or all, in one transaction, with progress and a summary.

Path: cli → options → **command** → sources → pipeline → bundle.
"""

import contextlib
import dataclasses
import pathlib
import signal
import time
from collections.abc import Iterator, Sequence
from types import FrameType

import rich.console
import rich.progress
import rich.table

from export import bundle, errors, evidence, options, pipeline, precision, sources, subject, zoo

console = rich.console.Console(highlight=False)

_ONE_NETWORK_ONLY = ("classes", "input_size", "mean", "std", "resize_px", "transform_input", "labels", "is_any_size")


@dataclasses.dataclass(frozen=True, slots=True)
class Destination:
    """Where the models go; `name` None is the network's own."""

    repository: pathlib.Path
    name: str | None
    version: int
    replace: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """One model that was exported: what the summary shows."""

    place: bundle.Place
    evidence: evidence.Evidence
    seconds: float


def run(targets: Sequence[str], chosen: options.Options, destination: Destination) -> None:
    """Export, and print what was made. All of it is written, or nothing.

    Raises:
        ExportError: says what is wrong; the repository is as it was.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the repository is as it was.
    """
    asked = {target: _for_one_of_many(target, chosen) if len(targets) > 1 else chosen for target in targets}
    if chosen.calibration is not None and not chosen.calibration.is_dir():
        raise errors.OptionError(
            f"--calibration {chosen.calibration} is no folder; expected one with PNG or JPEG files"
        )
    with _interruptible(), bundle.Staging(destination.repository, replace=destination.replace) as staging:
        for target, one in asked.items():
            if one is not None and target in zoo.ZOO:
                _check(staging, destination.name or target, destination.version, one)
        made = [
            made
            for target, one, step in _shown(asked)
            if one is not None
            for made in _naming(target, _export(target, one, destination, staging, step))
        ]
        paths = staging.commit()
    skipped = [target for target, one in asked.items() if one is None]
    if len(targets) == 1:
        for model, path in zip(made, paths, strict=True):
            _show_one(model.evidence, path)
    else:
        _show_many(made, skipped, destination.repository)


def _for_one_of_many(target: str, chosen: options.Options) -> options.Options | None:
    """The options as they fit one network of --all; None if it cannot be exported with them."""
    wrong = [f"--{name.replace('_', '-')}" for name in _ONE_NETWORK_ONLY if getattr(chosen, name)]
    if wrong:
        raise errors.OptionError(f"{', '.join(wrong)}: with --all every network keeps its own; name one network")
    architecture = zoo.find(target)
    if not chosen.weights and not architecture.weights and not architecture.is_fixed:
        return None
    if architecture.classes:
        return chosen
    # A bank of filters has no weights, no classes, and nothing that int8 could gain.
    return dataclasses.replace(chosen, weights="", outputs=(), precisions=(precision.FP32,))


def _check(staging: bundle.Staging, name: str, version: int, chosen: options.Options) -> None:
    for kind in chosen.precisions:
        staging.check(bundle.Place(name + precision.PRECISIONS[kind].suffix, version))


def _shown(
    asked: dict[str, options.Options | None],
) -> Iterator[tuple[str, options.Options | None, pipeline.Step]]:
    """Yield what is to be exported, and what shows its steps: a line for each, or a bar over many networks."""
    if len(asked) == 1:
        for target, chosen in asked.items():
            yield target, chosen, _timed
        return
    columns = (
        rich.progress.TextColumn("{task.description:<24}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
    )
    with rich.progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=len(asked))
        for target, chosen in asked.items():

            def step(name: str, target: str = target) -> contextlib.AbstractContextManager[None]:
                bar.update(task, description=f"{target}: {name}")
                return contextlib.nullcontext()

            yield target, chosen, step
            bar.advance(task)


def _export(
    target: str,
    chosen: options.Options,
    destination: Destination,
    staging: bundle.Staging,
    step: pipeline.Step,
) -> Iterator[Made]:
    started_s = time.perf_counter()
    with step("trace"):
        source = sources.find(target, chosen)
    place = bundle.Place(destination.name or source.facts.name, destination.version)
    _check(staging, place.name, place.version, chosen)
    labels = read_labels(chosen.labels, source.facts)
    for one in pipeline.export(source, place, chosen, labels, step):
        staging.add(one)
        yield Made(one.place, one.evidence, time.perf_counter() - started_s)


def _naming(target: str, exports: Iterator[Made]) -> Iterator[Made]:
    """Yield what is made; an error says of which network."""
    try:
        yield from exports
    except errors.ExportError as error:
        raise errors.ExportError(f"{target}: {error}") from error


def read_labels(path: pathlib.Path | None, facts: subject.Facts) -> tuple[str, ...]:
    """Return the labels of the classes: the file's lines, or the numbers of the classes.

    Raises:
        OptionError: no such file, or not one line for each class.
    """
    if path is None:
        return tuple(map(str, range(facts.classes)))
    try:
        labels = tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise errors.OptionError(f"--labels {path} cannot be read: {error}") from error
    if not facts.classes or len(labels) != facts.classes:
        raise errors.OptionError(
            f"--labels {path} has {len(labels)} lines; {facts.origin} has {facts.classes or 'no'} classes: "
            "one line for each is needed"
        )
    return labels


@contextlib.contextmanager
def _timed(name: str) -> Iterator[None]:
    started_s = time.perf_counter()
    with console.status(name):
        yield
    console.print(f"[green]✓[/green] {name:<7} {time.perf_counter() - started_s:6.2f} s")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end the export as Ctrl-C does: with the repository as it was."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show_one(found: evidence.Evidence, path: pathlib.Path) -> None:
    table = rich.table.Table(show_header=False, box=None, title=found.identity.name, title_justify="left")
    table.add_row("parameters", f"{found.costs.parameters:,}")
    table.add_row("MACs", f"{found.costs.macs:,} an image")
    table.add_row("graph", f"{sum(found.operators.exported.values())} nodes, {found.identity.graph_bytes:,} bytes")
    table.add_row("sha256", found.identity.graph_sha256)
    table.add_row("parity", f"{_parity(found)}, allowed {found.gate:.0e}")
    table.add_row("batches", _batches(found))
    table.add_row("speed", " ".join(_speed(found)))
    for note in found.notes:
        table.add_row("note", note)
    table.add_row("written", str(path))
    table.add_row("report", str(path.parent / "evidence" / "report.html"))
    console.print(table)


def _show_many(made: Sequence[Made], skipped: Sequence[str], repository: pathlib.Path) -> None:
    table = rich.table.Table("model", box=None)
    for title in ("parameters", "GMACs", "nodes", "optimized", "MB", "parity", "speed", "s"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in made:
        found = one.evidence
        table.add_row(
            *(one.place.name, f"{found.costs.parameters:,}", f"{found.costs.macs / 1e9:.3f}"),
            *(str(sum(found.operators.exported.values())), str(sum(found.operators.optimized.values()))),
            *(f"{found.identity.graph_bytes / 1e6:.1f}", _parity(found), _speed(found)[0], f"{one.seconds:.0f}"),
        )
    console.print(table)
    console.print(
        "parity: the furthest that any output is off, of at most 1e-05 for fp32; speed: against PyTorch eager "
        "(variants: against fp32), medians; optimized: nodes that ONNX Runtime makes of it on the CPU"
    )
    console.print(f"{len(made)} models written to {repository}, each with its report in VERSION/evidence/report.html")
    for one in made:
        for note in one.evidence.notes:
            if note.startswith("WARNING"):
                console.print(f"[yellow]{one.place.name}[/yellow]: {note}")
    for target in skipped:
        console.print(f"[yellow]skipped[/yellow] {target}: it has no published weights; export it with --weights")


def _parity(found: evidence.Evidence) -> str:
    if found.agreement is not None:
        top1 = "" if found.agreement.top1 is None else f", top-1 {found.agreement.top1:.1%}"
        return f"{found.agreement.worst:.1e}{top1}"
    return f"{max(max(row.float32, row.float64 or 0) for row in found.parity):.1e}"


def _batches(found: evidence.Evidence) -> str:
    if found.is_batch_invariant is None:
        return "not batched" if found.agreement is None else "not compared: this variant is not for the CPU"
    return "each row equal to itself alone, to the bit" if found.is_batch_invariant else "rows differ in company"


def _speed(found: evidence.Evidence) -> tuple[str, str]:
    """How much faster than the other way that was timed with it, and which that was."""
    if len(found.latency) < 2:
        return "-", "not measured"
    ours, other = found.latency[-2:]
    return f"{other.median_s / ours.median_s:.2f}x", f"{other.what} at batch {ours.batch}"
