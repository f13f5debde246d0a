"""Callers of several replicas, as a program of their own, so that a test can give them names of its own to look up.

Four kinds: Fovea's client and stock gRPC's round_robin, each with unary calls and over streams. Reads one command a
line (round, go, more, stop), and answers each with a line of JSON. A round fails if an answer is missing or wrong.
"""

import asyncio
import contextlib
import dataclasses
import json
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from protos import inference_pb2, inference_pb2_grpc
from service import client

AT_ONCE = 12
"""Requests of a round that are out at once."""

STREAMS = 6
"""Streams of a stock caller; a multiple of both numbers of replicas that a test has."""

TIMEOUT_S = 60.0

# What deploy/README.md tells users of stock clients. With health checks a client leaves a server when it says "not
# ready"; without them it calls a draining one until the connection ends, and five attempts may not be enough.
SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": "inference.GRPCInferenceService"},
        "methodConfig": [
            {
                "name": [{"service": "inference.GRPCInferenceService"}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
)
OPTIONS = [
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.dns_min_time_between_resolutions_ms", 500),  # 30 s by default
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]

Request = inference_pb2.ModelInferRequest
SIGNATURE = client.Signature("lenet5", "image", "probabilities")


@dataclasses.dataclass(frozen=True)
class Work:
    """Images and what they are."""

    images_nhwc: NDArray[np.uint8]
    labels: list[int]

    def request(self, number: int) -> Request:
        image = self.images_nhwc[number % len(self.labels)]
        return client.pixel_request(SIGNATURE, image[None], request_id=str(number))

    def check(self, answer: inference_pb2.ModelInferResponse, number: int) -> None:
        scores = np.frombuffer(answer.raw_output_contents[0], np.float32)
        assert answer.id == str(number), (answer.id, number)
        assert scores.argmax() == self.labels[number % len(self.labels)], number


class Ours:
    """Fovea's client."""

    def __init__(self, address: str, work: Work, *, streams: bool) -> None:
        self._work = work
        self._client = client.Client(address, streams=streams, resolve_every_s=1.0, timeout_s=TIMEOUT_S)

    async def __aenter__(self) -> "Ours":
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *caught: Any) -> None:
        await self._client.close()

    async def round(self, calls: int) -> None:
        await shared(calls, self._call)

    async def _call(self, number: int) -> None:
        self._work.check(await self._client.infer(self._work.request(number)), number)


class Stock:
    """gRPC's own client: calls are retried by the service config; streams are opened again by hand."""

    def __init__(self, target: str, work: Work, *, streams: bool) -> None:
        self._work = work
        self._streams = streams
        self._channel = grpc.aio.insecure_channel(target, OPTIONS)
        self._stub = inference_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def __aenter__(self) -> "Stock":
        return self

    async def __aexit__(self, *caught: Any) -> None:
        await self._channel.close()

    async def round(self, calls: int) -> None:
        if not self._streams:
            return await shared(calls, self._call)
        numbers = [list(range(first, calls, STREAMS)) for first in range(STREAMS)]
        await asyncio.gather(*map(self._through_streams, numbers))
        return None

    async def _call(self, number: int) -> None:
        answer = await self._stub.ModelInfer(self._work.request(number), timeout=TIMEOUT_S, wait_for_ready=True)
        self._work.check(answer, number)

    async def _through_streams(self, numbers: list[int]) -> None:
        """Send over one stream; what it did not answer when it ended, over another."""
        left = dict.fromkeys(numbers)
        async with asyncio.timeout(TIMEOUT_S):
            while left:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await self._through_one(left)

    async def _through_one(self, left: dict[int, None]) -> None:
        room = asyncio.Semaphore(2)

        async def messages() -> AsyncIterator[Request]:
            for number in tuple(left):
                await room.acquire()
                yield self._work.request(number)

        async for answer in self._stub.ModelStreamInfer(messages(), wait_for_ready=True):
            assert not answer.error_message, answer.error_message
            number = int(answer.infer_response.id)
            self._work.check(answer.infer_response, number)
            del left[number]
            room.release()


async def shared(calls: int, call: Any) -> None:
    """Make so many calls, some at once."""
    numbers = iter(range(calls))

    async def worker(mine: Iterator[int]) -> None:
        for number in mine:
            await call(number)

    await asyncio.gather(*(worker(numbers) for _ in range(AT_ONCE)))


class Traffic:
    """Rounds of all kinds, again and again, until they are stopped. Mutable state: how many there were."""

    def __init__(self, kinds: dict[str, Ours | Stock]) -> None:
        self._kinds = kinds
        self._is_over = False
        self._ended = asyncio.Event()
        self.rounds = dict.fromkeys(kinds, 0)
        self._tasks = [asyncio.create_task(self._send(name)) for name in kinds]

    async def stop(self) -> dict[str, int]:
        self._is_over = True
        await asyncio.gather(*self._tasks)
        return self.rounds

    async def more(self, rounds: int) -> None:
        """Wait until every kind has ended so many more rounds."""
        wanted = {name: done + rounds for name, done in self.rounds.items()}
        while any(self.rounds[name] < enough for name, enough in wanted.items()):
            for task in self._tasks:
                if task.done():
                    task.result()
            self._ended.clear()
            await self._ended.wait()

    async def _send(self, name: str) -> None:
        try:
            while not self._is_over:
                await self._kinds[name].round(5 * AT_ONCE)
                self.rounds[name] += 1
                self._ended.set()
        finally:
            self._ended.set()


async def main(ours: str, stock: str, images: str) -> None:
    """Obey."""
    with np.load(images) as stored:
        work = Work(stored["images_nhwc"], stored["labels"].tolist())
    kinds: dict[str, Ours | Stock] = {
        "ours-streams": Ours(ours, work, streams=True),
        "ours-unary": Ours(ours, work, streams=False),
        "stock-streams": Stock(stock, work, streams=True),
        "stock-unary": Stock(stock, work, streams=False),
    }
    traffic: Traffic | None = None
    async with contextlib.AsyncExitStack() as stack:
        for kind in kinds.values():
            await stack.enter_async_context(kind)
        while line := await asyncio.to_thread(sys.stdin.readline):
            command, *words = line.split()
            said: object = "done"
            if command == "round":
                await kinds[words[0]].round(int(words[1]))
            elif command == "go":
                traffic = Traffic(kinds)
            elif traffic is not None and command == "more":
                await traffic.more(int(words[0]))
            elif traffic is not None and command == "stop":
                said, traffic = await traffic.stop(), None
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
