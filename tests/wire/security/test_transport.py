"""What connections may do, each limit met by a real client."""

import asyncio
import collections
import contextlib
import http.client as client_http
import pathlib
import socket
import time

import grpc
import pytest

from protos import inference_pb2, inference_pb2_grpc
from service import client
from service.wire import http
from service.wire.security import guard
from tests.conftest import RunningServer, running
from tests.wire.security import between
from tests.wire.security.conftest import QUICK, asked, request

Code = grpc.StatusCode
OWN = ("grpc.use_local_subchannel_pool", 1)
EAGER = (
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)


class Stream:
    """A stream of a stock client, kept open by hand."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.call = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=inference_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=inference_pb2.ModelStreamInferResponse.FromString,
        )()

    async def ask(self) -> None:
        await self.call.write(request())
        answer = await self.call.read()
        assert not answer.error_message


@pytest.mark.slow
async def test_a_client_that_pings_is_let_alone_until_it_pings_too_often(
    plain: RunningServer, repository: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A ping a second: gRPC's own default, and ours of one in 10 s, cut that off; a server that allows it does not."""
    async with grpc.aio.insecure_channel(plain.address, EAGER) as channel:
        stream = Stream(channel)
        await stream.ask()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(stream.call.read(), 60)
        assert (caught.value.code(), caught.value.details()) == (Code.UNAVAILABLE, "Too many pings")
    with running(repository, tmp_path / "log", *QUICK, "--ping-pause-min-s", "0.2") as server:
        async with grpc.aio.insecure_channel(server.address, EAGER) as channel:
            stream = Stream(channel)
            await stream.ask()
            with pytest.raises(TimeoutError):  # nothing comes, not even an end; strict servers end it after 5 s
                await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(stream.call.read())), 8)
            assert not stream.call.done()
            stream.call.cancel()


async def test_a_client_that_vanished_is_found_out(repository: pathlib.Path, tmp_path: pathlib.Path) -> None:
    flags = ("--keepalive-s", "1", "--keepalive-timeout-s", "1")
    with running(repository, tmp_path / "log", *QUICK, *flags) as server:
        async with between.to(server.address) as way, grpc.aio.insecure_channel(way.address) as channel:
            stream = Stream(channel)
            await stream.ask()
            way.is_silent = True
            await asyncio.wait_for(way.is_cut.wait(), 30)  # gRPC's own timeout would be 60 s more
            stream.call.cancel()


async def test_one_connection_has_so_many_calls_open_and_the_next_waits(
    repository: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with running(repository, tmp_path / "log", *QUICK, "--connection-calls-max", "2") as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            await channel.channel_ready()
            open_streams = [Stream(channel) for _ in range(2)]
            for stream in open_streams:
                await stream.ask()
            third = asyncio.ensure_future(Stream(channel).ask())
            await open_streams[0].ask()
            await open_streams[1].ask()
            assert not third.done()
            open_streams[0].call.cancel()
            await asyncio.wait_for(third, 60)
            open_streams[1].call.cancel()


async def test_of_a_burst_that_nobody_has_heard_of_some_is_cancelled_and_the_rest_answered(
    repository: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    async def burst(address: str) -> collections.Counter[grpc.StatusCode]:
        async with grpc.aio.insecure_channel(address) as channel:
            await channel.channel_ready()
            stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
            calls = [stub.ModelInfer(request(), timeout=60) for _ in range(500)]
            return collections.Counter([await call.code() for call in calls])

    with running(repository, tmp_path / "log", *QUICK) as server:
        assert await burst(server.address) == {Code.OK: 500}
    with running(repository, tmp_path / "log", *QUICK, "--unheard-calls-max", "4") as server:
        codes = await burst(server.address)
        assert set(codes) == {Code.OK, Code.CANCELLED}
        assert codes[Code.OK] >= 4


def test_more_connections_than_allowed_are_closed(repository: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with (
        running(repository, tmp_path / "log", *QUICK, "--connections-max", "2") as server,
        contextlib.ExitStack() as all_,
    ):
        first, second, third = (all_.enter_context(grpc.insecure_channel(server.address, [OWN])) for _ in range(3))
        asked(first)
        asked(second)
        with pytest.raises(grpc.RpcError) as caught:
            asked(third)
        assert caught.value.code() is Code.UNAVAILABLE
        asked(first)
        first.close()
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(third)
        stub.ModelInfer(request(), timeout=60, wait_for_ready=True)


async def test_connections_end_at_their_age_and_no_call_is_lost(
    repository: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Stock clients unary and in a stream, Fovea's own over streams; age 0.5 s, so all move on several times."""
    flags = ("--connection-age-s", "0.5")
    with running(repository, tmp_path / "log", *QUICK, *flags) as server:
        is_over = asyncio.Event()
        async with (
            between.to(server.address) as way,
            grpc.aio.insecure_channel(way.address, [OWN]) as stock,
            grpc.aio.insecure_channel(server.address, [OWN]) as other,
            client.Client(way.address, stream_age_s=1.0) as own,
        ):
            unary = inference_pb2_grpc.GRPCInferenceServiceStub(stock)
            counts = [0, 0, 0]

            async def keep_calling() -> None:
                while not is_over.is_set():
                    call = unary.ModelInfer(request(), timeout=30)
                    await call
                    counts[0] += 1

            async def keep_streaming() -> None:
                stream = Stream(other)  # one stream for all the time: it outlives its connection's age
                while not is_over.is_set():
                    await stream.ask()
                    counts[1] += 1
                await stream.call.done_writing()

            async def keep_asking() -> None:
                while not is_over.is_set():
                    await own.infer(request())
                    counts[2] += 1

            load = [asyncio.create_task(one()) for one in (keep_calling, keep_streaming, keep_asking) for _ in range(3)]
            ending = asyncio.create_task(_after(5.0, is_over))
            async with asyncio.timeout(60):
                await asyncio.gather(*load, ending)
        assert min(counts) > 100
        assert way.connections > 6  # they did move


async def test_streams_that_are_cut_off_after_the_grace_lose_the_client_no_call(
    repository: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A stock stream is cut; Fovea's client sends again what was out, though its own streams are never renewed."""
    flags = ("--connection-age-s", "0.3", "--connection-age-grace-s", "0.3")
    with running(repository, tmp_path / "log", *QUICK, *flags) as server:
        async with grpc.aio.insecure_channel(server.address, [OWN]) as channel:
            stream = Stream(channel)
            await stream.ask()
            with pytest.raises(grpc.aio.AioRpcError):
                await asyncio.wait_for(stream.call.read(), 60)
        async with between.to(server.address) as way, client.Client(way.address, stream_age_s=600.0) as own:
            answered = 0
            is_over = asyncio.Event()

            async def keep_asking() -> None:
                nonlocal answered
                while not is_over.is_set():
                    await own.infer(request(8))
                    answered += 1

            load = [asyncio.create_task(keep_asking()) for _ in range(8)]
            await asyncio.gather(_after(4.0, is_over), *load)
            assert way.connections > 4
        assert answered > 100


async def _after(seconds: float, event: asyncio.Event) -> None:
    await asyncio.sleep(seconds)  # how long the load lasts
    event.set()


async def test_answers_are_compressed_where_asked_and_requests_may_always_be(
    plain: RunningServer, repository: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with running(repository, tmp_path / "log", *QUICK, "--compression", "gzip") as zipped:
        sizes = [await _answer_bytes(server) for server in (plain, zipped)]
    assert sizes[1] < sizes[0] / 4
    with grpc.insecure_channel(plain.address, compression=grpc.Compression.Gzip) as channel:
        asked(channel)


async def _answer_bytes(server: RunningServer) -> int:
    """Bytes that come from the server for an answer of 16 KB of equal numbers."""
    async with between.to(server.address) as way, grpc.aio.insecure_channel(way.address, [OWN]) as channel:
        await inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request(1000), timeout=30)
    return way.answer_bytes


def test_a_small_message_that_unpacks_to_a_huge_one_is_refused_before_it_takes_memory(
    repository: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with running(repository, tmp_path / "log", *QUICK, "--message-bytes-max", "1048576") as server:
        before = _peak_bytes(server)
        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(server.address, options, grpc.Compression.Gzip) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            for _ in range(3):
                with pytest.raises(grpc.RpcError) as caught:
                    call(bytes(256 << 20), timeout=60)  # 260 KB on the wire
                assert caught.value.code() is Code.RESOURCE_EXHAUSTED
            asked(channel)
        assert _peak_bytes(server) - before < 64 << 20


def _peak_bytes(server: RunningServer) -> int:
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


async def test_one_caller_has_so_many_samples_out_and_others_are_not_held_up() -> None:
    watch = guard.Guard(caller_samples_max=8)
    with watch.held("a", 6):
        with pytest.raises(Exception, match="a has 6 samples unanswered; the limit is 8") as caught, watch.held("a", 3):
            pass
        assert getattr(caught.value, "pause_s", None) == guard.PAUSE_S
        with watch.held("a", 2), watch.held("b", 8):
            pass
    with watch.held("a", 100):  # alone it may be larger: else it would be refused for ever
        pass
    with watch.held("a", 8):
        pass


async def test_a_caller_s_limit_is_kept_by_the_server(repository: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with running(
        repository, tmp_path / "log", *QUICK, "--caller-samples-max", "4", "--stream-messages-max", "64"
    ) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
            answers = await asyncio.gather(
                *(stub.ModelInfer(request(512), timeout=60) for _ in range(64)), return_exceptions=True
            )
            refusals = [one for one in answers if isinstance(one, grpc.aio.AioRpcError)]
            assert {one.code() for one in refusals} <= {Code.RESOURCE_EXHAUSTED}
            assert len(refusals) < 64
            assert all("samples unanswered" in str(one.details()) for one in refusals)
            await stub.ModelInfer(request(4), timeout=60)


@pytest.mark.slow
def test_idle_connections_to_the_http_port_take_so_many_threads_and_no_more(
    repository: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with running(repository, tmp_path / "log", *QUICK) as server:
        host, _, port = server.http.removeprefix("http://").rpartition(":")
        before = _threads(server)
        with contextlib.ExitStack() as opened:
            idle = [
                opened.enter_context(contextlib.closing(socket.create_connection((host, int(port)))))
                for _ in range(http.CONNECTIONS_MAX + 16)
            ]
            idle[-1].settimeout(60)
            assert idle[-1].recv(1) == b""  # closed at once
            assert _threads(server) <= before + http.CONNECTIONS_MAX
        give_up_s = time.monotonic() + 60
        while True:
            try:
                assert server.get("/v2/health/live") == "ok\n"
                break
            except (OSError, client_http.HTTPException):  # until the threads have seen that the others are gone
                assert time.monotonic() < give_up_s
                time.sleep(0.02)


def _threads(server: RunningServer) -> int:
    return len(list(pathlib.Path(f"/proc/{server.process.pid}/task").iterdir()))
