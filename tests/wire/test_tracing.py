"""Traces of requests, as a collector receives them from a real server."""

import asyncio
import os
import pathlib
import subprocess
import time
from collections.abc import Iterator

import grpc
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from protos import images_pb2, images_pb2_grpc, inference_pb2, inference_pb2_grpc
from service import client
from tests import collector as collecting
from tests.collector import Collector, Span, attributes
from tests.conftest import FOVEA, Exported, RunningServer, running

UNARY, STREAM = "inference.GRPCInferenceService/ModelInfer", "inference.GRPCInferenceService/ModelStreamInfer"
STAGES = ["decode", "queue", "copy", "run", "reply"]
SAMPLED, NOT_SAMPLED = "01", "00"

Traced = tuple[RunningServer, Collector]


@pytest.fixture(scope="module")
def traced(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    with collecting.tracing(exported, tmp_path_factory.mktemp("traced") / "log") as both:
        yield both


def parent(number: int, flags: str = SAMPLED) -> tuple[str, str]:
    """A trace id of one's own, and the header that says it."""
    trace_id = f"{number:032x}"
    return trace_id, f"00-{trace_id}-{number + 1:016x}-{flags}"


def request_of(pngs: list[bytes], request_id: str = "") -> inference_pb2.ModelInferRequest:
    request = inference_pb2.ModelInferRequest(model_name="lenet5", id=request_id)
    request.inputs.add(name="image", datatype="BYTES", shape=[len(pngs)])
    for png in pngs:
        request.inputs[0].contents.bytes_contents.append(png)
    return request


def of_trace(spans: list[Span], trace_id: str) -> list[Span]:
    return [span for span in spans if span.trace_id.hex() == trace_id]


def roots(spans: list[Span], trace_id: str) -> list[Span]:
    return [span for span in of_trace(spans, trace_id) if span.kind == Span.SPAN_KIND_SERVER]


async def unary(server: RunningServer, request: inference_pb2.ModelInferRequest, header: str | None) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        await stub.ModelInfer(request, metadata=(("traceparent", header),) if header else ())


async def test_a_request_has_a_span_with_one_for_each_stage_in_order(traced: Traced, pngs: list[bytes]) -> None:
    server, collector = traced
    trace_id, header = parent(0xA1)
    before_ns = time.time_ns()
    await unary(server, request_of(pngs[:1], "mine"), header)
    after_ns = time.time_ns()
    spans = of_trace(collector.wait_for(lambda spans: bool(roots(spans, trace_id))), trace_id)
    (root,) = roots(spans, trace_id)
    assert root.name == UNARY
    assert root.parent_span_id.hex() == f"{0xA2:016x}"
    assert before_ns <= root.start_time_unix_nano <= root.end_time_unix_nano <= after_ns
    told = attributes(root)
    assert told["fovea.request.id"] == "mine"
    assert (told["fovea.model.name"], told["fovea.model.version"], told["fovea.request.samples"]) == ("lenet5", "1", 1)
    assert (told["rpc.system.name"], told["rpc.method"], told["rpc.response.status_code"]) == ("grpc", UNARY, "OK")
    children = sorted((span for span in spans if span is not root), key=lambda span: span.start_time_unix_nano)
    assert [child.name for child in children] == STAGES
    assert {child.parent_span_id for child in children} == {root.span_id}
    ends_ns = [root.start_time_unix_nano, *(child.end_time_unix_nano for child in children)]
    jitter_ns = 2_000  # of two readings of a clock; floats of seconds have a tenth of it
    for ended_ns, child in zip(ends_ns, children, strict=False):
        assert ended_ns - jitter_ns <= child.start_time_unix_nano <= child.end_time_unix_nano
    assert ends_ns[-1] <= root.end_time_unix_nano + jitter_ns


async def test_a_batch_is_linked_to_its_requests_and_they_to_it(traced: Traced, pngs: list[bytes]) -> None:
    server, collector = traced
    ids = [parent(0xB000 + number) for number in range(32)]
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        calls = [stub.ModelInfer(request_of(pngs[:1]), metadata=(("traceparent", header),)) for _, header in ids]
        await asyncio.gather(*calls)
    wanted = {trace_id for trace_id, _ in ids}
    spans = collector.wait_for(lambda spans: sum(bool(roots(spans, one)) for one in wanted) == len(wanted))
    requests = {span.span_id: span for one in wanted for span in roots(spans, one)}
    batches = [span for span in spans if span.name == "batch" and {link.span_id for link in span.links} & set(requests)]
    assert sorted(link.span_id for batch in batches for link in batch.links) == sorted(requests)
    assert len(batches) < len(ids), "some have shared a batch"
    for batch in batches:
        told = attributes(batch)
        assert told["fovea.batch.samples"] == len(batch.links) <= told["fovea.batch.rows"]
        assert (told["fovea.model.name"], batch.parent_span_id) == ("lenet5", b"")
        assert batch.trace_id.hex() not in wanted
    runs = [span for one in wanted for span in of_trace(spans, one) if span.name == "run"]
    of_batch = {batch.span_id: {link.span_id for link in batch.links} for batch in batches}
    assert len(runs) == len(ids)
    for run in runs:
        (link,) = run.links
        assert run.parent_span_id in of_batch[link.span_id]


async def test_a_request_larger_than_a_batch_has_a_run_for_each_part(traced: Traced, pngs: list[bytes]) -> None:
    server, collector = traced
    trace_id, header = parent(0xC1)
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        answer = await stub.ModelConfig(inference_pb2.ModelConfigRequest(name="lenet5"))
    largest = answer.config.max_batch_size
    await unary(server, request_of(pngs[: largest + 1]), header)
    spans = of_trace(collector.wait_for(lambda spans: bool(roots(spans, trace_id))), trace_id)
    runs = [span for span in spans if span.name == "run"]
    assert len(runs) >= 2
    assert len({run.links[0].span_id for run in runs}) == len(runs)


async def test_messages_of_a_stream_have_their_own_context_or_the_streams(traced: Traced, pngs: list[bytes]) -> None:
    server, collector = traced
    of_stream, stream_header = parent(0xD1)
    of_message, message_header = parent(0xD101)

    async def messages():
        yield request_of(pngs[:1], "first")
        second = request_of(pngs[1:2], "second")
        second.parameters["traceparent"].string_param = message_header
        second.parameters["tracestate"].string_param = "vendor=1"
        yield second

    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        call = stub.ModelStreamInfer(messages(), metadata=(("traceparent", stream_header),))
        assert [answer.error_message async for answer in call] == ["", ""]
    spans = collector.wait_for(lambda spans: bool(roots(spans, of_stream) and roots(spans, of_message)))
    (first,), (second,) = roots(spans, of_stream), roots(spans, of_message)
    assert (first.name, attributes(first)["fovea.request.id"]) == (STREAM, "first")
    assert (second.name, attributes(second)["fovea.request.id"], second.trace_state) == (STREAM, "second", "vendor=1")


async def test_what_comes_without_a_context_or_unsampled_or_malformed_is_not_traced(
    traced: Traced, pngs: list[bytes]
) -> None:
    """The calls before in the same connection must leave nothing behind either."""
    server, collector = traced
    last_id, last = parent(0xE001)
    dropped_id, dropped = parent(0xE101, NOT_SAMPLED)
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        for number, header in enumerate((last, None, dropped, "00-nonsense", "", last)):
            metadata = () if header is None else (("traceparent", header),)
            await stub.ModelInfer(request_of(pngs[:1], f"quiet-{number}"), metadata=metadata)
    spans = collector.wait_for(lambda spans: len(roots(spans, last_id)) == 2)
    assert of_trace(spans, dropped_id) == []
    quiet = [attributes(span).get("fovea.request.id", "") for span in spans]
    assert sorted(name for name in quiet if str(name).startswith("quiet")) == ["quiet-0", "quiet-5"]


async def test_a_context_of_another_kind_is_refused(traced: Traced, pngs: list[bytes]) -> None:
    request = request_of(pngs[:1])
    request.parameters["traceparent"].int64_param = 7
    with pytest.raises(grpc.aio.AioRpcError, match="parameter 'traceparent' must be a string"):
        await unary(traced[0], request, None)


async def test_failures_end_their_span_with_the_code(traced: Traced, pngs: list[bytes]) -> None:
    server, collector = traced
    bad_image, header = parent(0xF1)
    with pytest.raises(grpc.aio.AioRpcError):
        await unary(server, request_of([pngs[0], b"no image"]), header)
    unknown, other = parent(0xF101)
    request = request_of(pngs[:1])
    request.model_name = "nobody"
    with pytest.raises(grpc.aio.AioRpcError):
        await unary(server, request, other)
    spans = collector.wait_for(lambda spans: bool(roots(spans, bad_image) and roots(spans, unknown)))
    for trace_id, code in ((bad_image, "INVALID_ARGUMENT"), (unknown, "NOT_FOUND")):
        (root,) = roots(spans, trace_id)
        told = attributes(root)
        assert (told["rpc.response.status_code"], told["error.type"]) == (code, code)
        assert root.status.code == 0, "the client's mistakes are no errors of the server's"
        assert not {span.name for span in of_trace(spans, trace_id)} & {"run", "reply"}
    assert f"trace_id='{bad_image}'" in server.log()


def test_images_of_the_image_service_are_traced(traced: Traced, pngs: list[bytes]) -> None:
    server, collector = traced
    trace_id, header = parent(0x1A1)
    with grpc.insecure_channel(server.address) as channel:
        stub = images_pb2_grpc.ImageServiceStub(channel)
        asked = images_pb2.ClassifyRequest(image=images_pb2.Image(file=pngs[0]), model="lenet5")
        stub.Classify(asked, metadata=(("traceparent", header),))
        list(
            stub.ClassifyStream(
                iter([images_pb2.ClassifyStreamRequest(id="7", request=asked)]), metadata=(("traceparent", header),)
            )
        )
    spans = of_trace(collector.wait_for(lambda spans: len(roots(spans, trace_id)) == 2), trace_id)
    assert {span.name for span in roots(spans, trace_id)} == {
        "fovea.v1.ImageService/Classify",
        "fovea.v1.ImageService/ClassifyStream",
    }
    assert sorted(span.name for span in spans if span.kind != Span.SPAN_KIND_SERVER) == sorted(STAGES * 2)


def test_the_resource_says_who_and_the_environment_may_say_otherwise(traced: Traced, pngs: list[bytes]) -> None:
    server, collector = traced
    trace_id, header = parent(0x2B1)
    asyncio.run(unary(server, request_of(pngs[:1]), header))
    collector.wait_for(lambda spans: bool(roots(spans, trace_id)))
    who = collector.resources[0]
    assert who["service.name"] == "fovea"
    assert who["service.version"]
    assert who["service.instance.id"]


def test_the_setting_of_the_rate_is_told_and_changed_by_tritons_client(traced: Traced, pngs: list[bytes]) -> None:
    server, collector = traced

    def named() -> list[str]:
        return [str(attributes(span).get("fovea.request.id", "")) for span in collector.spans()]

    with triton.InferenceServerClient(server.address) as stock:
        told = stock.get_trace_settings(as_json=True)["settings"]
        assert {name: told[name]["value"] for name in ("trace_level", "trace_rate", "trace_mode")} == {
            "trace_level": ["TIMESTAMPS"],
            "trace_rate": ["0"],
            "trace_mode": ["opentelemetry"],
        }
        changed = stock.update_trace_settings(settings={"trace_rate": "1"}, as_json=True)["settings"]
        assert changed["trace_rate"]["value"] == ["1"]
        asyncio.run(unary(server, request_of(pngs[:1], "each"), None))
        collector.wait_for(lambda spans: "each" in named())
        stock.update_trace_settings(settings={"trace_level": ["OFF"]})
        asyncio.run(unary(server, request_of(pngs[:1], "off"), parent(0x3C1)[1]))
        back = stock.update_trace_settings(settings={"trace_level": None, "trace_rate": None}, as_json=True)["settings"]
        assert (back["trace_level"]["value"], back["trace_rate"]["value"]) == (["TIMESTAMPS"], ["0"])
        last_id, last = parent(0x3D1)
        asyncio.run(unary(server, request_of(pngs[:1], "last"), last))
        collector.wait_for(lambda spans: bool(roots(spans, last_id)))
        assert "off" not in named()
        for settings, sentence in (
            ({"trace_rate": "-1"}, "must be one whole number"),
            ({"trace_level": ["TENSORS"]}, "only TIMESTAMPS or OFF"),
            ({"trace_count": "5"}, "cannot be changed; it is '-1'"),
            ({"trace_rat": "5"}, "did you mean 'trace_rate'"),
        ):
            with pytest.raises(InferenceServerException, match=sentence):
                stock.update_trace_settings(settings=settings)
        with pytest.raises(InferenceServerException, match="leave model_name out"):
            stock.update_trace_settings(model_name="lenet5", settings={"trace_rate": "5"})


async def test_without_a_context_the_ratio_decides_and_the_last_spans_are_sent_at_the_end(
    exported: Exported, tmp_path: pathlib.Path, pngs: list[bytes]
) -> None:
    """400 requests at 0.25: 100 are expected; fewer than 50 or more than 150 come once in 10^7."""
    with collecting.collecting() as collector:
        flags = ("--trace-endpoint", collector.address, "--trace-ratio", "0.25")
        with running(exported.repository, tmp_path / "log", *flags) as server:
            async with grpc.aio.insecure_channel(server.address) as channel:
                stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
                for _ in range(4):
                    await asyncio.gather(*[stub.ModelInfer(request_of(pngs[:1])) for _ in range(100)])
        spans = collector.spans()
    requests = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    assert 50 <= len(requests) <= 150
    linked = [link.span_id for span in spans if span.name == "batch" for link in span.links]
    assert sorted(linked) == sorted(span.span_id for span in requests)


def test_a_collector_that_is_not_there_harms_nobody(
    exported: Exported, tmp_path: pathlib.Path, pngs: list[bytes]
) -> None:
    flags = ("--trace-endpoint", "http://127.0.0.1:9", "--trace-ratio", "1")
    with running(exported.repository, tmp_path / "log", *flags) as server, client.SyncClient(server.address) as served:
        assert served.classify(pngs[0], "lenet5")
    assert server.process.returncode == 0
    assert "the collector did not take the last spans within 2 s" in server.log()


def serve(repository: pathlib.Path, *flags: str, path: str = "") -> "subprocess.CompletedProcess[str]":
    command = [FOVEA, "serve", "--repository", str(repository), "--grpc-port", "0", "--metrics-port", "0", *flags]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [path, os.environ.get("PYTHONPATH")]))}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_tracing_without_the_extra_is_an_error_at_the_start(exported: Exported, tmp_path: pathlib.Path) -> None:
    """A package that cannot be imported stands before the real one."""
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry/__init__.py").write_text("raise ImportError(\"No module named 'opentelemetry'\")\n")
    ended = serve(exported.repository, "--trace-endpoint", "http://127.0.0.1:4317", path=str(tmp_path))
    assert ended.returncode == 1
    assert "--trace-endpoint needs OpenTelemetry" in ended.stderr
    assert "pip install 'fovea[tracing]'" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--trace-endpoint", "localhost:4317"), "--trace-endpoint is 'localhost:4317': "),
        (("--trace-endpoint", "http://a:4318/v1/traces"), "http://a:4318/v1/traces': "),
        (("--trace-ratio", "1.5"), "--trace-ratio is 1.5: "),
    ],
)
def test_settings_that_cannot_be_are_refused(exported: Exported, flags: tuple[str, str], sentence: str) -> None:
    ended = serve(exported.repository, *flags)
    assert (ended.returncode, sentence in ended.stderr) == (1, True), ended.stderr


def test_a_server_that_does_not_trace_does_not_load_opentelemetry(
    exported: Exported, tmp_path: pathlib.Path, pngs: list[bytes]
) -> None:
    """Seen from outside: it starts although OpenTelemetry cannot be imported."""
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry/__init__.py").write_text("raise ImportError('not here')\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])))
        with running(exported.repository, tmp_path / "log") as server, client.SyncClient(server.address) as served:
            assert served.classify(pngs[0], "lenet5")
