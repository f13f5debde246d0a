"""Several servers: calls shared evenly, and none lost when one drains and one dies."""

import asyncio
import pathlib
import signal
from collections.abc import Iterator

import grpc
import pytest

from export import digits
from protos import inference_pb2
from service import client
from service.client import endpoint, messages
from tests.client import scripted
from tests.client.conftest import commas, several
from tests.conftest import Exported, RunningServer


@pytest.fixture(scope="module")
def three(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningServer]]:
    with several(exported, tmp_path_factory.mktemp("three"), 3) as started:
        yield started


async def counts(servers: list[RunningServer]) -> list[int]:
    answered = []
    for server in servers:
        async with client.Client(server.address) as served:
            answered.append((await served.statistics("lenet5")).inference_count)
    return answered


@pytest.mark.parametrize("streams", [True, False], ids=["streams", "unary"])
@pytest.mark.parametrize("at_once", [1, 60])
async def test_three_addresses_share_calls_evenly(
    three: list[RunningServer], held_out: digits.Digits, streams: bool, at_once: int
) -> None:
    inputs = {"image": held_out.images_nhwc[:1]}
    before = await counts(three)
    async with client.Client(commas(three), streams=streams) as served:
        for _ in range(300 // at_once):
            await asyncio.gather(*(served.infer_tensors("lenet5", inputs) for _ in range(at_once)))
    shares = [after - earlier for after, earlier in zip(await counts(three), before, strict=True)]
    assert sum(shares) == 300
    assert all(abs(share - 100) <= 10 for share in shares)


@pytest.mark.parametrize("streams", [True, False], ids=["streams", "unary"])
async def test_one_drains_and_one_dies_under_traffic_and_no_call_is_lost(
    exported: Exported, held_out: digits.Digits, tmp_path: pathlib.Path, streams: bool
) -> None:
    expected = exported.logits(held_out.images_nhwc).argmax(1)
    answered = 0
    wrong: list[int] = []
    is_over = False

    async def traffic(first: int) -> None:
        nonlocal answered
        number = first
        while not is_over:
            outputs = await served.infer_tensors("lenet5", {"image": held_out.images_nhwc[number : number + 1]})
            if outputs["logits"].argmax() != expected[number]:
                wrong.append(number)
            answered += 1
            number = (number + 1) % len(expected)

    async def more(calls: int) -> None:
        enough = answered + calls
        while answered < enough:
            for worker in load:
                if worker.done():
                    worker.result()
            await served.is_ready()  # something that takes a moment

    with several(exported, tmp_path, 3) as servers:
        async with client.Client(commas(servers), streams=streams) as served:
            load = [asyncio.create_task(traffic(first)) for first in range(24)]
            await more(300)
            servers[0].process.send_signal(signal.SIGTERM)
            await more(300)
            servers[1].process.kill()
            await more(300)
            is_over = True
            await asyncio.gather(*load)
        assert await asyncio.to_thread(servers[0].process.wait, 30) == 0
    assert wrong == []
    assert "0 with an error" in servers[0].log()


@pytest.mark.slow
async def test_a_server_that_falls_silent_is_found_out_in_forty_seconds(
    exported: Exported, held_out: digits.Digits, tmp_path: pathlib.Path
) -> None:
    """Its calls move to another server, or say that it is the server and not the model that takes so long."""
    inputs = {"image": held_out.images_nhwc[:1]}
    calls, within_s = 8, 60.0

    async def fall_silent() -> None:
        if await all_are_connected.wait() == 0:
            silent.send_signal(signal.SIGSTOP)
        await all_are_connected.wait()

    async def moves(address: str, streams: bool) -> None:
        async with client.Client(address, streams=streams, timeout_s=within_s) as served:
            for _ in range(calls):
                await served.infer_tensors("lenet5", inputs)
            await fall_silent()
            await asyncio.gather(*(served.infer_tensors("lenet5", inputs) for _ in range(calls)))

    async def says_so(address: str, streams: bool) -> None:
        async with client.Client(address, streams=streams, timeout_s=within_s) as served:
            await served.infer_tensors("lenet5", inputs)
            await fall_silent()
            said = (
                rf"UNAVAILABLE from {address}: .*(ping timeout|timed out before receiving SETTINGS).* \(tried for 60 s"
            )
            with pytest.raises(client.CallFailed, match=said):
                await served.infer_tensors("lenet5", inputs)

    with several(exported, tmp_path, 2) as servers:
        all_are_connected = asyncio.Barrier(4)
        silent = servers[0].process
        try:
            async with asyncio.TaskGroup() as group:
                for streams in (True, False):
                    group.create_task(moves(commas(servers), streams))
                    group.create_task(says_so(servers[0].address, streams))
        finally:
            silent.send_signal(signal.SIGCONT)
        assert (await counts(servers))[1] == 2 * (calls // 2 + calls)  # half of the first ones, and all of the others


async def test_an_address_without_a_server_costs_nothing_but_the_first_attempt() -> None:
    async with (
        scripted.serving(scripted.echo, scripted.echo_stream) as server,
        client.Client(f"127.0.0.1:{scripted.free_port()},{server.address}") as served,
    ):
        for number in range(20):
            assert (await served.infer(scripted.Request(id=str(number)))).id == str(number)


async def test_calls_wait_for_a_server_that_is_away_and_go_on_with_the_next_one_there() -> None:
    port = scripted.free_port()
    async with client.Client(f"127.0.0.1:{port}") as served:
        calls = [asyncio.create_task(served.infer(scripted.Request(id=str(number)))) for number in range(50)]
        assert not await served.is_ready()
        async with scripted.serving(scripted.echo, scripted.echo_stream, port=port):
            answers = await asyncio.gather(*calls)
    assert [answer.id for answer in answers] == [str(number) for number in range(50)]


async def test_an_answer_to_are_you_ready_is_no_proof_that_calls_are_taken() -> None:
    """A draining server answers it, and would get calls again and again."""

    async def refuse(request: scripted.Request, context: scripted.Context) -> scripted.Response:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "draining")

    async with scripted.serving(refuse) as server:
        one = endpoint.Endpoint(server.address, "", endpoint.Transport(streams=False), lambda: None)
        one.open()
        with pytest.raises(client.CallFailed, match="draining"):
            await one.infer(messages.Outgoing(scripted.Request()), 30.0, alone=True)
        kind = inference_pb2.ServerReadyResponse
        assert not (await one.ask("ServerReady", b"", kind, 30.0, proves=False)).ready
        assert one.failures == 1
        await one.ask("ServerReady", b"", kind, 30.0)
        assert one.failures == 0
        await one.close()
