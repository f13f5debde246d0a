"""Traces with OpenTelemetry, sent to a collector over OTLP/gRPC. The one owner of that library.

Path: trace → **otlp** → collector.

The SDK's own variables hold for what is not a setting: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say who
this is, OTEL_EXPORTER_OTLP_HEADERS and OTEL_EXPORTER_OTLP_CERTIFICATE how to talk to the collector, OTEL_BSP_*
how many spans may wait for it. A thread sends them; of too many some are dropped, and no request waits.

Names of attributes: https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans, and `fovea.*`.
"""

import importlib.metadata
import logging
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence

from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter
from opentelemetry.sdk import resources
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import export, sampling
from opentelemetry.trace.propagation import tracecontext

from service.tracing import trace

log = logging.getLogger(__name__)

_LINKS_MAX = 1024
"""Of a batch to its requests; OpenTelemetry would leave out those above 128."""
_SENTENCE_MAX = 500
"""Characters of an error's sentence in a span."""
_SERVER_ERRORS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""Codes that make a server's span an error, by the conventions; the others are the client's doing."""

_CONTEXT = ("traceparent", "tracestate")


class Tracer:
    """Makes spans of what it is told. Implements trace.Tracer; `close` sends what is left.

    Mutable state: `is_on` and the ratio; touched only on the event loop. The SDK's queue, which guards itself.
    """

    def __init__(self, endpoint: str, ratio: float) -> None:
        self.is_on = True
        self.ratio = ratio
        self._exporter = trace_exporter.OTLPSpanExporter(endpoint)
        self._processor = sdk.SynchronousMultiSpanProcessor()  # type: ignore[no-untyped-call]  # theirs has no types
        self._processor.add_span_processor(export.BatchSpanProcessor(self._exporter))
        self._resource = _resource()
        self._root = _Root(ratio)
        self._requests = self._tracer(sampling.ParentBased(self._root))
        self._batches = self._tracer(sampling.ALWAYS_ON)  # if one of its requests is traced, so is a batch
        self._propagator = tracecontext.TraceContextTextMapPropagator()

    def _tracer(self, sampler: sampling.Sampler) -> otel.Tracer:
        provider = sdk.TracerProvider(
            sampler=sampler,
            resource=self._resource,
            shutdown_on_exit=False,
            active_span_processor=self._processor,
            span_limits=sdk.SpanLimits(max_links=_LINKS_MAX),
        )
        return provider.get_tracer("fovea")

    def set(self, *, is_on: bool, ratio: float) -> None:
        """See trace.Tracer."""
        self.is_on, self.ratio = is_on, ratio
        self._root.ratio = sampling.TraceIdRatioBased(ratio)

    def arrives(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """See trace.Tracer. The context goes into the task's context variables, which end with it."""
        carrier = {key: value for key, value in metadata if key in _CONTEXT and isinstance(value, str)}
        if carrier:
            otel_context.attach(self._propagator.extract(carrier))

    def begin(self, method: str, request_id: str, carrier: Mapping[str, str]) -> trace.Trace | None:
        """See trace.Tracer."""
        if not self.is_on:
            return None
        parent = self._propagator.extract(carrier) if carrier else None
        now_ns = time.time_ns()
        span = self._requests.start_span(method, parent, otel.SpanKind.SERVER, start_time=now_ns)
        if not span.is_recording():
            return None
        span.set_attributes({"rpc.system.name": "grpc", "rpc.method": method})
        if request_id:
            span.set_attribute("fovea.request.id", request_id[:_SENTENCE_MAX])
        offset_ns = now_ns - time.monotonic_ns()
        return trace.Trace(span, otel.format_trace_id(span.get_span_context().trace_id), offset_ns)

    def ran(self, traces: Sequence[trace.Trace], run: trace.Ran) -> None:
        """See trace.Tracer."""
        offset_ns = traces[0].offset_ns
        name, version = traces[0].model
        links = [otel.Link(one.span.get_span_context()) for one in traces]
        about: dict[str, str | int] = {
            "fovea.model.name": name, "fovea.model.version": version,
            "fovea.batch.samples": run.samples, "fovea.batch.rows": run.rows,
        }  # fmt: skip
        began_ns, ended_ns = _at(run.started_s, offset_ns), _at(run.ended_s, offset_ns)
        span = self._batches.start_span(
            "batch", otel_context.Context(), attributes=about, links=links, start_time=began_ns
        )
        if run.error is not None:
            span.set_attribute("error.type", type(run.error).__name__)
            span.set_status(otel.StatusCode.ERROR, str(run.error)[:_SENTENCE_MAX])
        span.end(ended_ns)
        for one in traces:
            one.runs.append((run, span.get_span_context()))

    def end(self, trace: trace.Trace, end: trace.End) -> None:
        """See trace.Tracer."""
        now_s = time.monotonic()
        stages = _Stages(self._requests, trace)
        if trace.decoded_s is not None:
            stages.add("decode", *trace.decoded_s)
        if trace.submitted_s is not None:
            stages.add("queue", trace.submitted_s, trace.runs[0][0].started_s if trace.runs else now_s)
        for run, batch in trace.runs:
            if run.error is None:
                stages.add("copy", run.started_s, run.started_s + run.gather_s)
            stages.add("run", run.ended_s - run.run_s if run.error is None else run.started_s, run.ended_s, batch)
        if end.error is None:
            stages.add("reply", now_s - end.reply_s, now_s)
        span = trace.span
        span.set_attribute("rpc.response.status_code", end.code)
        if trace.model[0]:
            span.set_attributes({"fovea.model.name": trace.model[0], "fovea.model.version": trace.model[1]})
            span.set_attribute("fovea.request.samples", trace.samples)
        if end.error is not None:
            span.set_attribute("error.type", end.code)
            if end.code in _SERVER_ERRORS:
                span.set_status(otel.StatusCode.ERROR, str(end.error)[:_SENTENCE_MAX])
        span.end(_at(now_s, trace.offset_ns))

    def current_id(self) -> str:
        """See trace.Tracer."""
        current = otel.get_current_span().get_span_context()
        return otel.format_trace_id(current.trace_id) if current.is_valid else ""

    def close(self, grace_s: float) -> None:
        """Send what is left, for so long at most. Blocks."""
        ending = threading.Thread(target=self._processor.shutdown, name="end-tracing", daemon=True)
        ending.start()
        ending.join(grace_s)
        if ending.is_alive():
            self._exporter.shutdown(timeout_millis=0)
            log.warning("the collector did not take the last spans within %g s; they are lost", grace_s)


class _Root(sampling.Sampler):
    """Decides about what has no parent. Mutable state: `ratio`, replaced as a whole."""

    def __init__(self, ratio: float) -> None:
        self.ratio = sampling.TraceIdRatioBased(ratio)

    def should_sample(self, *args: object, **named: object) -> sampling.SamplingResult:
        return self.ratio.should_sample(*args, **named)  # type: ignore[arg-type]  # handed through as they are

    def get_description(self) -> str:
        return self.ratio.get_description()


class _Stages:
    """Adds stages to a request's span."""

    def __init__(self, tracer: otel.Tracer, traced: trace.Trace) -> None:
        self._tracer = tracer
        self._offset_ns = traced.offset_ns
        self._parent = otel.set_span_in_context(traced.span, otel_context.Context())

    def add(self, name: str, began_s: float, ended_s: float, batch: otel.SpanContext | None = None) -> None:
        links = None if batch is None else [otel.Link(batch)]
        began_ns = _at(began_s, self._offset_ns)
        self._tracer.start_span(name, self._parent, links=links, start_time=began_ns).end(_at(ended_s, self._offset_ns))


def _at(monotonic_s: float, offset_ns: int) -> int:
    """The time of day, in nanoseconds since 1970."""
    return round(monotonic_s * 1e9) + offset_ns


def _resource() -> resources.Resource:
    """Who sends the spans; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over what is said here."""
    ours = {
        resources.SERVICE_NAME: "fovea",
        resources.SERVICE_VERSION: importlib.metadata.version("fovea"),
        resources.SERVICE_INSTANCE_ID: str(uuid.uuid4()),
    }
    return resources.Resource.create({**ours, **resources.OTELResourceDetector().detect().attributes})
