"""A collector of traces: a real OTLP/gRPC receiver in the test's process; and a server that sends to it."""

import contextlib
import pathlib
import threading
from collections.abc import Callable, Iterator
from concurrent import futures

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.conftest import Exported, RunningServer, running

Span = trace_pb2.Span
ARRIVE_WITHIN_S = 60.0
FAST = {"OTEL_BSP_SCHEDULE_DELAY": "50"}
"""Spans are sent every 50 ms instead of every 5 s."""


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps all spans that it is sent."""

    def __init__(self) -> None:
        self.address = ""
        self.resources: list[dict[str, object]] = []
        self._spans: list[Span] = []
        self._news = threading.Condition()

    def Export(self, request, context):  # noqa: N802 - OTLP's name
        with self._news:
            for resource in request.resource_spans:
                self.resources.append(attributes(resource.resource))
                for scope in resource.scope_spans:
                    self._spans.extend(scope.spans)
            self._news.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self) -> list[Span]:
        with self._news:
            return list(self._spans)

    def wait_for(self, is_enough: Callable[[list[Span]], bool]) -> list[Span]:
        """What has come as soon as it is enough."""
        with self._news:
            if not self._news.wait_for(lambda: is_enough(self._spans), ARRIVE_WITHIN_S):
                raise AssertionError(f"not the spans waited for: {[span.name for span in self._spans]}")
            return list(self._spans)


def attributes(holder) -> dict[str, object]:
    """Attributes of a span or a resource."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in holder.attributes}


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    collector = Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.address = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def tracing(exported: Exported, log_path: pathlib.Path) -> Iterator[tuple[RunningServer, Collector]]:
    """A server that traces what its callers trace, and nothing else."""
    with pytest.MonkeyPatch.context() as patch, collecting() as collector:
        for name, value in FAST.items():
            patch.setenv(name, value)
        flags = ("--trace-endpoint", collector.address, "--trace-ratio", "0", "--log-level", "debug")
        with running(exported.repository, log_path, *flags) as server:
            yield server, collector
