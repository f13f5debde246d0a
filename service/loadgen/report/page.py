"""The whole report: of one run, of several rates, or of a search for the capacity.

Path: results → **page** → a file.
"""

import html
import pathlib
import statistics
from collections.abc import Sequence

from service import errors
from service.loadgen import capacity, result, searching
from service.loadgen.report import charts, sections, style


def write(path: pathlib.Path, runs: Sequence[result.Result], found: searching.Found | None = None) -> None:
    """Write the report of runs, or of a search, whose runs are then not needed.

    Raises:
        StartupError: the file cannot be written.
    """
    text = of_search(found) if found is not None else of_runs(runs)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise errors.StartupError(f"the report cannot be written to {path}: {error.strerror}") from error


def of_runs(runs: Sequence[result.Result]) -> str:
    """Return the page of one run, or of one after the other at several rates.

    Raises:
        ValueError: no run.
    """
    last = runs[-1]
    if len(runs) == 1:
        parts = [sections.tiles(last), sections.cautions(last), _details(last), _conditions(last)]
    else:
        parts = [_steps(runs)]
        for measured in runs:
            parts += [f"<h2>{html.escape(_loop(measured))}</h2>", sections.tiles(measured)]
            parts += [sections.cautions(measured), _details(measured)]
        parts.append(_conditions(last))
    return _page(last, "Load test", parts)


def of_search(found: searching.Found) -> str:
    """Return the page of a search for the capacity.

    Raises:
        ValueError: the search has measured nothing at all.
    """
    last = found.verification
    if last is None:
        raise ValueError("a search without a single run has no report")
    parts = [_found_tiles(found), _curve(found), _trials(found)]
    if found.trials:
        name = "The verified rate" if found.rate_per_s is not None else "The last rate tried"
        parts += [f"<h2>{name}: {html.escape(_loop(last))}</h2>", sections.tiles(last), sections.cautions(last)]
        parts.append(_details(last, found.wanted.p99_s))
    return _page(last, "Capacity", [*parts, _conditions(last)])


def _page(measured: result.Result, title: str, parts: Sequence[str]) -> str:
    model, address = measured.plan["model"], measured.plan["address"]
    name = html.escape(f"{title}: {model}")
    sub = html.escape(f"{address} · {measured.served_by or 'server unknown'} · {measured.machine.began}")
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{name}</title>'
        f"<style>{style.CSS}</style></head><body><h1>{name}</h1><p class=sub>{sub}</p>{''.join(parts)}</body></html>\n"
    )


def _details(measured: result.Result, bound_s: float | None = None) -> str:
    parts = [sections.over_time(measured), _ramp(measured), sections.distribution(measured, bound_s)]
    return "".join((*parts, sections.stages(measured), _ends(measured), _trust(measured)))


def _ends(measured: result.Result) -> str:
    if not measured.failed and not measured.sentences:
        return ""
    rows = [(status, str(count)) for status, count in measured.counts.items()]
    sentences = "".join(
        f"<li>{count} x {html.escape(sentence)}</li>"
        for sentence, count in sorted(measured.sentences.items(), key=lambda entry: -entry[1])[:10]
    )
    return f"<h3>How requests ended</h3>{sections.table(('status', 'requests'), rows)}<ul class=note>{sentences}</ul>"


def _trust(measured: result.Result) -> str:
    made, sure = measured.generator, measured.confidence
    rows = []
    if sure is not None:
        rows = [
            ("rate", f"{sure.requests_per_s:,.1f} ± {sure.plus_minus_per_s:,.1f} requests/s (95 %, {sure.parts} parts "
                     f"of {sure.part_s:g} s); second half against the first {sure.drift:+.1%}"),
            ("p99 of the parts", f"{sections.ms(sure.p99_least_s)} to {sections.ms(sure.p99_most_s)} ms; "
                                 f"{sure.beyond_p99} answers lie beyond the p99 of all"),
        ]  # fmt: skip
    several = f"{made.processes} processes, the busiest" if made.processes > 1 else "1 process,"
    rows.append(
        ("generator", f"{several} {made.busiest:.0%} of a core; {made.cpu_s_per_request * 1e6:.0f} µs CPU a request; "
                      f"p99 {made.lag_p99_s * 1e3:.2f} ms late")
    )  # fmt: skip
    return f"<h3>How sure</h3>{sections.facts(rows)}"


def _conditions(measured: result.Result) -> str:
    chosen, where = measured.plan, measured.machine
    load = f", load {where.load_before:.1f} before" if where.load_before is not None else ""
    way = f"{chosen['streams']} streams" if chosen["streams"] else "unary calls"
    rows = [
        ("load", _loop(measured)),
        ("requests", f"{chosen['images_per_request']} image(s) and {measured.request_bytes:,} bytes each, answers of "
                     f"{measured.answer_bytes:,} bytes, {way}"),
        ("measured", f"{measured.measured_s:.1f} s after {chosen['warmup_s']:g} s of warm-up, which is in no figure"),
        ("deadline", f"{chosen['deadline_s'] * 1e3:g} ms" if chosen["deadline_s"] else "none"),
        ("generator's machine", f"{where.processor}, {where.cores} cores{load}; {where.system}, Python {where.python}"),
        ("server's machine", "the same" if where.is_shared_with_server else "another, or not known to be the same"),
    ]  # fmt: skip
    note = (
        "<p class=note>An open loop sends at its times whatever the server does, and a latency counts from the time "
        "that a request was meant to be sent: a server that stalls is charged for all who would have come meanwhile. "
        "Latencies are counted in buckets 0.3 % wide.</p>"
    )
    return f"<h2>Conditions</h2>{sections.facts(rows)}{note}"


def _loop(measured: result.Result) -> str:
    loop = measured.plan["loop"]
    if loop["kind"] == "closed":
        return f"closed loop, {loop['concurrency']} at once"
    ramp = loop["ramp"]
    to = f" to {ramp['to_per_s']:g} in {ramp['within_s']:g} s" if ramp else ""
    return f"open loop, {loop['rate_per_s']:.4g}{to} requests/s, {loop['arrivals']} arrivals"


def _ramp(measured: result.Result) -> str:
    """Latency over the rate of a ramp: where it bends is the knee, roughly."""
    if not measured.plan["loop"].get("ramp"):
        return ""
    windows = [window for window in measured.windows if window.offered_per_s is not None]
    rates = [window.offered_per_s or 0.0 for window in windows]
    p50s, p99s = ([value and value * 1e3 for value in values] for values in
                  ([one.p50_s for one in windows], [one.p99_s for one in windows]))  # fmt: skip
    y = charts.y_scale([value for value in (*p50s, *p99s) if value])
    frame = charts.Frame(charts.x_scale(min(rates), max(rates)), y, "requests / s meant to be sent", "latency, ms")
    several = [charts.Line("median", "blue", rates, p50s), charts.Line("p99", "orange", rates, p99s)]
    note = "While the rate goes up what came before is still being answered: the knee lies further left than it looks."
    return sections.figure("Latency over rate", charts.lines(frame, several), note)


def _steps(runs: Sequence[result.Result]) -> str:
    rates = [measured.plan["loop"]["rate_per_s"] for measured in runs]
    curve = [(rate, one.latency.p50_s, one.latency.p99_s) for rate, one in zip(rates, runs, strict=True) if one.latency]
    rows = [
        (f"{rate:g}", f"{one.requests_per_s:.1f}", *(sections.ms(getattr(one.latency, name, None))
         for name in ("p50_s", "p99_s", "max_s")), str(one.failed))
        for rate, one in zip(rates, runs, strict=True)
    ]  # fmt: skip
    heads = ("rate, requests/s", "answered / s", "median, ms", "p99, ms", "longest, ms", "failed")
    return _latency_over_rate(curve) + sections.table(heads, rows)


def _found_tiles(found: searching.Found) -> str:
    bound = f"p99 ≤ {found.wanted.p99_s * 1e3:g} ms"
    shown = []
    if found.rate_per_s is not None and found.images_per_s is not None:
        shown.append(sections.tile(f"{found.images_per_s:,.1f}", "/s", f"images with {bound}", "good"))
        share = found.rate_per_s / found.ceiling_per_s if found.ceiling_per_s else 0.0
        shown.append(sections.tile(f"{share:.0%}", "", f"of a closed loop's {found.ceiling_per_s:,.1f} requests/s"))
    else:
        shown.append(sections.tile("none", "", f"no rate verified with {bound}", "bad"))
    shown.append(sections.tile(str(len(found.trials)), "trials", f"in {found.took_s:.0f} s; {found.ended}"))
    return f'<div class="tiles">{"".join(shown)}</div>'


def _curve(found: searching.Found) -> str:
    """Latency over rate: the lines through the median of each rate's trials, each trial's p99 as a dot."""
    tried = [
        (trial, trial.p50_s, trial.p99_s)
        for trial in found.trials
        if trial.p50_s is not None and trial.p99_s is not None
    ]
    curve = []
    for rate in sorted({trial.rate_per_s for trial, _, _ in tried}):
        at_rate = [(p50_s, p99_s) for trial, p50_s, p99_s in tried if trial.rate_per_s == rate]
        p50_s, p99_s = (statistics.median(values) for values in zip(*at_rate, strict=True))
        curve.append((rate, p50_s, p99_s))
    across = (charts.Mark(f"bound {found.wanted.p99_s * 1e3:g} ms", "green", found.wanted.p99_s * 1e3),)
    upright = () if found.rate_per_s is None else (charts.Mark(f"{found.rate_per_s:.4g}/s", "green", found.rate_per_s),)
    dots = [
        charts.Dots(name, css, [
            (trial.rate_per_s, p99_s * 1e3, f"{trial.rate_per_s:.1f}/s, p99 {p99_s * 1e3:.1f} ms, {_says(trial)}")
            for trial, _, p99_s in tried if trial.is_met is is_met
        ])
        for name, css, is_met in (("trial that met the bound", "green", True), ("trial that did not", "red", False))
    ]  # fmt: skip
    note = "Lines go through the median of each rate's trials."
    return _latency_over_rate(curve, across, upright, [one for one in dots if one.places], note)


def _latency_over_rate(
    curve: Sequence[tuple[float, float, float]],
    across: Sequence[charts.Mark] = (),
    upright: Sequence[charts.Mark] = (),
    dots: Sequence[charts.Dots] = (),
    note: str = "",
) -> str:
    if not curve:
        return ""
    rates = [rate for rate, _, _ in curve]
    p50s, p99s = ([one[place] * 1e3 for one in curve] for place in (1, 2))
    others = [*(mark.value for mark in across), *(y for one in dots for _, y, _ in one.places)]
    frame = charts.Frame(
        charts.x_scale(0.0, max(rates) * 1.05), charts.y_scale([*p50s, *p99s, *others]), "requests / s", "latency, ms"
    )
    several = [
        charts.Line("median", "blue", rates, p50s, has_dots=not dots),
        charts.Line("p99", "orange", rates, p99s, has_dots=not dots),
    ]
    return sections.figure("Latency over rate", charts.lines(frame, several, across, upright, dots), note)


def _trials(found: searching.Found) -> str:
    rows = [
        (
            trial.kind, f"{trial.rate_per_s:.1f}", f"{trial.answered_per_s:.1f}", sections.ms(trial.p50_s),
            sections.ms(trial.p99_s), f"{trial.failed_share:.2%}", f"{trial.seconds:.1f}", _says(trial),
        )
        for trial in found.trials
    ]  # fmt: skip
    heads = ("trial", "rate / s", "answered / s", "median, ms", "p99, ms", "failed", "seconds", "")
    passed = capacity.verified(found.trials)
    marked = found.trials.index(passed) if passed is not None else None
    return f"<h2>All trials</h2>{sections.table(heads, rows, marked)}"


def _says(trial: capacity.Trial) -> str:
    return "met" if trial.is_met else "; ".join(trial.reasons)
