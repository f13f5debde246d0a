"""The trace that a call belongs to, as W3C's trace context says it: `traceparent`, and `tracestate` if there is one.

Path: the caller's context variables → **context** → endpoint (metadata of a call), messages (parameters in a stream).

https://www.w3.org/TR/trace-context
"""

import sys

Context = tuple[tuple[str, str], ...]
"""Names and values, as gRPC takes metadata; empty: the call belongs to no trace."""

PARENT = "traceparent"

_API = "opentelemetry.trace"


def current() -> Context:
    """Return the context of OpenTelemetry's current span, sampled or not; empty without one.

    A program that has not imported OpenTelemetry has no current span, so nothing is imported for it.
    """
    if sys.modules.get(_API) is None:
        return ()
    from opentelemetry import trace  # noqa: PLC0415 - it is there already; this waits for a thread that imports it

    if not trace.get_current_span().get_span_context().is_valid:
        return ()
    from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415 - only for those who trace

    told: dict[str, str] = {}
    tracecontext.TraceContextTextMapPropagator().inject(told)
    return tuple(told.items())
