"""A model's instances: as many runs side by side as its device serves best, behind one door.

Path: batcher → **instances** → runners (CPU, inputs of any size) or pipelines (CUDA).
"""

import contextlib
import itertools
import logging
import pathlib
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from service import errors
from service.batching import batcher, costs, slots
from service.runtime import (
    buffers,
    cuda,
    handover,
    knobs,
    pipeline,
    providers,
    rehearsal,
    runners,
    session,
    sessions,
    trial,
)

log = logging.getLogger(__name__)

HERE_S = 1e-4
"""A run on the CPU that is no longer than this is made on the event loop: handing it to another thread
and back costs more than the loop loses by waiting."""
_WARM_RUNS = {providers.CPU: 1, providers.CUDA: 3}
"""Runs of a size before it is timed. On CUDA the first one searches algorithms, and a graph is captured."""

Report = Callable[[int, int], None]
"""Hears how many sizes of how many are warm."""


class Instances:
    """A loaded model, ready to run once it is warm.

    Mutable state: what `warm` and `close` set, and the free places of each runner; touched by the
    loading thread until the model serves, then only on the event loop.
    """

    def __init__(
        self,
        model: str,
        path: pathlib.Path,
        options: session.Options,
        wanted: knobs.Knobs | None = None,
        device: cuda.Cuda | None = None,
        before: "Instances | None" = None,
    ) -> None:
        """Load the model.

        Args:
            model: its name.
            path: the graph.
            options: provider and threads.
            wanted: what its config asks for.
            device: what copies to the session's device and back; None: CUDA's, if that is the provider.
            before: the model as it was loaded before. If this is the same network, perhaps with other weights, and
                nobody says how many instances and threads, it takes over what was measured then.

        Raises:
            ModelLoadError: see session.Session.
        """
        self._model = model
        self._options = options
        self._wanted = wanted or knobs.Knobs()
        self._device = device
        self._is_cuda = options.provider.name == providers.CUDA
        known = None if before is None else before._sessions
        self._sessions: sessions.Sessions = sessions.Sessions(model, path, options, self._wanted, known)
        self._slot = slots.Slot()
        self._runners: list[handover.Runner] = []
        self._free: list[int] = []
        self.rows_here = 0
        """Runs of up to so many rows are made on the event loop, one after another."""
        self._has_batch_axis = True
        self.pads = False
        """Whether only the rows of `buckets` can run."""
        self.buckets: tuple[int, ...] = ()
        """The batch sizes that `warm` has run, ascending; empty for inputs of any size."""
        self.inputs = self._first.inputs
        self.optional = self._first.optional
        self.outputs = self._first.outputs
        self.metadata = self._first.metadata

    @property
    def _first(self) -> session.Session:
        return self._sessions.first

    @property
    def in_flight(self) -> int:
        """Batches that may be under way at once: one for each instance on the CPU, two on CUDA."""
        return sum(runner.in_flight for runner in self._runners)

    @property
    def devices(self) -> int:
        """Runs that compute at the same time: one for each instance. What is `in_flight` beyond is being copied."""
        return len(self._runners) if self.pads else self.in_flight

    @property
    def operators(self) -> frozenset[str]:
        """Of the graph's nodes, as loaded."""
        return frozenset(self._first.placement.operators)

    @property
    def layout(self) -> trial.Candidate:
        """Instances and threads, as chosen."""
        return self._sessions.layout

    @property
    def trial_s(self) -> float:
        """What trying layouts added to the load; 0: somebody had said how many instances and threads."""
        return self._sessions.trial_s

    @property
    def properties(self) -> dict[str, str]:
        """What was chosen, for people."""
        return {
            "instances": str(self.layout.instances),
            "threads": str(self.layout.threads),
            "nodes_on_cpu": str(self._first.placement.nodes_on_cpu),
        }

    async def run_batch(
        self, requests: Sequence[slots.Tensors], wanted: frozenset[str], rows: int
    ) -> batcher.BatchResult:
        """Run requests together, at most `in_flight` batches at once. A `batcher.RunBatch`."""
        rows = rows if self._has_batch_axis else 1
        if rows <= self.rows_here:
            return runners.gather_and_run(self._first, self._slot, requests, wanted)
        place = self._take_place()
        try:
            reply = handover.LoopReply()
            self._runners[place].submit(handover.Job(requests, wanted, rows, reply))
            return await reply.future
        finally:
            self._free[place] += 1

    def run(self, inputs: slots.Tensors, outputs: Iterable[str], rows: int = 0) -> dict[str, NDArray[np.generic]]:
        """Run once as batches run, and wait; name → output. What ONNX Runtime raises comes through.

        Args:
            inputs: name → (n, ...).
            outputs: the names of those wanted.
            rows: rows of the run, padding included, where the device pads; 0: n.
        """
        if not self._runners:
            return self._first.run(inputs, outputs)
        samples = len(next(iter(inputs.values()))) if self._has_batch_axis else 1
        return dict(self._run(0, [inputs], frozenset(outputs), rows or samples).outputs)

    def warm(self, rows_max: int, report: Report) -> costs.Measured:
        """Choose instances and threads, start them, run every batch size, and time it.

        Args:
            rows_max: the largest batch; 0: the model has no batch axis.
            report: hears of the progress.

        Raises:
            ModelLoadError: a run fails, or the device runs convolutions on the CPU.
        """
        session.check_placement(self._model, self._first.placement, self._options.provider.name)
        self._has_batch_axis = rows_max > 0
        is_fixed = rehearsal.is_fixed(self.inputs) and (self._has_batch_axis or self._takes_zeros())
        try:
            self._start(max(1, rows_max), is_fixed=is_fixed)
            measured = self._rehearse(report) if is_fixed else {}
        except errors.ModelLoadError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this
            raise errors.ModelLoadError(self._model, f"its first run failed: {error}") from error
        self._log_placement()
        return costs.Measured(measured, self.pads)

    def release(self) -> None:
        """Give the memory of runs back, so that `close` holds nobody up. For models that end while others serve."""
        if self._is_cuda or self._device or not self._wanted.uses_arena or not rehearsal.is_fixed(self.inputs):
            return
        used = {id(runner.session): runner.session for runner in self._runners if isinstance(runner, runners.Runners)}
        for loaded in used.values():
            try:
                loaded.shrink(self._zeros(1))
            except Exception as error:  # ONNX Runtime's exceptions have no common base but this
                log.warning("model %s: its memory is not given back beforehand: %s", self._model, error)

    def close(self) -> None:
        """Finish what was taken, end the threads, and give the memory back: nothing can run any more."""
        for runner in self._runners:
            runner.close()
        self._runners, self._free, self.rows_here = [], [], 0
        with contextlib.suppress(AttributeError):  # closed before
            self._sessions.close()  # now, not when the garbage collector comes by: it holds the weights

    def _zeros(self, rows: int) -> dict[str, NDArray[np.generic]]:
        return rehearsal.zeros(self.inputs, rows, has_batch_axis=self._has_batch_axis)

    def _takes_zeros(self) -> bool:
        """Whether a model without a batch runs on zeros: inputs that are sizes, steps or axes can forbid it."""
        try:
            self._first.run(self._zeros(1), [spec.name for spec in self.outputs])
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this
            reason = (str(error).splitlines() or [""])[0]
            log.warning("model %s: does not run on zeros, so it is served unwarmed: %s", self._model, reason)
            return False
        return True

    def _start(self, rows_max: int, *, is_fixed: bool) -> None:
        may_share = not self._is_cuda and self._device is None
        loaded = self._sessions.load(self._zeros if is_fixed else None, rows_max, may_share=may_share)
        if (self._is_cuda or self._device) and is_fixed and rehearsal.has_device_memory(self.inputs, self.outputs):
            self.pads = True
            self.buckets = rehearsal.buckets(rows_max, self._wanted.preferred_rows)
            self._start_pipelines(loaded)
        elif self._wanted.cuda_graphs:
            raise errors.ModelLoadError(
                self._model, "config.pbtxt asks for CUDA graphs, which need inputs of fixed sizes; remove it"
            )
        else:
            self.buckets = rehearsal.powers_of_two(rows_max) if is_fixed else ()
            self._start_runners(loaded, 1 if self._is_cuda else self.layout.instances // len(loaded))
        self._free = [runner.in_flight for runner in self._runners]

    def _start_runners(self, loaded: Sequence[session.Session], threads: int) -> None:
        for one in loaded:
            made = runners.Runners(self._model, one, threads)
            made.start()
            self._runners.append(made)

    def _start_pipelines(self, loaded: Sequence[session.Session]) -> None:
        device = self._device or cuda.Cuda(cuda.load())
        plan = buffers.Plan(self.buckets, self._has_batch_axis, self._wanted.cuda_graphs)
        for one in loaded:
            made = pipeline.Pipeline(self._model, one, device, plan)
            made.start()
            self._runners.append(made)

    def _rehearse(self, report: Report) -> dict[int, float]:
        """Run every size on every instance; the first one's times are taken."""
        measured: dict[int, float] = {}
        total = len(self.buckets) * len(self._runners)
        done = 0
        for place in range(len(self._runners)):
            for rows in self.buckets:
                if not self.pads and rehearsal.is_too_long(rows, measured):
                    break
                try:
                    run_s = rehearsal.seconds(self._timed(place, rows), _WARM_RUNS[self._options.provider.name])
                except Exception as error:  # ONNX Runtime's exceptions have no common base but this
                    reason = f"its first run, with {rows} rows, failed: {error}"
                    raise errors.ModelLoadError(self._model, reason) from error
                measured.setdefault(rows, run_s)
                done += 1
                report(done, total)
        self.buckets = tuple(measured)
        if len(measured) > 1:  # sizes are compared; one alone is known well enough
            measured = rehearsal.again({rows: self._timed(0, rows) for rows in measured}, measured)
        if not self.pads and self._first.is_on_its_caller:
            short = itertools.takewhile(lambda rows: measured[rows] <= HERE_S, self.buckets)
            self.rows_here = max(short, default=0)
        return measured

    def _timed(self, place: int, rows: int) -> rehearsal.Run:
        """Runs of so many rows, gathered as requests of several callers are.

        Their seconds are the thread's own where nothing else computes: other programs do not make those longer.
        """
        requests = [self._zeros(1)] * (rows if self._has_batch_axis else 1)
        names = frozenset(spec.name for spec in self.outputs)

        def run() -> float:
            started_s = time.perf_counter()
            result = self._run(place, requests, names, rows)
            return result.cpu_s or time.perf_counter() - started_s

        return run

    def _run(
        self, place: int, requests: Sequence[slots.Tensors], wanted: frozenset[str], rows: int
    ) -> batcher.BatchResult:
        """As `run_batch`, for a thread that waits."""
        if rows <= self.rows_here:
            return runners.gather_and_run(self._first, self._slot, requests, wanted)
        reply = handover.ThreadReply()
        self._runners[place].submit(handover.Job(requests, wanted, rows, reply))
        return reply.result()

    def _take_place(self) -> int:
        """The runner with the most free places."""
        place = max(range(len(self._free)), key=self._free.__getitem__)
        self._free[place] -= 1
        return place

    def _log_placement(self) -> None:
        nodes = ", ".join(f"{count} nodes on {name}" for name, count in self._first.placement.nodes.items())
        log.info("model %s: %s; up to %d batches under way", self._model, nodes, self.in_flight)
