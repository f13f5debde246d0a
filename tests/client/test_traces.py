"""Calls belong to their caller's trace: as the spans of a real server show in a collector, and as they are sent."""

import asyncio
import concurrent.futures
import contextlib
import itertools
import pathlib
import threading
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
from opentelemetry import trace as otel
from opentelemetry.sdk import trace as sdk

from service import client
from tests import collector as collecting
from tests.client import scripted
from tests.client.scripted import Context, Request, Response
from tests.collector import Collector, Span
from tests.conftest import Exported, RunningServer

UNARY, STREAM = "inference.GRPCInferenceService/ModelInfer", "inference.GRPCInferenceService/ModelStreamInfer"

Traced = tuple[RunningServer, Collector]

both = pytest.mark.parametrize(("streams", "method"), [(True, STREAM), (False, UNARY)], ids=["streams", "unary"])
spans = sdk.TracerProvider(shutdown_on_exit=False).get_tracer("tests")


@pytest.fixture(scope="module")
def traced(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    with collecting.tracing(exported, tmp_path_factory.mktemp("traced") / "log") as started:
        yield started


@contextlib.contextmanager
def span() -> Iterator[otel.SpanContext]:
    """A current span of the caller's."""
    with spans.start_as_current_span("caller") as current:
        yield current.get_span_context()


def header_of(caller: otel.SpanContext) -> str:
    return f"00-{caller.trace_id:032x}-{caller.span_id:016x}-{caller.trace_flags:02x}"


def children(collector: Collector, *parents: otel.SpanContext) -> list[Span]:
    """The server's spans of these traces, one of each, in this order."""

    def found(sent: list[Span], parent: otel.SpanContext) -> list[Span]:
        trace_id = otel.format_trace_id(parent.trace_id)
        return [one for one in sent if one.kind == Span.SPAN_KIND_SERVER and one.trace_id.hex() == trace_id]

    sent = collector.wait_for(lambda sent: all(found(sent, parent) for parent in parents))
    of_each = [found(sent, parent) for parent in parents]
    assert [len(some) for some in of_each] == [1] * len(parents)
    return [some[0] for some in of_each]


def is_child(one: Span, parent: otel.SpanContext) -> bool:
    return one.parent_span_id.hex() == otel.format_span_id(parent.span_id)


@both
async def test_each_call_is_a_child_of_its_callers_span(
    traced: Traced, pngs: list[bytes], streams: bool, method: str
) -> None:
    """Many at once share a stream, which the first call opened; what has no span stays out of their traces."""
    server, collector = traced

    async def classify(png: bytes) -> otel.SpanContext:
        with span() as caller:
            await served.classify(png, "lenet5")
        return caller

    async with client.Client(server.address, streams=streams) as served:
        first = await classify(pngs[0])
        callers = await asyncio.gather(*[classify(png) for png in pngs[1:17]])
        await served.classify(pngs[17], "lenet5")
        last = await classify(pngs[18])
    everyone = [first, *callers, last]
    found = children(collector, *everyone)
    assert all(map(is_child, found, everyone))
    assert {one.name for one in found} == {method}


@both
def test_the_context_comes_with_calls_from_threads(
    traced: Traced, pngs: list[bytes], streams: bool, method: str
) -> None:
    server, collector = traced
    together = threading.Barrier(8)

    def classify(png: bytes) -> otel.SpanContext:
        with span() as caller:
            together.wait(60)
            served.classify(png, "lenet5")
        return caller

    with (
        client.SyncClient(server.address, streams=streams) as served,
        concurrent.futures.ThreadPoolExecutor(8) as threads,
    ):
        callers = list(threads.map(classify, pngs[:8]))
    found = children(collector, *callers)
    assert all(map(is_child, found, callers))
    assert {one.name for one in found} == {method}


def test_the_files_of_a_folder_are_children_of_one_span(
    traced: Traced, pngs: list[bytes], tmp_path: pathlib.Path
) -> None:
    server, collector = traced
    for number, png in enumerate(pngs[:5]):
        (tmp_path / f"{number}.png").write_bytes(png)
    with client.SyncClient(server.address) as served, span() as caller:
        assert len(list(served.classify_folder(tmp_path, "lenet5", in_flight=2))) == 5
    trace_id = otel.format_trace_id(caller.trace_id)

    def found(sent: list[Span]) -> list[Span]:
        return [one for one in sent if one.kind == Span.SPAN_KIND_SERVER and one.trace_id.hex() == trace_id]

    assert all(is_child(one, caller) for one in found(collector.wait_for(lambda sent: len(found(sent)) == 5)))


class Seen:
    """Remembers the trace contexts that come: of calls in their metadata, of messages in their parameters."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, str]] = []
        self.parameters: list[dict[str, str]] = []

    def call(self, context: Context) -> None:
        told = dict(context.invocation_metadata() or ())
        self.metadata.append({name: str(told[name]) for name in ("traceparent", "tracestate") if name in told})

    def message(self, request: Request) -> None:
        told = {name: one.string_param for name, one in request.parameters.items() if name != "timeout"}
        self.parameters.append(told)

    async def infer(self, request: Request, context: Context) -> Response:
        self.call(context)
        self.message(request)
        return scripted.echoed(request)

    async def stream(self, requests: AsyncIterator[Request], context: Context) -> None:
        self.call(context)
        async for request in requests:
            self.message(request)
            await context.write(scripted.StreamResponse(infer_response=scripted.echoed(request)))


class Unable(Seen):
    """Fails what it is asked once, by an answer that says UNAVAILABLE, or by ending the stream with INTERNAL."""

    def __init__(self, *, ends: bool) -> None:
        super().__init__()
        self._ends = ends

    async def infer(self, request: Request, context: Context) -> Response:
        self.call(context)
        return await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")

    async def stream(self, requests: AsyncIterator[Request], context: Context) -> None:
        async for request in requests:
            self.message(request)
            if self._ends:
                await context.abort(grpc.StatusCode.INTERNAL, "a fault")
            await context.write(scripted.refusal(request, "not now", grpc_status="UNAVAILABLE"))


@pytest.mark.parametrize(
    ("streams", "ends", "method"),
    [(True, False, STREAM), (True, True, UNARY), (False, False, UNARY)],
    ids=["stream to stream", "stream to unary", "unary to unary"],
)
async def test_a_call_that_is_sent_again_keeps_its_context(
    traced: Traced, pngs: list[bytes], streams: bool, ends: bool, method: str
) -> None:
    """The first address fails the call, the second, a real server, answers it."""
    server, collector = traced
    unable = Unable(ends=ends)
    async with client.Client(server.address) as asked:
        known = await asked.signature("lenet5")
    async with (
        scripted.serving(unable.infer, unable.stream) as other,
        client.Client(f"{other.address},{server.address}", streams=streams) as served,
    ):
        with span() as caller:
            await served.infer(client.image_request(known, pngs[:1]))
    (child,) = children(collector, caller)
    assert is_child(child, caller)
    assert child.name == method
    assert [one["traceparent"] for one in itertools.chain(unable.parameters, unable.metadata)] == [header_of(caller)]


@contextlib.contextmanager
def remote(flags: otel.TraceFlags) -> Iterator[str]:
    """A current span that came from elsewhere, with a trace state; its header."""
    state = otel.TraceState([("vendor", "1"), ("other", "a b")])
    context = otel.SpanContext(0xA1, 0xB2, is_remote=True, trace_flags=flags, trace_state=state)
    with otel.use_span(otel.NonRecordingSpan(context)):
        yield header_of(context)


@pytest.mark.parametrize("flags", [otel.TraceFlags.SAMPLED, otel.TraceFlags.DEFAULT], ids=["sampled", "not sampled"])
async def test_the_context_is_sent_with_its_state_and_also_if_it_is_not_sampled(flags: int) -> None:
    """A call says it in metadata, a message of a shared stream in parameters, a stream of one's own in metadata."""
    seen = Seen()

    async def messages() -> AsyncIterator[Request]:
        yield Request(id="own")

    async with (
        scripted.serving(seen.infer, seen.stream) as server,
        client.Client(server.address, token="secret") as streaming,
        client.Client(server.address, token="secret", streams=False) as unary,
    ):
        with remote(otel.TraceFlags(flags)) as header:
            await streaming.infer(Request())
            await unary.infer(Request())
            assert [answer.infer_response.id async for answer in streaming.stream(messages())] == ["own"]
    told = {"traceparent": header, "tracestate": "vendor=1,other=a b"}
    assert seen.parameters == [told, {}, {}]
    assert seen.metadata == [{}, told, told]


@both
async def test_a_context_of_the_requests_own_stays(
    traced: Traced, pngs: list[bytes], streams: bool, method: str
) -> None:
    server, collector = traced
    own = spans.start_span("own").get_span_context()
    async with client.Client(server.address, streams=streams) as served:
        request = client.image_request(await served.signature("lenet5"), pngs[:1])
        request.parameters["traceparent"].string_param = header_of(own)
        with span():
            await served.infer(request)
    (child,) = children(collector, own)
    assert is_child(child, own)
    assert child.name == method


async def test_without_a_span_nothing_is_sent() -> None:
    seen = Seen()
    async with scripted.serving(seen.infer, seen.stream) as server:
        for streams in (True, False):
            async with client.Client(server.address, streams=streams) as served:
                await served.infer(Request())
    assert seen.parameters == seen.metadata == [{}, {}]
