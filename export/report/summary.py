"""The evidence on a console: what matters of the report, in a screenful.

Path: stored → **summary** → inspect_cli.
"""

from collections.abc import Iterator

import rich.box
import rich.console
import rich.table
import rich.text

from export import evidence, report
from export.report import charts


def show(console: rich.console.Console, found: evidence.Evidence) -> None:
    """Print identity and verdict, then costs of each stage, then operators."""
    verdict = report.verdict(found)
    identity = found.identity
    console.print(f"\n[bold]{identity.name}[/bold] version {identity.version}, {identity.precision}")
    color = "green" if verdict.is_good else "red"
    console.print(rich.text.Text(verdict.sentence, style=color))
    console.print(rich.text.Text(f"{verdict.reason}\n", style="dim"))
    table = rich.table.Table(show_header=False, box=None, pad_edge=False)
    for name, words in _facts(found):
        table.add_row(rich.text.Text(name, style="dim"), rich.text.Text(words))
    console.print(table, "")
    console.print(_stages(found.costs), "")
    console.print(_operators(found.operators))
    console.print(report.fused(found.operators), "")
    for note in found.notes:
        console.print(rich.text.Text(f"note: {note}"))


def _facts(found: evidence.Evidence) -> Iterator[tuple[str, str]]:
    identity = found.identity
    yield "architecture", identity.architecture
    yield "weights", f"{identity.weights_source}, sha256 {identity.weights_sha256[:16]}…"
    yield (
        "graph",
        f"{report.memory(identity.graph_bytes)}, opset {identity.opset}, sha256 {identity.graph_sha256[:16]}…",
    )
    yield "image", identity.preprocessing
    for kind, tensors in (("in", found.inputs), ("out", found.outputs)):
        for tensor in tensors:
            yield kind, f"{tensor.name}: {tensor.datatype} {report.shape(tensor.shape)}"
    yield "providers", ", ".join(identity.providers)
    if found.is_batch_invariant is not None:
        yield "in a batch", "rows as alone, to the bit" if found.is_batch_invariant else "rows differ from alone"
    yield "activations", f"{report.memory(found.costs.activation_bytes)} at most, for one image"
    for timing in report.timings(found.latency):
        times = f", {timing.ratio:.2f} times as long" if timing.ratio != 1 else ""
        yield f"batch {timing.row.batch}", f"{timing.row.what} {charts.milliseconds(timing.row.median_s)}{times}"


def _stages(costs: evidence.Costs) -> rich.table.Table:
    has_reductions = any(stage.macs_direct > stage.macs for stage in costs.stages)
    table = rich.table.Table("stage", "output", box=rich.box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    columns = [("parameters", f"{costs.parameters:,}"), ("MACs", f"{costs.macs:,}")]
    if has_reductions:
        columns.append(("without 1x1", f"{sum(stage.macs_direct for stage in costs.stages):,}"))
    for title, total in columns:
        table.add_column(title, total, justify="right")
    for stage in costs.stages:
        numbers = [stage.parameters, stage.macs, *([stage.macs_direct] if has_reductions else [])]
        table.add_row(stage.name, report.shape(stage.shape), *(f"{number:,}" for number in numbers))
    return table


def _operators(found: evidence.Operators) -> rich.table.Table:
    table = rich.table.Table("operator", box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for title in ("traced", "exported", "as run"):
        table.add_column(title, justify="right")
    for name, *counts in report.operators(found):
        table.add_row(name, *(str(count or "") for count in counts))
    return table
