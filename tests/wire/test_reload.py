"""Models are replaced under traffic: no request fails, and each is answered by one version, whole."""

import asyncio
import collections
import contextlib
import itertools
import json
import pathlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio

from tests.conftest import running
from tests.wire import repositories
from tests.wire.repositories import MODEL, Weights, lay

Both = tuple[Weights, Weights]
Swap = Callable[[triton_aio.InferenceServerClient, int], Awaitable[None]]
FLAGS = ("--threads", "1", "--model-control-mode", "explicit", "--load-model", MODEL)
UNARY_CALLERS, STREAM_OUTSTANDING = 4, 8
ROWS = 3


class Traffic:
    """Callers that never pause. Mutable state: who answered how often, and whether it is over."""

    def __init__(self, client: triton_aio.InferenceServerClient, both: Both) -> None:
        self.answered: collections.Counter[int] = collections.Counter()
        self._client = client
        self._both = both
        self._firsts = itertools.cycle(range(len(both[0].images) - ROWS))
        self._is_over = False
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Send until the end of the block; what failed is raised there."""
        async with asyncio.TaskGroup() as group:
            for _ in range(UNARY_CALLERS):
                group.create_task(self._call())
            group.create_task(self._stream())
            yield
            self._is_over = True

    async def more(self, count: int) -> None:
        """Wait for so many more answers."""
        wanted = self.answered.total() + count
        while self.answered.total() < wanted:
            self._changed.clear()
            await self._changed.wait()

    def _input(self, first: int) -> triton.InferInput:
        return repositories.pixels(self._both[0].images[first : first + ROWS])

    def _take(self, first: int, result: triton.InferResult) -> None:
        """Find out whose answer it is: of exactly one set of weights, in all rows."""
        logits = result.as_numpy("logits")
        assert len(logits) == ROWS
        fitting = [
            number
            for number, one in enumerate(self._both)
            if all(one.fits(logits[row], first + row) for row in range(ROWS))
        ]
        assert len(fitting) == 1
        self.answered[fitting[0]] += 1
        self._changed.set()

    async def _call(self) -> None:
        while not self._is_over:
            first = next(self._firsts)
            self._take(first, await self._client.infer(MODEL, [self._input(first)]))

    async def _stream(self) -> None:
        room = asyncio.Semaphore(STREAM_OUTSTANDING)

        async def requests() -> AsyncIterator[dict[str, object]]:
            while not self._is_over:
                await room.acquire()
                first = next(self._firsts)
                yield {"model_name": MODEL, "inputs": [self._input(first)], "request_id": str(first)}

        async for result, error in self._client.stream_infer(requests()):
            assert error is None, error
            self._take(int(result.get_response().id), result)
            room.release()


async def swapped(server: str, both: Both, swaps: int, swap: Swap) -> Traffic:
    """Swap so often under traffic, with answers between."""
    async with triton_aio.InferenceServerClient(server) as client, triton_aio.InferenceServerClient(server) as sender:
        traffic = Traffic(sender, both)
        async with traffic.flowing():
            await traffic.more(20)
            for number in range(swaps):
                await swap(client, (number + 1) % 2)
                await traffic.more(20)
        return traffic


def versions(number: int) -> str:
    policy = {"specific": {"versions": [number + 1]}}
    return json.dumps({"max_batch_size": 8, "dynamic_batching": {}, "version_policy": policy})


@pytest.mark.parametrize("swaps", [10, 50])
async def test_versions_take_turns_under_traffic(both: Both, tmp_path: pathlib.Path, swaps: int) -> None:
    lay(tmp_path / "models", {"1": both[0], "2": both[1]})
    with running(tmp_path / "models", tmp_path / "log", *FLAGS) as server:

        async def swap(client: triton_aio.InferenceServerClient, number: int) -> None:
            await client.load_model(MODEL, config=versions(number))

        traffic = await swapped(server.address, both, swaps, swap)
        assert min(traffic.answered[0], traffic.answered[1]) > 20
        metrics = server.get("/metrics")
        assert metrics.count(f'fovea_queue_samples{{model="{MODEL}"') == 1
        assert f'fovea_model_load_failures_total{{model="{MODEL}"}} 0.0' in metrics


async def test_a_version_is_exchanged_under_traffic(both: Both, tmp_path: pathlib.Path) -> None:
    """The same version with other weights: counts go on, and every request was answered with OK."""
    folder = lay(tmp_path / "models", {"1": both[0]})
    with running(tmp_path / "models", tmp_path / "log", *FLAGS) as server:

        async def swap(client: triton_aio.InferenceServerClient, number: int) -> None:
            await asyncio.to_thread(repositories.exchange, folder / "1", both[number])
            await client.load_model(MODEL)

        traffic = await swapped(server.address, both, 4, swap)
        count = traffic.answered.total()
        assert min(traffic.answered[0], traffic.answered[1]) > 20
        assert f'fovea_requests_total{{code="OK",model="{MODEL}",version="1"}} {count}.0' in server.get("/metrics")
    assert f"drained: {count} requests answered with OK, 0 with an error" in server.log()


async def test_a_model_is_unloaded_under_traffic_and_answers_what_it_took(both: Both, tmp_path: pathlib.Path) -> None:
    """Every request is answered, or told that there is no such model; none is lost between."""
    lay(tmp_path / "models", {"1": both[0]})
    with running(tmp_path / "models", tmp_path / "log", *FLAGS) as server:
        async with triton_aio.InferenceServerClient(server.address) as client:
            answered, sentences = 0, set()
            enough = asyncio.Event()

            async def call() -> None:
                nonlocal answered
                while True:
                    try:
                        await client.infer(MODEL, [repositories.pixels(both[0].images[:1])])
                    except triton_aio.InferenceServerException as error:
                        sentences.add(error.message())
                        return
                    answered += 1
                    if answered > 50:
                        enough.set()

            callers = [asyncio.create_task(call()) for _ in range(16)]
            await enough.wait()
            await client.unload_model(MODEL)
            await asyncio.gather(*callers)
            assert sentences == {f"model {MODEL!r} is not served here; served: nothing"}
            await client.load_model(MODEL)
            await client.infer(MODEL, [repositories.pixels(both[0].images[:1])])
    assert f"drained: {answered + 1} requests answered with OK" in server.log()


async def test_sigterm_breaks_a_load_off_and_drains(both: Both, tmp_path: pathlib.Path) -> None:
    lay(tmp_path / "models", {"1": both[0]})
    lay(tmp_path / "models", {"1": both[0]}, "slow", "max_batch_size: 4096")
    with running(tmp_path / "models", tmp_path / "log", *FLAGS) as server:
        async with triton_aio.InferenceServerClient(server.address) as client:
            load = asyncio.create_task(client.load_model("slow"))
            await asyncio.to_thread(repositories.until, lambda: _is_loading(server.address, "slow"), "the load")
            server.process.send_signal(signal.SIGTERM)
            outcome = (await asyncio.gather(load, return_exceptions=True))[0]
            assert outcome is None or "UNAVAILABLE" in str(outcome)
        assert await asyncio.to_thread(server.process.wait, 30) == 0
    assert "drained: 0 requests answered with OK, 0 with an error" in server.log()
    assert "Traceback" not in server.log()


def _is_loading(address: str, name: str) -> bool:
    with triton.InferenceServerClient(address) as client:
        return any(
            one.name == name and one.state in {"LOADING", "READY"} for one in client.get_model_repository_index().models
        )
