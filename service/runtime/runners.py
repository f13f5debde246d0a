"""Threads that run jobs on a session with plain arrays: the way on the CPU, and on CUDA for inputs of any size.

Path: instances → **runners** → session.
"""

import queue
import threading
import time
from collections.abc import Sequence

from service.batching import batcher, slots
from service.runtime import handover, session


def gather_and_run(
    loaded: session.Session, slot: slots.Slot, requests: Sequence[slots.Tensors], wanted: frozenset[str]
) -> batcher.BatchResult:
    """Run requests together on this thread, which has the slot. What ONNX Runtime raises comes through."""
    cpu_before_s, started_s = time.thread_time(), time.perf_counter()
    inputs = slot.gather(requests)
    gathered_s = time.perf_counter()
    outputs = loaded.run(inputs, wanted)
    ended_s = time.perf_counter()
    cpu_s = time.thread_time() - cpu_before_s if loaded.is_on_its_caller else 0.0
    return batcher.BatchResult(outputs, gathered_s - started_s, ended_s - gathered_s, cpu_s)


class Runners:
    """Threads that share one session; each takes the next job when it is free.

    Sharing: with one thread of its own a run computes on the thread that called it, so as many run
    side by side as call, on one copy of the weights. Measured as fast as a session for each.

    Mutable state: the queue, which guards itself; every thread has its own slot.
    """

    def __init__(self, name: str, loaded: session.Session, count: int) -> None:
        self.session = loaded
        self.in_flight = count
        self._jobs: queue.SimpleQueue[handover.Job | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"run-{name}-{number}", daemon=True) for number in range(count)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def submit(self, job: handover.Job) -> None:
        """See handover.Runner."""
        self._jobs.put(job)

    def close(self) -> None:
        """See handover.Runner."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        slot = slots.Slot()
        while (job := self._jobs.get()) is not None:
            _answer(self.session, slot, job)
            del job  # its arrays are not kept until the next one comes


def _answer(loaded: session.Session, slot: slots.Slot, job: handover.Job) -> None:
    """Run a job on this thread and reply; whatever it raises is the job's, and the thread goes on."""
    try:
        result = gather_and_run(loaded, slot, job.requests, job.wanted)
    except BaseException as error:
        job.reply.failed(error)
    else:
        job.reply.done(result)
