"""Every method that NVIDIA's two Python clients have, called against a real server.

A check stands for each method of tritonclient.grpc.InferenceServerClient and of its asyncio twin; a test walks
`dir()` of both, so a release with a new method is noticed. What does not apply here has a check too: it says what the
server answers. TLS is left out: the port is plain here.
"""

import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio

from tests.conftest import RunningServer, running
from tests.wire import by_hand, stock_control, stock_inference
from tests.wire.stock import LABELS, SIMPLE_CONFIG, WITHIN_S, Stock, assert_answers, inputs


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    repository = tmp_path_factory.mktemp("repository")
    by_hand.write(
        repository, "simple", {"1": by_hand.SIMPLE, "3": by_hand.SIMPLE}, SIMPLE_CONFIG, labels={"labels.txt": LABELS}
    )
    by_hand.write(repository, "lasting", {"1": by_hand.LASTING}, "max_batch_size: 0")
    return repository


@pytest.fixture(scope="module")
def served(place: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    flags = ("--model-control-mode", "explicit", "--load-model", "*", "--threads", "1", "--device", "cpu")
    log = tmp_path_factory.mktemp("log") / "server.log"
    with running(place, log, *flags, "--allow-client-shm") as server:
        yield server


@pytest.fixture(params=[False, True], ids=["blocking", "asyncio"])
def stock(request: pytest.FixtureRequest, served: RunningServer) -> Iterator[Stock]:
    client = Stock(served.address, is_aio=request.param)
    yield client
    client.end()


BOTH = (*stock_control.CHECKS, stock_inference.infer)
BLOCKING, ASYNCIO = stock_inference.BLOCKING, stock_inference.ASYNCIO


@pytest.mark.parametrize(
    ("module", "checks"), [(triton, (*BOTH, *BLOCKING)), (triton_aio, (*BOTH, *ASYNCIO))], ids=["blocking", "asyncio"]
)
def test_no_method_is_forgotten(module: Any, checks: tuple[Callable[[Stock], None], ...]) -> None:
    there = {name for name in dir(module.InferenceServerClient) if not name.startswith("_")}
    assert there == {check.__name__ for check in checks}


@pytest.mark.parametrize("check", BOTH, ids=lambda check: check.__name__)
def test_a_method_of_both_clients(stock: Stock, check: Callable[[Stock], None]) -> None:
    check(stock)
    assert check.__name__ in stock.called


@pytest.mark.parametrize("check", [*BLOCKING, *ASYNCIO], ids=lambda check: check.__name__)
def test_a_method_of_one_client(served: RunningServer, check: Callable[[Stock], None]) -> None:
    stock = Stock(served.address, is_aio=check in ASYNCIO)
    try:
        check(stock)
        assert check.__name__ in stock.called
    finally:
        stock.end()


@pytest.mark.parametrize("is_aio", [False, True], ids=["blocking", "asyncio"])
@pytest.mark.parametrize(
    "options",
    [
        {"keepalive_options": triton.KeepAliveOptions(10_000, 5_000, True, 0)},
        {"channel_args": [("grpc.max_receive_message_length", 1 << 20), ("grpc.primary_user_agent", "stock")]},
        {"verbose": True},
    ],
    ids=["keepalive", "channel arguments", "verbose"],
)
def test_a_client_made_with_options(served: RunningServer, is_aio: bool, options: dict[str, Any]) -> None:
    stock = Stock(served.address, is_aio=is_aio, **options)
    assert_answers(stock.infer("simple", inputs()))
    stock.end()


def test_one_client_serves_many_threads(served: RunningServer) -> None:
    """As its documentation promises: all but the stream's methods are thread-safe."""
    stock = Stock(served.address, is_aio=False)
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in range(20):
                assert_answers(stock.infer("simple", inputs()))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN_S)
    assert not failed
    stock.end()
