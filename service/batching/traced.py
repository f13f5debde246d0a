"""Tells the tracer of a run, if there is one and any of the requests in the run is traced.

Path: batcher → **traced** → tracing.
"""

from service.batching import under_way
from service.tracing import trace


def note(
    tracer: trace.Tracer | None, run: under_way.Run, rows: int, ended_s: float, times_s: tuple[float, float]
) -> None:
    """Note a run that has ended with its traced requests. `times_s`: gathering, running."""
    if tracer is not None and (traces := _traces(run)):
        tracer.ran(traces, trace.Ran(run.started_s, ended_s, *times_s, run.samples, rows))


def note_failure(tracer: trace.Tracer | None, run: under_way.Run, ended_s: float, error: Exception) -> None:
    """Note a run that has raised with its traced requests."""
    if tracer is not None and (traces := _traces(run)):
        tracer.ran(traces, trace.Ran(run.started_s, ended_s, 0.0, 0.0, run.samples, run.samples, error))


def _traces(run: under_way.Run) -> list[trace.Trace]:
    return [part.place.trace for part in run.parts if part.place.trace is not None]
