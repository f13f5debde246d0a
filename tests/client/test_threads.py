"""SyncClient: many threads at once, closing, and the same methods as Client."""

import concurrent.futures
import inspect
import threading
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from export import digits
from service import client
from tests.client import scripted
from tests.conftest import Exported, RunningServer


def test_200_calls_from_threads_at_once(server: RunningServer, exported: Exported, held_out: digits.Digits) -> None:
    images_nhwc = held_out.images_nhwc[:200]
    expected = exported.logits(images_nhwc)
    together = threading.Barrier(200)

    def call(number: int) -> bool:
        together.wait(60)
        outputs = served.infer_tensors("lenet5", {"image": images_nhwc[number : number + 1]})
        return np.allclose(outputs["logits"], expected[number], atol=1e-4)

    with client.SyncClient(server.address) as served, concurrent.futures.ThreadPoolExecutor(200) as threads:
        assert all(threads.map(call, range(200)))


@pytest.fixture
def silent() -> Iterator[tuple[str, threading.Semaphore]]:
    """A server that takes calls and never answers; released once for each that it has."""
    arrived = threading.Semaphore(0)
    done = threading.Event()

    class Silent(grpc.GenericRpcHandler):
        def service(self, details: object) -> object:
            def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
                for _ in requests:
                    arrived.release()
                return iter(())

            return grpc.stream_stream_rpc_method_handler(stream)

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Silent(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", arrived
    done.set()
    server.stop(None).wait()


def test_closing_fails_the_calls_of_other_threads_and_ends_the_clients_own(
    silent: tuple[str, threading.Semaphore],
) -> None:
    address, arrived = silent
    served = client.SyncClient(address)
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        with served:
            calls = [threads.submit(served.infer, scripted.Request()) for _ in range(3)]
            for _ in calls:
                assert arrived.acquire(timeout=30)
        for call in calls:
            with pytest.raises(client.CallFailed, match="the client was closed"):
                call.result(30)
    assert "fovea-client" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(client.CallFailed, match="the client was closed"):
        served.is_ready()
    served.close()


def test_a_deadline(silent: tuple[str, threading.Semaphore]) -> None:
    with client.SyncClient(silent[0]) as served, pytest.raises(client.CallFailed) as caught:
        served.infer(scripted.Request(), 0.05)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_both_clients_have_the_same_methods_and_parameters() -> None:
    of_asyncio_only = {"stream"}
    names = {name for name in vars(client.Client) if not name.startswith("_")} - of_asyncio_only
    assert names <= vars(client.SyncClient).keys()
    for name in names:
        ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (client.SyncClient, client.Client))
        assert ours.parameters == theirs.parameters, name


def test_a_client_opens_once() -> None:
    served = client.SyncClient("127.0.0.1:1")
    with served:
        pass
    with pytest.raises(RuntimeError, match="make another one"), served:
        pass
