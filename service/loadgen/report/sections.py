"""The report's parts about one run: tiles, cautions, pictures, tables.

Path: result → **sections** → page.
"""

import html
from collections.abc import Sequence

from service.loadgen import findings, result
from service.loadgen.report import charts, scales

Row = Sequence[str]


def tile(value: str, unit: str, name: str, css: str = "") -> str:
    """Return a figure in large."""
    return (
        f'<div class="tile {css}"><b>{html.escape(value)} <small>{html.escape(unit)}</small></b>'
        f"<span>{html.escape(name)}</span></div>"
    )


def table(heads: Row, rows: Sequence[Row], marked: int | None = None) -> str:
    """Return a table; all columns but the first, and those without a head, hold numbers. Row `marked` stands out."""
    css = ["", *(' class="n"' if head else "" for head in heads[1:])]
    head = "".join(f"<th{one}>{html.escape(name)}</th>" for one, name in zip(css, heads, strict=True))
    body = "".join(
        f"<tr{' class=found' if number == marked else ''}>"
        + "".join(f"<td{one}>{html.escape(cell)}</td>" for one, cell in zip(css, row, strict=True))
        + "</tr>"
        for number, row in enumerate(rows)
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Return names and what they are."""
    body = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in rows)
    return f"<table>{body}</table>"


def figure(title: str, picture: str, note: str = "") -> str:
    """Return a picture with its title, and what there is to say about it."""
    said = f"<figcaption>{html.escape(note)}</figcaption>" if note else ""
    return f"<figure><h3>{html.escape(title)}</h3>{picture}{said}</figure>"


def ms(seconds: float | None) -> str:
    """Return milliseconds with three digits that count."""
    if seconds is None:
        return "-"
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def tiles(measured: result.Result) -> str:
    """Return what a run comes to in one line."""
    latency, sent = measured.latency, sum(measured.counts.values())
    shown = [tile(f"{measured.images_per_s:,.1f}", "/s", "images answered")]
    if latency:
        shown += [tile(ms(latency.p50_s), "ms", "median"), tile(ms(latency.p99_s), "ms", "p99"),
                  tile(ms(latency.max_s), "ms", "longest")]  # fmt: skip
    failed = measured.failed
    shown.append(
        tile(f"{failed / max(sent, 1):.2%}", "", f"not answered: {failed} of {sent}", "bad" if failed else "good")
    )
    return f'<div class="tiles">{"".join(shown)}</div>'


def cautions(measured: result.Result) -> str:
    """Return what speaks against the figures."""
    said = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in findings.cautions(measured))
    return f'<div class="cautions">Before you believe it<ul>{said}</ul></div>' if said else ""


def over_time(measured: result.Result) -> str:
    """Return throughput and latency over the measured time."""
    windows = measured.windows
    if len(windows) < 2:
        return ""
    middle_s = [window.from_s + window.width_s / 2 for window in windows]
    width = f"{windows[0].width_s:g} s"
    x = charts.x_scale(0.0, measured.measured_s)
    return _rates(measured, middle_s, x, width) + _latencies(measured, middle_s, x, width)


def _rates(measured: result.Result, middle_s: Sequence[float], x: scales.Scale, width: str) -> str:
    windows = measured.windows
    rates: list[list[float | None]] = [
        [count / window.width_s for window, count in zip(windows, counts, strict=True)]
        for counts in (
            [window.intended for window in windows],
            [window.ok for window in windows],
            [window.failed for window in windows],
        )
    ]
    is_open = windows[0].offered_per_s is not None
    shown = [charts.Line("meant to be sent", "grey", middle_s, rates[0])] if is_open else []
    shown.append(charts.Line("answered with OK", "blue", middle_s, rates[1]))
    if any(rates[2]):
        shown.append(charts.Line("failed", "red", middle_s, rates[2]))
    drawn = [value for line in shown for value in line.y if value is not None]
    y = scales.from_zero(drawn, charts.HEIGHT - charts.BOTTOM, charts.TOP)
    frame = charts.Frame(x, y, "seconds", "requests / s")
    return figure("Throughput over time", charts.lines(frame, shown), f"Each point is {width}. The warm-up is cut off.")


def _latencies(measured: result.Result, middle_s: Sequence[float], x: scales.Scale, width: str) -> str:
    p50s, p99s = (
        [value * 1e3 if value is not None else None for value in values]
        for values in ([one.p50_s for one in measured.windows], [one.p99_s for one in measured.windows])
    )
    drawn = [value for value in (*p50s, *p99s) if value is not None]
    frame = charts.Frame(x, charts.y_scale(drawn), "seconds", "latency, ms")
    several = [charts.Line("median", "blue", middle_s, p50s), charts.Line("p99", "orange", middle_s, p99s)]
    note = f"Of what was answered in each {width}; a gap is a time without answers."
    return figure("Latency over time", charts.lines(frame, several), note)


def distribution(measured: result.Result, bound_s: float | None = None) -> str:
    """Return the latencies' histogram, and percentiles from both beginnings."""
    latency, sent = measured.latency, measured.from_sent
    if latency is None or sent is None:
        return ""
    ends_s = [end for low, high, _ in measured.bars for end in (low, high)]
    x = scales.around([*ends_s, bound_s] if bound_s is not None else ends_s, 0, 0)
    x = scales.Scale(x.low * 1e3, x.high * 1e3, charts.LEFT, charts.WIDTH - charts.RIGHT, is_log=True)
    y = scales.from_zero([count for _, _, count in measured.bars], charts.HEIGHT - charts.BOTTOM, charts.TOP)
    several = [
        (low * 1e3, high * 1e3, float(count), f"{ms(low)} to {ms(high)} ms: {count}")
        for low, high, count in measured.bars
    ]
    marks = [charts.Mark(name, "orange", value * 1e3) for name, value in
             (("median", latency.p50_s), ("p99", latency.p99_s))]  # fmt: skip
    if bound_s is not None:
        marks.append(charts.Mark("bound", "green", bound_s * 1e3))
    drawn = charts.bars(charts.Frame(x, y, "latency, ms (logarithmic)", "requests"), several, marks)
    names = (
        ("p50", "p50_s"),
        ("p90", "p90_s"),
        ("p99", "p99_s"),
        ("p99.9", "p999_s"),
        ("max", "max_s"),
        ("mean", "mean_s"),
    )
    rows = [(name, ms(getattr(latency, field)), ms(getattr(sent, field))) for name, field in names]
    percentiles = table(("latency", "from when it was meant, ms", "from when it was sent, ms"), rows)
    return figure("Latencies", drawn) + percentiles


def stages(measured: result.Result) -> str:
    """Return where the time goes: the client's mean, and the server's stages in it."""
    return _parts(measured) + _scraped(measured) + _batches(measured)


def _parts(measured: result.Result) -> str:
    server, latency, sent = measured.server, measured.latency, measured.from_sent
    if server is None or latency is None or sent is None:
        return ""
    known_s = server.queue_s + server.compute_input_s + server.compute_infer_s + server.compute_output_s
    parts = [
        ("generator late", "red", max(latency.mean_s - sent.mean_s, 0.0)),
        ("client, network, gRPC", "violet", max(sent.mean_s - server.total_s, 0.0)),
        ("server: input", "teal", server.compute_input_s),
        ("queue", "orange", server.queue_s),
        ("run", "blue", server.compute_infer_s),
        ("output", "green", server.compute_output_s),
        ("rest of the server", "grey", max(server.total_s - known_s, 0.0)),
    ]
    shown = [(name, css, seconds * 1e3) for name, css, seconds in parts if seconds >= 0.002 * latency.mean_s]
    note = "Means. The server's are over the whole run, warm-up included, the client's over the measured time."
    return figure("Where a request's time goes", charts.parts_of_a_whole(shown, "ms"), note)


def _scraped(measured: result.Result) -> str:
    if not measured.stages:
        return ""
    rows = [
        (stage.name, f"{stage.count}", ms(stage.mean_s), *(f"≤ {ms(one)}" if one else "beyond" for one in
         (stage.p50_at_most_s, stage.p99_at_most_s)))
        for stage in measured.stages
    ]  # fmt: skip
    heads = ("the server's /metrics", "count", "mean, ms", "median, ms", "p99, ms")
    note = '<p class="note">Percentiles are the upper edges of the server\'s buckets.</p>'
    return table(heads, rows) + note


def _batches(measured: result.Result) -> str:
    if measured.server is None or measured.server.mean_batch <= 1.0:
        return ""
    runs = sorted(measured.server.batches.items())
    x = charts.x_scale(0.5, runs[-1][0] + 0.5)
    y = scales.from_zero([count for _, count in runs], charts.HEIGHT - charts.BOTTOM, charts.TOP)
    several = [(size - 0.4, size + 0.4, float(count), f"{size}: {count} runs") for size, count in runs]
    drawn = charts.bars(charts.Frame(x, y, "images in a batch", "runs"), several)
    return figure(f"Batches, {measured.server.mean_batch:.1f} images on average", drawn)
