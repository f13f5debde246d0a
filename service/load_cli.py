"""`fovea load`: load on a server, its progress while it runs, and a table and JSON of what was measured.

Path: command line → **load_cli** → loadgen.
"""

import asyncio
import enum
import gc
import json
import os
import pathlib
import signal
import sys
from typing import Annotated, Any

import rich.console
import rich.progress
import typer

from service import errors
from service.loadgen import ledger, payloads, plan, result, run

load_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_errors = rich.console.Console(stderr=True, highlight=False)

BUSY_CORES_MAX = 0.9
"""Above this share of a core the generator may be what limits the rate; it says so."""


class Arrivals(enum.StrEnum):
    """How an open loop's requests come."""

    poisson = "poisson"
    constant = "constant"


def _duration(text: str) -> float:
    try:
        return plan.seconds(str(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _span(text: str) -> float:
    """A duration that may also be zero."""
    return 0.0 if str(text) in {"0", "0.0", "0s"} else _duration(text)


@load_app.command()
def _load(  # noqa: PLR0913, PLR0917 - a command has as many parameters as flags
    model: Annotated[str, typer.Option(help="Name of the model.")],
    address: Annotated[str, typer.Argument(help="host:port of the server.")] = "127.0.0.1:8001",
    images: Annotated[
        list[pathlib.Path] | None,
        typer.Option(help="Image file, or folder of them; may be given more than once. Without: random pixels."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images in one request.")] = 1,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Requests under way at once (closed loop). Default: 32.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Requests a second, however the server does (open loop).")
    ] = None,
    arrivals: Annotated[Arrivals, typer.Option(help="How requests come at a rate.")] = Arrivals.poisson,
    streams: Annotated[int, typer.Option(min=0, help="Send over so many streams instead of unary calls.")] = 0,
    duration: Annotated[
        float, typer.Option(parser=_duration, metavar="TIME", help="Measured time: 10s, 500ms, 2m.")
    ] = 10.0,
    warmup: Annotated[
        float, typer.Option(parser=_span, metavar="TIME", help="Before it, not measured; 0 for none.")
    ] = 1.0,
    requests: Annotated[int | None, typer.Option(min=1, help="End after so many requests, if that is sooner.")] = None,
    deadline: Annotated[
        float | None,
        typer.Option(parser=_duration, metavar="TIME", help="Sent with each request; a later answer is not goodput."),
    ] = None,
    give_up: Annotated[
        float, typer.Option(parser=_duration, metavar="TIME", help="Cut off requests without an answer after this.")
    ] = 30.0,
    priority: Annotated[int, typer.Option(min=0, help="1 is the most urgent; 0: the model's default.")] = 0,
    seed: Annotated[int, typer.Option(help="Of poisson arrivals.")] = 0,
    in_order: Annotated[
        bool, typer.Option("--in-order", help="Streams answer in order: do not look at ids.", hidden=True)
    ] = False,
    cpu: Annotated[int | None, typer.Option(min=0, help="Run on this core only.")] = None,
    json_to: Annotated[str | None, typer.Option("--json", help="Write the figures to this file; - for stdout.")] = None,
) -> None:
    """Put load on a server and measure throughput, goodput and latency.

    Closed loop (--concurrency) asks how fast it can be; open loop (--rate) asks how long callers wait
    when they do not wait for each other: latencies count from the moment a request was meant to be sent.
    """
    loop = _loop(concurrency, rate, streams, plan.Open(rate or 1.0, arrivals.value, seed))
    chosen = plan.Plan(
        address=address, model=model, loop=loop, images_per_request=batch, streams=streams, duration_s=duration,
        warmup_s=warmup, requests_max=requests, deadline_s=deadline, priority=priority, give_up_s=give_up,
        is_in_order=in_order,
    )  # fmt: skip
    try:
        _pin(cpu)
        source = run.images(payloads.read(images), chosen) if images else run.pixels(chosen)
        measured = _run_loop(_measure(run.Run(chosen, source)))
        _write(measured, json_to)
    except errors.StartupError as error:
        _errors.print(f"fovea load: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None


def _loop(concurrency: int | None, rate: float | None, streams: int, at_rate: plan.Open) -> plan.Closed | plan.Open:
    if concurrency is not None and rate is not None:
        raise typer.BadParameter("--concurrency is a closed loop and --rate an open one; give one of the two")
    if rate is not None:
        return at_rate
    return plan.Closed(concurrency or max(32, streams))


def _pin(cpu: int | None) -> None:
    if cpu is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise errors.StartupError("--cpu: this system does not let a process choose its core; leave it out")
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as error:
        cores = sorted(os.sched_getaffinity(0))
        raise errors.StartupError(f"--cpu {cpu}: no such core for this process; it may use {cores}") from error


def _run_loop(main: Any) -> result.Result:
    """Run on uvloop where it is installed; the garbage collector leaves alone what is there already."""
    gc.freeze()
    try:
        import uvloop  # noqa: PLC0415 - not there on Windows
    except ImportError:
        measured: result.Result = asyncio.run(main)
    else:
        measured = uvloop.run(main)
    return measured


async def _measure(running: run.Run) -> result.Result:
    """Measure with a bar on stderr. The first Ctrl-C ends the load, a second one the command."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        running.stop()

    loop.add_signal_handler(signal.SIGINT, stop)
    columns = (rich.progress.BarColumn(), rich.progress.TextColumn("{task.description}"))
    with rich.progress.Progress(*columns, console=_errors, transient=True, disable=not _errors.is_terminal) as bar:
        task = bar.add_task("connecting", total=1.0)

        def watch(now: run.Progress) -> None:
            text = f"{now.elapsed_s:.0f} of {now.all_s:.0f} s · {now.ok} OK · {now.failed} not"
            bar.update(task, completed=now.elapsed_s, total=now.all_s, description=text)

        return await running.measure(watch)


def _write(measured: result.Result, json_to: str | None) -> None:
    if json_to == "-":
        json.dump(measured.as_json(), sys.stdout, indent=1)
        print()  # noqa: T201 - the command's output
    elif json_to:
        try:
            pathlib.Path(json_to).write_text(json.dumps(measured.as_json(), indent=1) + "\n")
        except OSError as error:
            raise errors.StartupError(f"{json_to} cannot be written: {error.strerror}") from error
    _print(measured, _errors if json_to == "-" else rich.console.Console(highlight=False))


def _print(measured: result.Result, console: rich.console.Console) -> None:
    for name, text in _rows(measured):
        console.print(f"{name:<11} {text}", soft_wrap=True)
    for sentence, count in sorted(measured.sentences.items(), key=lambda entry: -entry[1])[:5]:
        console.print(f"{count} x {sentence}", markup=False, soft_wrap=True)
    made = measured.generator
    if made.busy_cores > BUSY_CORES_MAX or measured.counts.get(ledger.NOT_SENT):
        console.print("The generator was at its own limit: the server may be faster than these figures.")


def _rows(measured: result.Result) -> list[tuple[str, str]]:
    rows = [
        ("answered", f"{measured.images_per_s:.1f} images/s, {measured.requests_per_s:.1f} requests/s"),
        ("in time", f"{measured.good_images_per_s:.1f} images/s"),
        ("requests", ", ".join(f"{count} {status}" for status, count in measured.counts.items()) or "none"),
    ]
    if measured.latency:
        now = measured.latency
        named = {"p50": now.p50_s, "p90": now.p90_s, "p99": now.p99_s, "p99.9": now.p999_s, "max": now.max_s}
        rows.append(("latency ms", "  ".join(f"{name} {value * 1e3:.1f}" for name, value in named.items())))
    if measured.server:
        stages = measured.server
        named = {"queue": stages.queue_s, "input": stages.compute_input_s, "run": stages.compute_infer_s}
        means = "  ".join(f"{name} {value * 1e3:.2f}" for name, value in named.items())
        rows.append(
            ("server ms", f"{means}  output {stages.compute_output_s * 1e3:.2f}  all {stages.total_s * 1e3:.2f}")
        )
        rows.append(("mean batch", f"{stages.mean_batch:.1f}"))
    made = measured.generator
    cost = f"{made.cpu_s_per_request * 1e6:.0f} us CPU a request, {made.busy_cores:.0%} of a core"
    rows.append(("generator", f"{cost}, p99 {made.lag_p99_s * 1e3:.1f} ms behind"))
    return rows


if __name__ == "__main__":
    load_app(prog_name="fovea load")
