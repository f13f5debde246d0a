"""NVIDIA's two Python clients, called the same way, and what is asked of the model `simple`.

Path: **stock** → stock_control, stock_inference → test_stock_methods.
"""

import asyncio
import contextlib
import queue
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.wire import by_hand

WITHIN_S = 60.0
A = np.arange(16, dtype=np.int32)[None]
B = np.full((1, 16), 7, np.int32)
SIMPLE_CONFIG = """
name: "simple"  platform: "onnxruntime_onnx"  max_batch_size: 8
input [ { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] }, { name: "INPUT1" data_type: TYPE_INT32 dims: [ 16 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 16 ] label_filename: "labels.txt" },
         { name: "OUTPUT1" data_type: TYPE_INT32 dims: [ 16 ] } ]
dynamic_batching { priority_levels: 3 default_priority_level: 2 }
"""
LABELS = "".join(f"class {number}\n" for number in range(16))
ANSWER = {"OUTPUT0": A + B, "OUTPUT1": A - B}


class Stock:
    """One of the two clients, called the same way; remembers which methods were called."""

    def __init__(self, address: str, *, is_aio: bool, **options: Any) -> None:
        self.is_aio = is_aio
        self.called: set[str] = set()
        self._runner = asyncio.Runner() if is_aio else None
        self.client: Any = self._wait(_made(triton_aio if is_aio else triton, address, options))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.called.add(name)
            answer = getattr(self.client, name)(*arguments, **named)
            return self._wait(answer) if asyncio.iscoroutine(answer) else answer

        return call

    def _wait(self, coroutine: Any) -> Any:
        """Its result; without a loop of its own a coroutine that never waits for anything is run by hand."""
        if self._runner is not None:
            return self._runner.run(asyncio.wait_for(coroutine, WITHIN_S))
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value
        raise AssertionError("the synchronous client waits")

    def together(self, coroutine: Any) -> Any:
        """Run a coroutine on the asyncio client's loop."""
        return self._wait(coroutine)

    def end(self) -> None:
        with contextlib.suppress(Exception):  # the check of `close` has closed it
            self.close()
        if self._runner is not None:
            self._runner.close()


async def _made(module: Any, address: str, options: dict[str, Any]) -> Any:
    return module.InferenceServerClient(address, **options)


class Answers:
    """What a callback has heard."""

    def __init__(self) -> None:
        self._heard: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def __call__(self, result: Any, error: Any) -> None:
        self._heard.put((result, error))

    def next(self) -> triton.InferResult:
        result, error = self._heard.get(timeout=WITHIN_S)
        assert error is None, error
        return result

    def error(self) -> InferenceServerException:
        result, error = self._heard.get(timeout=WITHIN_S)
        assert result is None
        return error


def inputs() -> list[triton.InferInput]:
    return [by_hand.tensor("INPUT0", A), by_hand.tensor("INPUT1", B)]


def rested(stock: Stock) -> None:
    """Load the model `lasting` anew: it has nothing to do, and does not remember how long its runs were.

    Otherwise the server refuses what it knows that it cannot answer in time, and nothing times out.
    """
    stock.unload_model("lasting")
    stock.load_model("lasting")


def lasting(times: int) -> list[triton.InferInput]:
    return [
        by_hand.tensor("times", np.array(times, np.int64)),
        by_hand.tensor("x", np.zeros((64, 64), np.float32)),
    ]


def assert_answers(result: triton.InferResult, *names: str) -> None:
    outputs = [output.name for output in result.get_response().outputs]
    assert outputs == list(names or ANSWER)
    for name in outputs:
        assert (result.as_numpy(name) == ANSWER[name]).all()


def refused(code: str, call: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **named)
    assert caught.value.status() == f"StatusCode.{code}", caught.value
    return str(caught.value)
