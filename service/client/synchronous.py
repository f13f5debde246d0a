"""The client for scripts and threads: the same calls, which block.

Path: caller's thread → **synchronous** → asynchronous, on an event loop in a thread of its own.

One way of doing things, not two: streams, retries and deadlines are the asyncio client's. A call costs
one hand-over to the loop's thread and back more.
"""

import asyncio
import concurrent.futures
import contextlib
import pathlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

from numpy.typing import NDArray

from protos import inference_pb2, model_config_pb2
from service.client import asynchronous, connection, failures, files, messages, stream

Answer = TypeVar("Answer")
Best = asynchronous.Best
Pixels = asynchronous.Pixels


class SyncClient:
    """Client's calls for code without asyncio, from any number of threads at once.

        with client.SyncClient("127.0.0.1:8001") as served:
            best = served.classify(open("cat.jpg", "rb").read(), "resnet18")

    Arguments, results and errors are Client's.

    Mutable state: the event loop and its thread while it is open, and whether it is closed; changed under the lock.
    """

    def __init__(self, address: str, **options: Unpack[connection.Options]) -> None:
        self._address = address
        self._client = asynchronous.Client(address, **options)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._is_closed = False

    def __enter__(self) -> Self:
        """Start the event loop; the first call connects.

        Raises:
            RuntimeError: opened a second time.
        """
        if self._thread is not None:
            raise RuntimeError("the client was open before; make another one")
        opened: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._stay_open(opened),), name="fovea-client", daemon=True
        )
        self._thread.start()
        try:
            self._loop, self._end = opened.result()
        except BaseException:
            self._thread.join()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close: calls of other threads that are out fail with CANCELLED."""
        self.close()

    def close(self) -> None:
        """Fail the calls that are out with CANCELLED, close all connections, end the thread. Again: does nothing."""
        with self._lock:
            if self._is_closed or self._loop is None or self._end is None:
                return
            self._is_closed = True
            self._loop.call_soon_threadsafe(self._end.set)
        if self._thread is not None:
            self._thread.join()

    def infer(
        self, request: inference_pb2.ModelInferRequest, timeout_s: float | None = None, *, priority: int = 0
    ) -> inference_pb2.ModelInferResponse:
        """Send one request; see Client.infer."""
        return self._wait(self._client.infer(request, timeout_s, priority=priority))

    def infer_tensors(
        self,
        model: str,
        inputs: Mapping[str, NDArray[Any]],
        *,
        outputs: Sequence[str] = (),
        timeout_s: float | None = None,
        priority: int = 0,
    ) -> dict[str, NDArray[Any]]:
        """Send arrays, return arrays; see Client.infer_tensors."""
        return self._wait(
            self._client.infer_tensors(model, inputs, outputs=outputs, timeout_s=timeout_s, priority=priority)
        )

    @overload
    def classify(
        self, image: bytes, model: str, *, top: int = 3, timeout_s: float | None = None, priority: int = 0
    ) -> Best: ...

    @overload
    def classify(
        self, image: Pixels, model: str, *, top: int = 3, timeout_s: float | None = None, priority: int = 0
    ) -> Best | list[Best]: ...

    def classify(
        self, image: bytes | Pixels, model: str, *, top: int = 3, timeout_s: float | None = None, priority: int = 0
    ) -> Best | list[Best]:
        """Return the best classes of an image file or of pixels; see Client.classify."""
        return self._wait(self._client.classify(image, model, top=top, timeout_s=timeout_s, priority=priority))

    def classify_folder(
        self,
        places: files.Place | Iterable[files.Place],
        model: str,
        *,
        top: int = 3,
        on_progress: Callable[[int, int], None] | None = None,
        in_flight: int = 32,
        timeout_s: float | None = None,
        priority: int = 0,
    ) -> Iterator[tuple[pathlib.Path, Best | Exception]]:
        """Yield each image file with its best classes, or with what was wrong with it; see Client.classify_folder."""
        progress: list[tuple[int, int]] = []
        outcomes = self._client.classify_folder(
            places, model, top=top, on_progress=lambda *now: progress.append(now), in_flight=in_flight,
            timeout_s=timeout_s, priority=priority,
        )  # fmt: skip
        try:
            while (outcome := self._wait(_next(outcomes))) is not None:
                if on_progress is not None:  # in the caller's thread
                    on_progress(*progress[-1])
                yield outcome
        finally:
            with contextlib.suppress(failures.CallFailed):  # closed meanwhile: nothing is left to end
                self._wait(outcomes.aclose())

    def signature(self, model: str, timeout_s: float | None = None) -> messages.Signature:
        """Ask where a model's images go in and class scores come out; see Client.signature."""
        return self._wait(self._client.signature(model, timeout_s))

    def metadata(
        self, model: str, *, version: str = "", timeout_s: float | None = None
    ) -> inference_pb2.ModelMetadataResponse:
        """Return a model's tensors and properties; see Client.metadata."""
        return self._wait(self._client.metadata(model, version=version, timeout_s=timeout_s))

    def config(self, model: str, *, version: str = "", timeout_s: float | None = None) -> model_config_pb2.ModelConfig:
        """Return a model's effective configuration; see Client.config."""
        return self._wait(self._client.config(model, version=version, timeout_s=timeout_s))

    def statistics(self, model: str, timeout_s: float | None = None) -> inference_pb2.ModelStatistics:
        """Return the counts for a model of one server; see Client.statistics."""
        return self._wait(self._client.statistics(model, timeout_s))

    def is_ready(self, model: str = "", timeout_s: float | None = None) -> bool:
        """Whether a server, or the model on it, takes requests now; see Client.is_ready."""
        return self._wait(self._client.is_ready(model, timeout_s))

    async def _stay_open(
        self, opened: "concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]"
    ) -> None:
        end = asyncio.Event()
        try:
            async with self._client:
                opened.set_result((asyncio.get_running_loop(), end))
                await end.wait()
        except BaseException as error:
            if opened.done():
                raise
            opened.set_exception(error)
            return
        ending = asyncio.all_tasks() - {asyncio.current_task()}  # callers that hear it now, and gRPC's own
        if ending:
            await asyncio.wait(ending, timeout=stream.CLOSE_WITHIN_S)

    def _wait(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Run on the client's loop and wait; an interrupt of the waiting thread ends the call as well."""
        try:
            future = self._submit(work)
        except BaseException:
            work.close()
            raise
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise failures.closed(self._address) from None
        finally:
            future.cancel()

    def _submit(self, work: Coroutine[Any, Any, Answer]) -> "concurrent.futures.Future[Answer]":
        with self._lock:
            if self._loop is None:
                raise RuntimeError("the client is not open; use it inside `with client.SyncClient(address)`")
            if self._is_closed:
                raise failures.closed(self._address)
            return asyncio.run_coroutine_threadsafe(work, self._loop)  # with the caller's context variables: its trace


async def _next(outcomes: AsyncIterator[Answer]) -> Answer | None:
    return await anext(outcomes, None)
