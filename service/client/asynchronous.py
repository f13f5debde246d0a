"""The client for asyncio: what a caller asks, as calls.

Path: caller → **asynchronous** → messages, arrays → connection → server.
"""

import asyncio
import collections
import pathlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Unpack, overload

import grpc
import numpy as np
from numpy.typing import NDArray

from protos import inference_pb2, model_config_pb2
from service.client import arrays, calls, connection, endpoint, failures, files, messages

Pixels = NDArray[np.uint8]
Best = list[messages.Prediction]
"""The best classes of an image, best first."""

_MAY_BE_ANOTHER_MODEL = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
"""Errors after which a model's signature is asked again: another version may have other names."""

_LEAST_S = 1e-3
"""Seconds for a call whose deadline passes while it is made."""


class Client(connection.Connection):
    """Sends images and tensors to one or more servers of the v2 protocol.

        async with client.Client("127.0.0.1:8001") as served:
            best = await served.classify(open("cat.jpg", "rb").read(), "resnet18")

    Calls go over streams where a server has them, to the address with the fewest calls out. What a server
    that ends or dies has not answered is sent to another, or again when it is back, until the deadline.
    What it may be told beside the address: see connection.Connection. For threads: SyncClient.
    Where OpenTelemetry has a current span, a call carries its trace context: a server that traces is its child.

    Mutable state: the signatures of the models that it has classified with; touched only on the event loop.
    """

    def __init__(self, address: str, **options: Unpack[connection.Options]) -> None:
        super().__init__(address, **options)
        self._known: dict[str, messages.Signature] = {}
        self._asking: collections.defaultdict[str, asyncio.Lock] = collections.defaultdict(asyncio.Lock)

    async def infer(
        self, request: inference_pb2.ModelInferRequest, timeout_s: float | None = None, *, priority: int = 0
    ) -> inference_pb2.ModelInferResponse:
        """Send one request; the answer has its id.

        Args:
            request: stays as it is, and may be sent again at once.
            timeout_s: seconds until the answer is worth nothing; None for the client's.
            priority: 1 is first, 0 the request's own or the model's default.

        Raises:
            CallFailed: the server's status and sentence, or nobody answered in time.
        """
        outgoing = messages.Outgoing(request, connection.at_least("priority", priority, 0))

        async def attempt(chosen: endpoint.Endpoint, call: calls.Call) -> inference_pb2.ModelInferResponse:
            return await chosen.infer(outgoing, call.remaining_s, alone=call.alone)

        return await self._run(attempt, timeout_s)

    async def infer_tensors(
        self,
        model: str,
        inputs: Mapping[str, NDArray[Any]],
        *,
        outputs: Sequence[str] = (),
        timeout_s: float | None = None,
        priority: int = 0,
    ) -> dict[str, NDArray[Any]]:
        """Send arrays, return arrays; by name. Strings travel as BYTES: dtypes object, S, U there, object back.

        Args:
            model: its name.
            inputs: all inputs of the model, with the batch dimension.
            outputs: those that are wanted; none named: all.
            timeout_s: seconds until the answer is worth nothing; None for the client's.
            priority: 1 is first, 0 the model's default.

        Raises:
            CallFailed: the server's status and sentence, or nobody answered in time.
            TypeError: an array that the protocol has no datatype for.
        """
        request = inference_pb2.ModelInferRequest(model_name=model)
        for name, values in inputs.items():
            arrays.add_input(request, name, values)
        for name in outputs:
            request.outputs.add(name=name)
        return arrays.tensors(await self.infer(request, timeout_s, priority=priority))

    @overload
    async def classify(
        self, image: bytes, model: str, *, top: int = 3, timeout_s: float | None = None, priority: int = 0
    ) -> Best: ...

    @overload
    async def classify(
        self, image: Pixels, model: str, *, top: int = 3, timeout_s: float | None = None, priority: int = 0
    ) -> Best | list[Best]: ...

    async def classify(
        self, image: bytes | Pixels, model: str, *, top: int = 3, timeout_s: float | None = None, priority: int = 0
    ) -> Best | list[Best]:
        """Return the best classes of an image file or of pixels; of a batch of pixels, a list for each image.

        Args:
            image: PNG, JPEG, … as it is; or uint8 pixels, (H, W, C) or (N, H, W, C).
            model: its name. What it is like is asked once.
            top: how many classes, at least 1.
            timeout_s: seconds until the answer is worth nothing; None for the client's.
            priority: 1 is first, 0 the model's default.

        Raises:
            CallFailed: the server's status and sentence, or nobody answered in time.
            TypeError: neither bytes nor uint8.
            ValueError: pixels of another shape, top < 1, or a model that takes no images.
        """
        classes = connection.at_least("top", top, 1)
        if not isinstance(image, bytes | bytearray | memoryview | np.ndarray):
            raise TypeError(
                f"the image is a {type(image).__name__}; expected a file's bytes or a uint8 array of pixels"
            )
        pixels = messages.images_nhwc(image) if isinstance(image, np.ndarray) else None
        known = self._known.get(model)
        if known is None:
            known, timeout_s = await self._learned(model, timeout_s)
        if pixels is None:
            request = messages.image_request(known, [bytes(image)], classes=classes)
        else:
            request = messages.pixel_request(known, pixels, classes=classes)
        try:
            best = messages.predictions(await self.infer(request, timeout_s, priority=priority))
        except failures.CallFailed as failure:
            if failure.code in _MAY_BE_ANOTHER_MODEL:
                self._known.pop(model, None)
            raise
        return best if isinstance(image, np.ndarray) and image.ndim == 4 else best[0]

    async def classify_folder(
        self,
        places: files.Place | Iterable[files.Place],
        model: str,
        *,
        top: int = 3,
        on_progress: Callable[[int, int], None] | None = None,
        in_flight: int = 32,
        timeout_s: float | None = None,
        priority: int = 0,
    ) -> AsyncGenerator[tuple[pathlib.Path, Best | Exception], None]:
        """Yield each image file with its best classes, or with what was wrong with it, as they are finished.

        Args:
            places: files, and folders whose images are taken with those of the folders in them.
            model: its name.
            top: how many classes, at least 1.
            on_progress: called with how many are finished, and of how many.
            in_flight: images under way at once.
            timeout_s: seconds for each image; None for the client's.
            priority: 1 is first, 0 the model's default.

        Raises:
            CallFailed: the model is not there, or nobody answers.
            ValueError: top or in_flight < 1, or a model that takes no images.
        """
        classes, workers = connection.at_least("top", top, 1), connection.at_least("in_flight", in_flight, 1)
        paths = await asyncio.to_thread(files.images, places)
        if model not in self._known:
            await self._learned(model, timeout_s)

        async def classify(path: pathlib.Path) -> Best | Exception:
            try:
                content = await asyncio.to_thread(path.read_bytes)
                return await self.classify(content, model, top=classes, timeout_s=timeout_s, priority=priority)
            except (OSError, failures.CallFailed) as error:
                return error

        done = 0
        async for path, outcome in files.each(paths, classify, workers):
            done += 1
            if on_progress is not None:
                on_progress(done, len(paths))
            yield path, outcome

    async def signature(self, model: str, timeout_s: float | None = None) -> messages.Signature:
        """Ask where a model's images go in and class scores come out.

        Raises:
            CallFailed: no such model, or nobody answered in time.
            ValueError: the model takes no images.
        """
        return messages.signature(await self.metadata(model, timeout_s=timeout_s), model)

    async def metadata(
        self, model: str, *, version: str = "", timeout_s: float | None = None
    ) -> inference_pb2.ModelMetadataResponse:
        """Return a model's tensors and properties; empty version: the newest that is served.

        Raises:
            CallFailed: no such model, or nobody answered in time.
        """
        request = inference_pb2.ModelMetadataRequest(name=model, version=version)
        return await self._ask(request, inference_pb2.ModelMetadataResponse, timeout_s)

    async def config(
        self, model: str, *, version: str = "", timeout_s: float | None = None
    ) -> model_config_pb2.ModelConfig:
        """Return a model's effective configuration; empty version: the newest that is served.

        Raises:
            CallFailed: no such model, or nobody answered in time.
        """
        request = inference_pb2.ModelConfigRequest(name=model, version=version)
        return (await self._ask(request, inference_pb2.ModelConfigResponse, timeout_s)).config

    async def statistics(self, model: str, timeout_s: float | None = None) -> inference_pb2.ModelStatistics:
        """Return the counts for a model of one server, whichever is asked.

        Raises:
            CallFailed: no such model, or nobody answered in time.
        """
        request = inference_pb2.ModelStatisticsRequest(name=model)
        return (await self._ask(request, inference_pb2.ModelStatisticsResponse, timeout_s)).model_stats[0]

    async def is_ready(self, model: str = "", timeout_s: float | None = None) -> bool:
        """Whether a server, or the model on it, takes requests now; of several addresses, whether any does.

        Raises:
            CallFailed: a server that does not know the question, or the client was closed.
        """
        if model:
            return await self._any_ready(inference_pb2.ModelReadyRequest(name=model), timeout_s)
        return await self._any_ready(inference_pb2.ServerReadyRequest(), timeout_s)

    async def stream(
        self, requests: AsyncIterator[inference_pb2.ModelInferRequest]
    ) -> AsyncIterator[inference_pb2.ModelStreamInferResponse]:
        """Send requests over one stream of the caller's own; answers come as they finish: match them by id.

        Nothing is sent again, and errors of single requests are in `error_message`: a loop of `infer` does more.

        Raises:
            CallFailed: the stream ended with an error.
        """
        chosen = await self._one()
        async for answer in chosen.read(requests):
            yield answer

    async def _learned(self, model: str, timeout_s: float | None) -> tuple[messages.Signature, float]:
        """Ask for a signature, once for all who want it now; return it and how many seconds are left."""
        now_s = asyncio.get_running_loop().time
        until_s = now_s() + self._seconds(timeout_s)

        async def learn(call: calls.Call) -> messages.Signature:
            async with self._asking[model]:
                if model not in self._known:
                    request = inference_pb2.ModelMetadataRequest(name=model)
                    described = await self._ask_within(request, inference_pb2.ModelMetadataResponse, call)
                    self._known[model] = messages.signature(described, model)
                return self._known[model]

        known = await self._within(learn, timeout_s)
        return known, max(until_s - now_s(), _LEAST_S)
