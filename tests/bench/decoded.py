"""`python -m tests.bench.decoded`: what a codec costs, how close the modes are, and what a second thread brings.

Prints four tables. CPU medians of interleaved rounds; decoding, resizing to 256 and cropping to 224 are
one step. Codecs that are not installed are left out: `pip install --no-deps simplejpeg
opencv-python-headless`. OpenCV resizes by areas, which is its closest to an antialiased bilinear filter.
"""

import dataclasses
import functools
import importlib
import importlib.util
import io
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL
import rich.console
import rich.table
from numpy.typing import NDArray
from PIL import Image, features
from sklearn import datasets

from export import latency
from protos import manifest_pb2
from service.images import decode

SECONDS = 4.0
ROUNDS_MIN = 3
PHOTO_SIZES = ((500, 375), (1024, 768), (1600, 1200), (2048, 1536), (4000, 3000))
LIMITS = decode.Limits(2**27, 10**9)
Rows = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Sample:
    """One file, and what a model wants of it."""

    name: str
    file: bytes
    spec: decode.ImageSpec


def main() -> int:
    """Measure and print."""
    console = rich.console.Console(width=120)
    libjpeg = features.version("libjpeg_turbo")
    console.print(f"{latency.machine()}; Pillow {PIL.__version__} with libjpeg-turbo {libjpeg}")
    for table in (_codecs(), _agreement(), _threads(), _memory()):
        console.print(table)
    return 0


def _spec(color: manifest_pb2.Color, size: int, resize_px: int = 0) -> decode.ImageSpec:
    resize = manifest_pb2.RESIZE_SHORTER_SIDE if resize_px else manifest_pb2.RESIZE_STRETCH
    return decode.image_spec(
        manifest_pb2.ImageSpec(
            input="image", height=size, width=size, color=color, resize=resize, resize_px=resize_px,
            interpolation=manifest_pb2.INTERPOLATION_BILINEAR, antialias=True,
        )
    )  # fmt: skip


IMAGENET, DIGIT = _spec(manifest_pb2.COLOR_RGB, 224, 256), _spec(manifest_pb2.COLOR_GRAY, 32)


def _photo(size: tuple[int, int], number: int = 0) -> Image.Image:
    """A real photo of any size, with grain as a camera has it."""
    image = Image.fromarray(datasets.load_sample_images().images[number]).resize(size, Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).normal(0, 4, (size[1], size[0], 1)).astype(np.float32)
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def _saved(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def _jpeg(size: tuple[int, int], number: int = 0) -> bytes:
    return _saved(_photo(size, number), "JPEG", quality=90, subsampling="4:2:0")


def _samples() -> list[Sample]:
    digit = Image.fromarray((datasets.load_digits().images[0] * 15).astype(np.uint8))
    return [
        Sample("JPEG 500x375", _jpeg((500, 375)), IMAGENET),
        Sample("JPEG 4000x3000", _jpeg((4000, 3000)), IMAGENET),
        Sample("PNG 28x28 grey", _saved(digit.resize((28, 28)), "PNG"), DIGIT),
        Sample("PNG 32x32 grey", _saved(digit.resize((32, 32)), "PNG"), DIGIT),
        Sample("PNG 224x224", _saved(_photo((224, 224)), "PNG"), _spec(manifest_pb2.COLOR_RGB, 224)),
    ]


def _ours(sample: Sample, mode: decode.Mode) -> Rows:
    row = np.empty(sample.spec.row_shape, np.uint8)
    decode.decode_into(row, sample.file, 0, sample.spec, LIMITS, mode)
    return row


def _simplejpeg(module: Any, sample: Sample) -> Rows | None:
    if not sample.file.startswith(b"\xff\xd8"):
        return None
    twice = 2 * sample.spec.shorter_side
    scaled = Image.fromarray(module.decode_jpeg(sample.file, "RGB", min_height=twice, min_width=twice))
    return _cropped(np.asarray(scaled.resize(_resized(scaled.size, sample.spec), sample.spec.filter)), sample.spec)


def _opencv(module: Any, sample: Sample) -> Rows:
    flag = module.IMREAD_GRAYSCALE if sample.spec.mode == "L" else module.IMREAD_COLOR_RGB
    pixels = module.imdecode(np.frombuffer(sample.file, np.uint8), flag)
    size = _resized(pixels.shape[1::-1], sample.spec)
    if pixels.shape[1::-1] != size:
        pixels = module.resize(pixels, size, interpolation=module.INTER_AREA)
    return _cropped(pixels, sample.spec)


def _resized(size: tuple[int, int], spec: decode.ImageSpec) -> tuple[int, int]:
    if not spec.shorter_side:
        return (spec.width, spec.height)
    width, height = (int(side * spec.shorter_side / min(size)) for side in size)
    return (width, height)


def _cropped(pixels: Rows, spec: decode.ImageSpec) -> Rows:
    top, left = round((pixels.shape[0] - spec.height) / 2), round((pixels.shape[1] - spec.width) / 2)
    return pixels[top : top + spec.height, left : left + spec.width].reshape(spec.row_shape)


def _pipelines() -> dict[str, Callable[[Sample], Rows | None]]:
    found: dict[str, Callable[[Sample], Rows | None]] = {
        "Fovea, exact": lambda sample: _ours(sample, decode.Mode.EXACT),
        "Fovea, fast": lambda sample: _ours(sample, decode.Mode.FAST),
    }
    if importlib.util.find_spec("simplejpeg"):
        simplejpeg = importlib.import_module("simplejpeg")
        found["simplejpeg scaled + Pillow"] = lambda sample: _simplejpeg(simplejpeg, sample)
    if importlib.util.find_spec("cv2"):
        cv2 = importlib.import_module("cv2")
        cv2.setNumThreads(1)
        found["OpenCV, area"] = lambda sample: _opencv(cv2, sample)
    return found


def _medians_s(steps: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median CPU seconds of each step, measured in turns for `SECONDS`."""
    spent: dict[str, list[float]] = {name: [] for name in steps}
    ends_s = time.perf_counter() + SECONDS
    while time.perf_counter() < ends_s or len(next(iter(spent.values()))) < ROUNDS_MIN:
        for name, step in steps.items():
            started_s = time.thread_time()
            step()
            spent[name].append(time.thread_time() - started_s)
    return {name: statistics.median(times) for name, times in spent.items()}


def _codecs() -> rich.table.Table:
    table = rich.table.Table("file", "codec", "CPU ms", "levels off exact: mean", "max", box=None)
    for sample in _samples():
        exact = _ours(sample, decode.Mode.EXACT).astype(np.int16)
        rows = {name: step(sample) for name, step in _pipelines().items()}
        steps: dict[str, Callable[[], object]] = {
            name: functools.partial(step, sample) for name, step in _pipelines().items() if rows[name] is not None
        }
        for name, median_s in _medians_s(steps).items():
            apart = np.abs(np.asarray(rows[name], np.int16) - exact)
            table.add_row(sample.name, name, f"{median_s * 1e3:.3f}", f"{apart.mean():.3f}", f"{apart.max()}")
    return table


def _agreement() -> rich.table.Table:
    """Fast beside exact; and, to compare, what JPEG itself has changed in the exact row."""
    table = rich.table.Table(
        "photo", "exact ms", "fast ms", "levels apart: mean", "99 %", "max", "JPEG's own error: mean", "max", box=None
    )
    for size in PHOTO_SIZES:
        for number in (0, 1):
            sample = Sample("", _jpeg(size, number), IMAGENET)
            lossless = Sample("", _saved(_photo(size, number), "PNG", compress_level=1), IMAGENET)
            exact, fast = (_ours(sample, mode).astype(np.int16) for mode in decode.Mode)
            apart, own = np.abs(fast - exact), np.abs(_ours(lossless, decode.Mode.EXACT) - exact)
            took = [statistics.median(_times_s(sample, mode)) * 1e3 for mode in decode.Mode]
            table.add_row(
                *(f"{size[0]}x{size[1]} no. {number}", f"{took[0]:.2f}", f"{took[1]:.2f}", f"{apart.mean():.3f}"),
                *(f"{np.quantile(apart, 0.99):.0f}", f"{apart.max()}", f"{own.mean():.3f}", f"{own.max()}"),
            )
    return table


def _times_s(sample: Sample, mode: decode.Mode) -> list[float]:
    times = []
    for _ in range(7):
        started_s = time.thread_time()
        _ours(sample, mode)
        times.append(time.thread_time() - started_s)
    return times


def _threads() -> rich.table.Table:
    """How many times as much two threads do as one: what the codec does without Python's lock."""
    table = rich.table.Table("file", "codec", f"two threads / one, {os.cpu_count()} cores", box=None)
    for sample in _samples():
        for name, step in _pipelines().items():
            if step(sample) is not None:
                table.add_row(sample.name, name, f"{_speedup(functools.partial(step, sample)):.2f}")
    return table


def _speedup(step: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    step()
    times = max(2, int(0.1 / (time.perf_counter() - started_s)))
    ratios = []
    for _ in range(5):
        alone_s, both_s = (_wall_s(step, times, threads) for threads in (1, 2))
        ratios.append(2 * alone_s / both_s)
    return statistics.median(ratios)


def _wall_s(step: Callable[[], object], times: int, threads: int) -> float:
    def work() -> None:
        for _ in range(times):
            step()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    started_s = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - started_s


def _memory() -> rich.table.Table:
    """Rows into a fresh array and into a kept one."""
    table = rich.table.Table("rows", "np.empty µs", "kept µs", box=None)
    for shape in ((1, 32, 32, 1), (1, 224, 224, 3), (8, 224, 224, 3), (32, 224, 224, 3)):
        row, kept = np.ones(shape[1:], np.uint8), np.empty(shape, np.uint8)
        steps: dict[str, Callable[[], object]] = {
            "fresh": functools.partial(_filled_fresh, shape, row),
            "kept": functools.partial(_filled, kept, row),
        }
        medians_s = _medians_s(steps)
        table.add_row(str(shape), f"{medians_s['fresh'] * 1e6:.1f}", f"{medians_s['kept'] * 1e6:.1f}")
    return table


def _filled_fresh(shape: tuple[int, ...], row_hwc: Rows) -> None:
    _filled(np.empty(shape, np.uint8), row_hwc)


def _filled(rows_nhwc: Rows, row_hwc: Rows) -> None:
    for row in rows_nhwc:
        row[...] = row_hwc


if __name__ == "__main__":
    sys.exit(main())
