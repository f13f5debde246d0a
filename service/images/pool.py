"""The bounded pool of threads that decode images beside the event loop.

Path: wire → **pool** → batching.

What one turn of the event loop brings is handed over together, split evenly over the threads, and
comes back with one wake-up per thread: for small images the hand-over costs more than the decoding.
"""

import asyncio
import concurrent.futures
import dataclasses
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.images import decode


@dataclasses.dataclass(frozen=True, slots=True)
class Decoded:
    """The rows of one request and how long their decoding took, waiting included."""

    rows_nhwc: NDArray[np.uint8]
    decode_s: float


@dataclasses.dataclass(slots=True)
class _Job:
    """One request's images. `left` and `error` are touched only on the event loop."""

    files: Sequence[bytes]
    spec: decode.ImageSpec
    rows_nhwc: NDArray[np.uint8]
    done: asyncio.Future[None]
    left: int


_Outcome = tuple[_Job, Exception | None]


class DecodePool:
    """Decodes the images of many requests.

    Mutable state: `_pending`, touched only on the event loop; rows of a job, each by one thread.
    """

    def __init__(self, threads: int, limits: decode.Limits) -> None:
        self._threads = threads
        self._limits = limits
        self._executor = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._pending: list[tuple[_Job, int]] = []

    async def decode(self, files: Sequence[bytes], spec: decode.ImageSpec) -> Decoded:
        """Decode the images of one request.

        Args:
            files: N encoded images.
            spec: what a row looks like.

        Returns:
            Rows (N, H, W, C) uint8.

        Raises:
            BadImage: the first image that cannot be decoded; the request's others are dropped. Or images
                of different sizes for a model that takes them as they are.
        """
        started_s = time.perf_counter()
        loop = asyncio.get_running_loop()
        rows_nhwc = np.empty((len(files), *decode.row_shape(files, spec, self._limits)), np.uint8)
        job = _Job(files, spec, rows_nhwc, loop.create_future(), len(files))
        if not self._pending:
            loop.call_soon(self._hand_over, loop)
        self._pending.extend((job, index) for index in range(len(files)))
        await job.done
        return Decoded(rows_nhwc, time.perf_counter() - started_s)

    def close(self) -> None:
        """Wait for the threads to end. Call when nothing is left to decode."""
        self._executor.shutdown()

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        pending, self._pending = self._pending, []
        for first in range(min(self._threads, len(pending))):
            self._executor.submit(self._work, pending[first :: self._threads], loop)

    def _work(self, share: list[tuple[_Job, int]], loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon_threadsafe(self._deliver, [(job, self._decode_one(job, index)) for job, index in share])

    def _decode_one(self, job: _Job, index: int) -> Exception | None:
        if job.done.done():  # failed or cancelled meanwhile
            return None
        try:
            decode.decode_into(job.rows_nhwc[index], job.files[index], index, job.spec, self._limits)
        except Exception as error:  # carried to the request that it belongs to
            return error
        return None

    @staticmethod
    def _deliver(outcomes: list[_Outcome]) -> None:
        for job, error in outcomes:
            job.left -= 1
            if job.done.done():
                continue
            if error is not None:
                job.done.set_exception(error)
            elif job.left == 0:
                job.done.set_result(None)
