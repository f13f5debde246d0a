"""`fovea load`: load on a server, its progress while it runs, and a table, JSON and a report of what was measured.

Path: command line → **load_cli** → loadgen.

Exit status: 0 measured; 1 could not measure, or nothing was answered; 2 a mistake on the command line;
3 a --fail-if holds, or no rate meets the bound; 130 interrupted before anything was measured.
"""

import enum
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import rich.console
import typer

from service import access_flags, errors
from service.loadgen import capacity, conditions, generator, job, plan, run, screen
from service.loadgen.report import page

load_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_errors = rich.console.Console(stderr=True, highlight=False)

FAILED = 3
INTERRUPTED = 130


class Arrivals(enum.StrEnum):
    """How an open loop's requests come."""

    poisson = "poisson"
    constant = "constant"


def _parsed(parse: Any) -> Any:
    """A parser of an option's text, whose ValueError is a mistake on the command line."""

    def parsed(text: str) -> Any:
        try:
            return parse(str(text))
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    parsed.__name__ = parse.__name__
    return parsed


_duration = _parsed(plan.seconds)


def _span(text: str) -> float:
    """A duration that may also be zero."""
    return 0.0 if str(text) in {"0", "0.0", "0s"} else float(_duration(text))


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
        plan.Rates | None,
        typer.Option(
            parser=_parsed(plan.rates),
            metavar="RATE",
            help="Requests a second, however the server does (open loop): 200; 100,200,400 for one run each; "
            "100..2000 for a ramp.",
        ),
    ] = None,
    ramp: Annotated[
        float | None,
        typer.Option(parser=_duration, metavar="TIME", help="What a ramp takes; else all of --duration."),
    ] = None,
    arrivals: Annotated[Arrivals, typer.Option(help="How requests come at a rate.")] = Arrivals.poisson,
    find_capacity: Annotated[
        bool, typer.Option("--find-capacity", help="Find the highest rate that --p99 holds for, and verify it.")
    ] = False,
    p99: Annotated[
        float | None, typer.Option(parser=_duration, metavar="TIME", help="Bound for --find-capacity: 50ms.")
    ] = None,
    errors_max: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of failed requests that --find-capacity takes: 0.001.")
    ] = 0.0,
    budget: Annotated[
        float, typer.Option(parser=_duration, metavar="TIME", help="What --find-capacity may take.")
    ] = 120.0,
    streams: Annotated[int, typer.Option(min=0, help="Send over so many streams instead of unary calls.")] = 0,
    processes: Annotated[int, typer.Option(min=1, max=256, help="Generate in so many processes.")] = 1,
    duration: Annotated[
        float, typer.Option(parser=_duration, metavar="TIME", help="Measured time: 10s, 500ms, 2m.")
    ] = 10.0,
    warmup: Annotated[
        float, typer.Option(parser=_span, metavar="TIME", help="Before it, not measured; 0 for none.")
    ] = 1.0,
    requests: Annotated[
        int | None, typer.Option(min=1, help="End after so many requests beside the warm-up's, if that is sooner.")
    ] = None,
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
    tls_ca: access_flags.TlsCa = None,
    tls_certificate: access_flags.TlsCertificate = None,
    tls_key: access_flags.TlsKey = None,
    token_file: access_flags.TokenFile = None,
    cpu: Annotated[
        str | None, typer.Option(metavar="CORES", help="Run on this core only; processes on these in turn: 2,3.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="URL", help="The server's metrics, for its stages: http://host:8002/metrics.")
    ] = None,
    json_to: Annotated[str | None, typer.Option("--json", help="Write the figures to this file; - for stdout.")] = None,
    report: Annotated[
        pathlib.Path | None, typer.Option(help="Write a report to this HTML file; it needs nothing beside it.")
    ] = None,
    fail_if: Annotated[
        list[conditions.Condition] | None,
        typer.Option(
            parser=_parsed(conditions.parse),
            metavar="CONDITION",
            help="End with status 3 if this holds: 'p99>50ms', 'errors>0.1%', 'throughput<1000'. More than once: any.",
        ),
    ] = None,
) -> None:
    """Put load on a server and measure throughput, goodput and latency.

    Closed loop (--concurrency) asks how fast it can be; open loop (--rate) asks how long callers wait
    when they do not wait for each other: latencies count from the moment a request was meant to be sent.
    Ctrl-C ends a run early and reports what was measured.

    Status: 0 measured, 1 not measured or nothing answered, 2 wrong options, 3 a --fail-if holds or no capacity found.
    """
    access_flags.export(tls_ca, tls_certificate, tls_key, token_file)
    _check(concurrency, rate, ramp, find_capacity=find_capacity, p99=p99)
    at_rate = _ramped(rate, ramp, duration, arrivals, seed)
    chosen = plan.Plan(
        address=address, model=model, loop=_loop(concurrency, rate, streams, at_rate),
        images_per_request=batch, streams=streams, duration_s=duration, warmup_s=warmup, requests_max=requests,
        deadline_s=deadline, priority=priority, give_up_s=give_up, is_in_order=in_order,
    )  # fmt: skip
    wanted = capacity.Wanted(p99, errors_max) if find_capacity and p99 else None
    try:
        means = run.Means(_few(processes, chosen), _pin(cpu), metrics)
        asked = job.Job(rate, means, images or (), wanted, budget)
        with screen.Live(_errors) as live:
            measured = generator.run_loop(job.do(chosen, asked, live))
        _write(measured, json_to, report)
    except errors.StartupError as error:
        _errors.print(f"fovea load: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    raise typer.Exit(_status(measured, fail_if or ()))


def _check(
    concurrency: int | None, rate: plan.Rates | None, ramp: float | None, *, find_capacity: bool, p99: float | None
) -> None:
    if concurrency is not None and rate is not None:
        raise typer.BadParameter("--concurrency is a closed loop and --rate an open one; give one of the two")
    if ramp is not None and (rate is None or not rate.is_ramp):
        raise typer.BadParameter("--ramp needs two rates to go between: --rate 100..2000")
    if find_capacity != (p99 is not None):
        raise typer.BadParameter("--find-capacity and --p99 belong together: --find-capacity --p99 50ms")
    if find_capacity and (concurrency is not None or rate is not None):
        raise typer.BadParameter("--find-capacity finds the rate; leave --rate and --concurrency out")


def _ramped(rate: plan.Rates | None, ramp: float | None, duration: float, arrivals: Arrivals, seed: int) -> plan.Open:
    rates = rate or plan.Rates((1.0,))
    to = plan.Ramp(rates.per_s[1], ramp or duration) if rates.is_ramp else None
    return plan.Open(rates.per_s[0], arrivals.value, seed, ramp=to)


def _loop(
    concurrency: int | None, rate: plan.Rates | None, streams: int, at_rate: plan.Open
) -> plan.Closed | plan.Open:  # fmt: skip
    return at_rate if rate is not None else plan.Closed(concurrency or max(32, streams))


def _few(processes: int, chosen: plan.Plan) -> int:
    """The processes asked for, where there is enough to divide."""
    most = plan.processes_max(chosen)
    if processes > most:
        raise errors.StartupError(
            f"--processes {processes}: each needs a caller, stream and request of its own, and there are only {most}"
        )
    return processes


def _pin(cpu: str | None) -> tuple[int, ...]:
    """Keep to these cores; the processes that are started take them in turn."""
    if cpu is None:
        return ()
    if not hasattr(os, "sched_setaffinity"):
        raise errors.StartupError("--cpu: this system does not let a process choose its core; leave it out")
    allowed = sorted(os.sched_getaffinity(0))
    try:
        cores = tuple(int(core) for core in cpu.split(","))
        os.sched_setaffinity(0, set(cores))
    except (ValueError, OSError) as error:
        raise errors.StartupError(f"--cpu {cpu}: no such core for this process; it may use {allowed}") from error
    return cores


def _write(measured: job.Measured, json_to: str | None, report: pathlib.Path | None) -> None:
    if not measured.runs:
        return
    console = _errors if json_to == "-" else rich.console.Console(highlight=False)
    if measured.found is not None:
        screen.show_found(measured.found, console)
    elif len(measured.runs) > 1:
        screen.show_steps(measured.runs, console)
    else:
        screen.show(measured.runs[0], console)
    text = json.dumps(measured.as_json(), indent=1)  # after the table: a path may turn out not to be writable
    if json_to == "-":
        sys.stdout.write(text + "\n")
    elif json_to:
        try:
            pathlib.Path(json_to).write_text(text + "\n")
        except OSError as error:
            raise errors.StartupError(f"{json_to} cannot be written: {error.strerror}") from error
    if report is not None:
        page.write(report, measured.runs, measured.found)


def _status(measured: job.Measured, fail_if: Sequence[conditions.Condition]) -> int:
    if not measured.runs:
        _errors.print("fovea load: interrupted before anything was measured")
        return INTERRUPTED
    failed = [one.explain(made) for made in measured.runs for one in fail_if if one.holds(made)]
    for sentence in failed:
        _errors.print(f"fovea load: failed, {sentence}", markup=False, soft_wrap=True)
    if failed or (measured.found is not None and measured.found.rate_per_s is None):
        return FAILED
    if not any(one.whole.latency for one in measured.runs):
        told = max(measured.runs[-1].sentences.items(), key=lambda entry: entry[1], default=("no answer at all", 0))[0]
        _errors.print(f"fovea load: not one request was answered with OK: {told}", markup=False, soft_wrap=True)
        return 1
    return 0


if __name__ == "__main__":
    load_app(prog_name="fovea load")
