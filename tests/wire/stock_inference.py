"""One check for each method of the stock clients that infers, with each of its arguments."""

import asyncio
from typing import Any

import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.wire.stock import Answers, Stock, assert_answers, inputs, lasting, refused, rested


def infer(stock: Stock) -> None:
    """Each of its arguments."""
    assert_answers(stock.infer("simple", inputs()))
    assert_answers(stock.infer("simple", inputs()[::-1], model_version="3"))
    wanted = [triton.InferRequestedOutput("OUTPUT1")]
    result = stock.infer("simple", inputs(), outputs=wanted, request_id="seven")
    assert_answers(result, "OUTPUT1")
    assert (result.get_response().id, result.get_response().model_version) == ("seven", "3")
    best = [triton.InferRequestedOutput("OUTPUT0", class_count=2), triton.InferRequestedOutput("OUTPUT1")]
    result = stock.infer("simple", inputs(), outputs=best)
    assert result.as_numpy("OUTPUT0").tolist() == [[b"22.000000:15:class 15", b"21.000000:14:class 14"]]
    for priority in (0, 1, 3):
        assert_answers(stock.infer("simple", inputs(), priority=priority, timeout=60_000_000))
    assert "priorities 1 (first) to 3" in refused("INVALID_ARGUMENT", stock.infer, "simple", inputs(), priority=4)
    for compression in ("gzip", "deflate", None):
        assert_answers(stock.infer("simple", inputs(), compression_algorithm=compression))
    assert_answers(stock.infer("simple", inputs(), headers={"x-caller": "me", "traceparent": "00-0-0-00"}))
    assert "sequence" in refused("INVALID_ARGUMENT", stock.infer, "simple", inputs(), sequence_id=7)
    assert "'colour'" in refused("INVALID_ARGUMENT", stock.infer, "simple", inputs(), parameters={"colour": "red"})
    rested(stock)
    refused("DEADLINE_EXCEEDED", stock.infer, "lasting", lasting(100_000), client_timeout=0.2)


def async_infer(stock: Stock) -> None:
    """Answered by callback, on a thread of gRPC; a cancelled call is CANCELLED, at once, and the server goes on."""
    heard = Answers()
    for number in range(8):
        stock.async_infer("simple", inputs(), heard, request_id=str(number), compression_algorithm="gzip")
    answers = [heard.next() for _ in range(8)]
    assert sorted(answer.get_response().id for answer in answers) == [str(number) for number in range(8)]
    for answer in answers:
        assert_answers(answer)
    stock.async_infer("nobody", inputs(), heard)
    assert heard.error().status() == "StatusCode.NOT_FOUND"
    rested(stock)
    stock.async_infer("lasting", lasting(100_000), heard, client_timeout=0.2)
    assert heard.error().status() == "StatusCode.DEADLINE_EXCEEDED"
    call = stock.async_infer("lasting", lasting(200_000), heard)
    call.cancel()
    assert heard.error().status() == "StatusCode.CANCELLED"
    assert_answers(stock.infer("simple", inputs()))


def start_stream(stock: Stock) -> None:
    """One stream a client; with headers, compression and a timeout, which ends it."""
    heard = Answers()
    stock.start_stream(heard, headers={"x-caller": "me"}, compression_algorithm="gzip")
    with pytest.raises(InferenceServerException, match="already running"):
        stock.start_stream(heard)
    stock.async_stream_infer("simple", inputs())
    assert_answers(heard.next())
    stock.stop_stream()
    stock.start_stream(heard, stream_timeout=0.2)
    assert heard.error().status() == "StatusCode.DEADLINE_EXCEEDED"
    stock.stop_stream()


def async_stream_infer(stock: Stock) -> None:
    """Each of its arguments; an error is one message's, and the stream goes on."""
    heard = Answers()
    stock.start_stream(heard)
    wanted = [triton.InferRequestedOutput("OUTPUT1")]
    stock.async_stream_infer(
        "simple", inputs(), "3", wanted, "first", enable_empty_final_response=True, priority=1, timeout=60_000_000
    )
    result = heard.next()
    assert_answers(result, "OUTPUT1")
    assert result.get_response().id == "first"
    stock.async_stream_infer("nobody", inputs())
    assert "'nobody' is not served" in str(heard.error())
    stock.async_stream_infer("simple", inputs(), sequence_id="many", sequence_start=True)
    assert "sequence" in str(heard.error())
    for number in range(40):
        stock.async_stream_infer("simple", inputs(), request_id=str(number))
    ids = [heard.next().get_response().id for _ in range(40)]
    assert sorted(ids, key=int) == [str(number) for number in range(40)]
    stock.stop_stream()


def stop_stream(stock: Stock) -> None:
    """Waits for what is under way, or cancels it."""
    heard = Answers()
    stock.start_stream(heard)
    stock.async_stream_infer("lasting", lasting(2_000))
    stock.stop_stream()
    assert heard.next().as_numpy("y").shape == (64, 64)
    stock.start_stream(heard)
    stock.async_stream_infer("lasting", lasting(200_000))
    stock.stop_stream(cancel_requests=True)
    assert heard.error().status() == "StatusCode.CANCELLED"


def stream_infer(stock: Stock) -> None:
    """The asyncio client's stream: answers with errors among them, compression, a timeout, cancelling."""

    async def asked(*requests: dict[str, Any]) -> Any:
        for request in requests:
            yield request

    async def all_of(**named: Any) -> list[tuple[Any, Any]]:
        requests = [{"model_name": "simple", "inputs": inputs(), "request_id": str(number)} for number in range(20)]
        requests.insert(5, {"model_name": "nobody", "inputs": inputs()})
        return [pair async for pair in stock.stream_infer(asked(*requests), **named)]

    async def ended(how: str) -> str:
        slow = {"model_name": "lasting", "inputs": lasting(100_000)}
        stream = stock.stream_infer(asked(slow), stream_timeout=0.2 if how == "timeout" else None)
        if how == "cancel":
            assert stream.cancel()
        with pytest.raises((asyncio.CancelledError, triton_aio.grpc.RpcError)) as caught:
            await anext(stream)
        return getattr(caught.value, "code", lambda: "cancelled")()

    for compression in (None, "gzip", "deflate"):
        pairs = stock.together(all_of(compression_algorithm=compression, headers={"x-caller": "me"}))
        errors = [str(error) for _, error in pairs if error is not None]
        assert len(errors) == 1
        assert "'nobody' is not served" in errors[0]
        answers = [result for result, error in pairs if error is None]
        assert sorted(int(answer.get_response().id) for answer in answers) == list(range(20))
        for answer in answers:
            assert_answers(answer)
    rested(stock)
    assert stock.together(ended("timeout")) is triton_aio.grpc.StatusCode.DEADLINE_EXCEEDED
    assert stock.together(ended("cancel")) in {"cancelled", triton_aio.grpc.StatusCode.CANCELLED}
    assert_answers(stock.infer("simple", inputs()))


BLOCKING = (async_infer, start_stream, async_stream_infer, stop_stream)
"""Methods that only the blocking client has."""
ASYNCIO = (stream_infer,)
"""Methods that only the asyncio client has."""
