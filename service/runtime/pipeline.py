"""One CUDA instance: the next batch is copied while this one runs.

Path: instances → **pipeline** → buffers, session.

    submit ─▶ copier: fill lane A ─▶ executor: run lane A ─▶ copier: drain lane A ─▶ reply
                  fill lane B, while A runs ...

Two threads. The executor makes every ONNX Runtime call: the CUDA provider's state, and with it CUDA
graphs (warmed, captured, replayed), belongs to the thread. The copier makes every copy, on a stream
of its own. A lane goes from one to the other only after what was started on it has been waited for,
so no event and no lock is needed: the queues are the hand-over.

A capture forbids allocations in all threads of the process, so buckets are warmed one at a time,
before the model serves.
"""

import collections
import concurrent.futures
import dataclasses
import logging
import queue
import threading
import time

from service import errors
from service.batching import batcher
from service.runtime import buffers, cuda, handover, session

log = logging.getLogger(__name__)

LANES = 2


@dataclasses.dataclass(slots=True)
class _Flight:
    """A job under way. It belongs to the thread whose queue it is in."""

    job: handover.Job
    lane: buffers.Lane
    bucket: buffers.Bucket
    samples: int = 0
    copy_s: float = 0.0
    run_s: float = 0.0
    has_run: bool = False
    error: BaseException | None = None


class Pipeline:
    """A session on a device with two lanes, its copier and its executor. A handover.Runner.

    Mutable state: the queues and `_free`, whose operations are atomic; the lanes belong to the flights.
    """

    in_flight = LANES

    def __init__(self, model: str, loaded: session.Session, device: cuda.Cuda, plan: buffers.Plan) -> None:
        self._model = model
        self._session = loaded
        self._device = device
        self._plan = plan
        self._pinned = cuda.PinnedArrays(device)
        self._stream = 0
        self._free: collections.deque[buffers.Lane] = collections.deque()
        self._copies: queue.SimpleQueue[_Flight | None] = queue.SimpleQueue()
        self._runs: queue.SimpleQueue[_Flight | None] = queue.SimpleQueue()
        self._copier = threading.Thread(target=self._copy, name=f"copy-{model}", daemon=True)
        self._executor = threading.Thread(target=self._execute, name=f"run-{model}", daemon=True)
        self._prepared: concurrent.futures.Future[None] = concurrent.futures.Future()

    def start(self) -> None:
        """Allocate, and start the threads.

        Raises:
            ModelLoadError: the device refuses, or the model does not run.
        """
        try:
            self._device.use()
            self._stream = self._device.new_stream()
            self._executor.start()
            self._prepared.result()
            free_bytes, total_bytes = self._device.memory_bytes()
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this
            self._runs.put(None)
            self._release()
            raise errors.ModelLoadError(self._model, f"its buffers cannot be made: {error}") from error
        self._copier.start()
        log.info("model %s: buffers made; %d of %d MB free", self._model, free_bytes // 10**6, total_bytes // 10**6)

    def submit(self, job: handover.Job) -> None:
        """See handover.Runner.

        Raises:
            ValueError: more rows than the largest bucket has.
            RuntimeError: more jobs than `in_flight`.
        """
        try:
            lane = self._free.popleft()
        except IndexError:
            raise RuntimeError(f"more than {LANES} batches under way") from None
        try:
            flight = _Flight(job, lane, lane.bucket(job.rows))
        except ValueError:
            self._free.append(lane)
            raise
        self._copies.put(flight)

    def close(self) -> None:
        """See handover.Runner."""
        if not self._copier.is_alive():
            return
        self._copies.put(None)
        self._copier.join()
        self._executor.join()
        self._release()

    def _release(self) -> None:
        self._free.clear()
        self._pinned.close()
        if self._stream:
            self._device.end_stream(self._stream)
            self._stream = 0

    def _copy(self) -> None:
        self._device.use()
        running = 0
        is_closing = False
        while running or not is_closing:
            flight = self._copies.get()
            if flight is None:
                is_closing = True
            elif flight.has_run:
                running -= 1
                self._finish(flight)
            elif self._fill(flight):
                running += 1
                self._runs.put(flight)
            else:
                self._finish(flight)
            del flight
        self._runs.put(None)

    def _fill(self, flight: _Flight) -> bool:
        started_s = time.perf_counter()
        try:
            flight.samples = flight.bucket.fill(flight.job.requests, self._device, self._stream)
        except BaseException as error:  # of any kind: it is the job's, and the copier goes on
            flight.error = error
        flight.copy_s = time.perf_counter() - started_s
        return flight.error is None

    def _finish(self, flight: _Flight) -> None:
        """Copy the answer back, free the lane, reply."""
        try:
            if flight.error is not None:
                raise flight.error
            result = self._drain(flight)
        except BaseException as error:  # of any kind: it is the job's, and the copier goes on
            self._free.append(flight.lane)
            flight.job.reply.failed(error)
        else:
            self._free.append(flight.lane)
            flight.job.reply.done(result)

    def _drain(self, flight: _Flight) -> batcher.BatchResult:
        started_s = time.perf_counter()
        samples = flight.samples if self._plan.has_batch_axis else None
        outputs = flight.bucket.drain(samples, flight.job.wanted, self._device, self._stream)
        copy_s = flight.copy_s + time.perf_counter() - started_s
        return batcher.BatchResult(outputs, copy_s, flight.run_s)

    def _execute(self) -> None:
        try:
            self._device.use()
            lanes = buffers.make_lanes(self._session, self._plan, self._pinned, self._device, self._stream)
        except BaseException as error:
            self._prepared.set_exception(error)
            return
        self._free.extend(lanes)
        self._prepared.set_result(None)
        while (flight := self._runs.get()) is not None:
            started_s = time.perf_counter()
            try:
                flight.bucket.bound.run()
            except BaseException as error:  # of any kind: it is the job's, and the executor goes on
                flight.error = error
            flight.run_s = time.perf_counter() - started_s
            flight.has_run = True
            self._copies.put(flight)
            del flight
