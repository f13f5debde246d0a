"""A process that runs ONNX Runtime or the decoder alone, in a loop: the limits that a server is held against.

Path: limits → **alone** → figures. One question a line on stdin (JSON), one answer a line on stdout.
"""

import dataclasses
import functools
import json
import pathlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from service.images import decode
from service.models import manifest
from service.runtime import knobs, providers, session

LIMITS = decode.Limits(2**25, 64 * 10**6)
RUNS_MIN = 2
_WARM_RUNS = 5


@functools.lru_cache(maxsize=16)
def _loaded(path: str, threads: int, _instance: int = 0) -> session.Session:
    return session.Session("alone", pathlib.Path(path), session.Options(providers.choose("cpu"), threads))


def prepared(path: str, rows: int, threads: int = 1) -> Callable[[], object]:
    """Return what runs a batch of `rows` random rows once."""
    loaded = _loaded(path, threads)
    return functools.partial(loaded.run, _inputs(loaded, rows), [spec.name for spec in loaded.outputs])


def run(path: str, rows: int, seconds: float, threads: int = 1) -> dict[str, float]:
    """Run batches of `rows` random rows for so long: images/s, and CPU seconds of this process per image."""
    once = prepared(path, rows, threads)
    once()
    cpu_before_s, started_s, runs = time.process_time(), time.perf_counter(), 0
    while runs < RUNS_MIN or time.perf_counter() - started_s < seconds:
        once()
        runs += 1
    wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_before_s
    return {"images_per_s": runs * rows / wall_s, "cpu_s": cpu_s / (runs * rows)}


def together(path: str, rows: int, seconds: float, instances: int, threads: int) -> dict[str, float]:
    """Run `instances` sessions of `threads` threads at once: images/s of all."""
    sessions = [_loaded(path, threads, number) for number in range(instances)]
    done = [0] * instances
    ends_s = time.perf_counter() + seconds

    def work(number: int) -> None:
        inputs, outputs = _inputs(sessions[number], rows), [spec.name for spec in sessions[number].outputs]
        while done[number] < RUNS_MIN or time.perf_counter() < ends_s:
            sessions[number].run(inputs, outputs)
            done[number] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(instances)]
    started_s = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {"images_per_s": sum(done) * rows / (time.perf_counter() - started_s)}


def bound(path: str, rows: int, seconds: float, graphs: bool) -> dict[str, float]:
    """Run on CUDA between fixed addresses, nothing copied to or from the device: images/s that it can do at most."""
    chosen = providers.choose("cuda")
    provider = dataclasses.replace(chosen, options={**chosen.options, "enable_cuda_graph": str(int(graphs))})
    wanted = knobs.Knobs(cuda_graphs=graphs)
    loaded = session.Session("alone", pathlib.Path(path), session.Options(provider, 1), wanted)
    inputs, outputs = (
        {spec.name: loaded.device_tensor((rows, *spec.shape[1:]), spec.datatype.numpy) for spec in specs}
        for specs in (loaded.inputs, loaded.outputs)
    )
    running = loaded.bind(inputs, outputs, int(graphs))
    for _ in range(_WARM_RUNS):
        running.run()
    started_s, runs = time.perf_counter(), 0
    while runs < RUNS_MIN or time.perf_counter() - started_s < seconds:
        running.run()
        runs += 1
    return {"images_per_s": runs * rows / (time.perf_counter() - started_s)}


def decoded(path: str, folder: str, seconds: float) -> dict[str, float]:
    """Decode the folder's images for the model, again and again: images/s and CPU seconds per image."""
    spec = manifest.image_spec("alone", manifest.read("alone", _loaded(path, 1).metadata))
    assert spec is not None, "the benchmark's models take images"
    files = [file.read_bytes() for file in sorted(pathlib.Path(folder).iterdir())]
    row_hwc = np.empty(spec.row_shape, np.uint8)
    cpu_before_s, started_s, images = time.process_time(), time.perf_counter(), 0
    while images < len(files) or time.perf_counter() - started_s < seconds:
        decode.decode_into(row_hwc, files[images % len(files)], 0, spec, LIMITS, decode.Mode.FAST)
        images += 1
    wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_before_s
    return {"images_per_s": images / wall_s, "cpu_s": cpu_s / images}


def _inputs(loaded: session.Session, rows: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        spec.name: random.integers(0, 256, (rows, *spec.shape[1:])).astype(spec.datatype.numpy)
        for spec in loaded.inputs
    }


QUESTIONS: dict[str, Callable[..., dict[str, float]]] = {
    "run": run,
    "bound": bound,
    "together": together,
    "decoded": decoded,
}


def main() -> None:
    """Answer until stdin ends."""
    for line in sys.stdin:
        question: dict[str, Any] = json.loads(line)
        print(json.dumps(QUESTIONS[question.pop("what")](**question)), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
