"""The bounded pool of threads that decode images beside the event loop.

Path: wire → **pool** → batching.

What one turn of the event loop brings is handed over together. Threads take one image after the other,
first come first served, and wake the event loop once for what they finished in `DELIVERY_S`: for small
images the hand-over costs more than the decoding, and large ones must not wait for their neighbours.
Small images do not profit from a second thread at all, they only fight over Python's lock, so a thread
is called for every `THREAD_BYTES` of files.

Rows are written into fresh arrays: memory kept and reused was no faster for any size (tests.bench.decoded).
"""

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import math
import time
import weakref
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service import errors
from service.images import decode

DELIVERY_S = 0.002
"""Results wait no longer than this, and one more image, for others of the same thread."""

THREAD_BYTES = 64 * 1024
"""Bytes of files that make one more thread worth its wake-up: some 2 ms of JPEG, or 90 small PNG files."""

_HELD_MAX = 4
"""Images that keep their size are held, decoded, up to so many times the pixels that one may have, besides a request
that has them for itself."""
_HELD_PAUSE_S = 0.25
"""When to try again: about the time of a run on some ten megapixels."""

_MEAN_WEIGHT = 1 / 32  # of one image in the running mean: it follows within some dozens


@dataclasses.dataclass(frozen=True, slots=True)
class Decoded:
    """The rows of one request and how long their decoding took, waiting included."""

    rows_nhwc: NDArray[np.uint8]
    decode_s: float


@dataclasses.dataclass(slots=True)
class _Job:
    """One request's images.

    Mutable state: `left`, touched only on the event loop; `done` is set there, and threads look at it.
    """

    files: Sequence[decode.Source]
    spec: decode.ImageSpec
    rows_nhwc: NDArray[np.uint8]
    done: asyncio.Future[None]
    left: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one image; `spent_s` is None for one that was dropped."""

    job: _Job
    error: Exception | None
    spent_s: float | None


class DecodePool:
    """Decodes the images of many requests.

    Mutable state: `_waiting`, filled on the event loop and emptied by the threads, whose `popleft` is
    atomic; `_hand_over_bytes`, `_unfinished`, `_mean_s`, `_spent_s` and `_held`, written only on the event loop; rows
    of a job, each by one thread.
    """

    def __init__(self, threads: int, limits: decode.Limits, mode: decode.Mode = decode.Mode.FAST) -> None:
        self._threads = threads
        self._limits = limits
        self._mode = mode
        self._executor = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._waiting: collections.deque[tuple[_Job, int]] = collections.deque()
        self._hand_over_bytes: int | None = None
        self._unfinished = 0
        self._mean_s = 0.0
        self._spent_s = 0.0
        self._held = 0
        """Pixels of decoded images that keep their size, as long as anybody has them."""

    async def decode(self, files: Sequence[decode.Source], spec: decode.ImageSpec) -> Decoded:
        """Decode the images of one request.

        Args:
            files: N images, encoded or pixels.
            spec: what a row looks like.

        Returns:
            Rows (N, H, W, C) uint8.

        Raises:
            BadImage: the first image that cannot be decoded; the request's others are dropped. Or images
                of different sizes for a model that takes them as they are.
            ImagesFull: such images take as much memory as they may.
        """
        started_s = time.perf_counter()
        loop = asyncio.get_running_loop()
        shape = (len(files), *decode.row_shape(files, spec, self._limits))
        rows_nhwc = self._counted(shape, loop) if spec.keeps_size else np.empty(shape, np.uint8)
        job = _Job(files, spec, rows_nhwc, loop.create_future(), len(files))
        if self._hand_over_bytes is None:
            self._hand_over_bytes = 0
            loop.call_soon(self._hand_over, loop)
        self._hand_over_bytes += sum(map(len, files))
        self._unfinished += len(files)
        self._waiting.extend((job, index) for index in range(len(files)))
        await job.done
        return Decoded(rows_nhwc, time.perf_counter() - started_s)

    def _counted(self, shape: tuple[int, int, int, int], loop: asyncio.AbstractEventLoop) -> NDArray[np.uint8]:
        """Return memory whose pixels count as held until it is given back, whoever has it last, on whichever thread.

        Raises:
            ImagesFull: others hold too many; a request by itself is never too large here.
        """
        pixels = math.prod(shape[:3])
        limit = _HELD_MAX * self._limits.image_pixels_max
        if self._held and self._held + pixels > limit:
            raise errors.ImagesFull(pixels, self._held, limit, _HELD_PAUSE_S)
        rows_nhwc = np.empty(shape, np.uint8)
        self._held += pixels

        def release() -> None:
            self._held -= pixels

        def given_back() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody counts any more
                loop.call_soon_threadsafe(release)

        weakref.finalize(rows_nhwc, given_back).atexit = False
        return rows_nhwc

    def decode_s_estimate(self, files: int) -> float:
        """Return in how many seconds `files` more images would be decoded, those before them included.

        0 before anything has been decoded. From the mean of recent images, however different they are.
        """
        return self._mean_s * max(1.0, (self._unfinished + files) / self._threads) if files else 0.0

    def busy_seconds(self, now_s: float) -> float:
        """Return for how long all threads have decoded, images done until now. From any thread."""
        return self._spent_s / self._threads

    def close(self) -> None:
        """Wait for the threads to end. Call when nothing is left to decode."""
        self._executor.shutdown()

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call threads; one that finds nothing left, because others were quicker, just returns."""
        wanted = 1 + (self._hand_over_bytes or 0) // THREAD_BYTES
        self._hand_over_bytes = None
        for _ in range(min(self._threads, wanted, len(self._waiting))):
            self._executor.submit(self._work, loop)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Decode until nothing waits."""
        outcomes: list[_Outcome] = []
        deliver_at_s = time.perf_counter() + DELIVERY_S
        while self._waiting:
            try:
                job, index = self._waiting.popleft()
            except IndexError:  # another thread was quicker
                break
            outcomes.append(self._decode_one(job, index))
            if time.perf_counter() >= deliver_at_s:
                loop.call_soon_threadsafe(self._deliver, outcomes)
                outcomes, deliver_at_s = [], time.perf_counter() + DELIVERY_S
        if outcomes:
            loop.call_soon_threadsafe(self._deliver, outcomes)

    def _decode_one(self, job: _Job, index: int) -> _Outcome:
        if job.done.done():  # failed or cancelled meanwhile
            return _Outcome(job, None, None)
        started_s = time.perf_counter()
        error: Exception | None = None
        try:
            decode.decode_into(job.rows_nhwc[index], job.files[index], index, job.spec, self._limits, self._mode)
        except Exception as raised:  # carried to the request that it belongs to
            error = raised
        return _Outcome(job, error, time.perf_counter() - started_s)

    def _deliver(self, outcomes: list[_Outcome]) -> None:
        self._unfinished -= len(outcomes)
        for outcome in outcomes:
            if outcome.spent_s is not None:
                self._spent_s += outcome.spent_s
                self._mean_s += (outcome.spent_s - self._mean_s) * (_MEAN_WEIGHT if self._mean_s else 1)
            job = outcome.job
            job.left -= 1
            if job.done.done():
                continue
            if outcome.error is not None:
                job.done.set_exception(outcome.error)
            elif job.left == 0:
                job.done.set_result(None)
