"""The figures as Markdown, ready for BENCHMARKS.md.

Path: served, limits, overload → **tables** → engine.
"""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from tests.bench import bars, limits, overload, served


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def of_served(measured: served.Measured) -> str:
    """Return images/s, latency, CPU and memory of each way, beside its limits."""
    head = [
        "model, way", "images/s", "/ limit", "p50 ms", "p99 ms", "CPU ms/image", "run + decode alone", "ratio",
        "most of it", "mean batch", "MB",
    ]  # fmt: skip
    return markdown(head, [_row(measured, model, way) for model, way in measured.samples])


def _row(measured: served.Measured, model: str, way: str) -> list[str]:
    samples = measured.samples[model, way]
    rounds = served.rounds_together(measured, model, way)
    run_s, decode_s = (
        statistics.median(one)
        for one in zip(*(_alone_s(measured, model, way, limit) for _, limit in rounds), strict=True)
    )
    rate, cpu_s = served.median(samples, "images_per_s"), served.median(samples, "cpu_s_per_image")
    to_limit = statistics.median(
        sample.images_per_s * sum(_alone_s(measured, model, way, limit)) for sample, limit in rounds
    )
    parts = {"run": run_s, "decode": decode_s, "the rest": cpu_s - run_s - decode_s}
    runs, images = (sum(one) for one in zip(*_batches(samples), strict=True)) if any(_batches(samples)) else (1, 0)
    return [
        f"{model}, {way}", f"{rate:.3g}" if rate < 100 else f"{rate:.0f}", f"{to_limit:.2f}",
        f"{served.median(samples, 'p50_s') * 1e3:.1f}", f"{served.median(samples, 'p99_s') * 1e3:.1f}",
        f"{cpu_s * 1e3:.3f}", f"{run_s * 1e3:.3f} + {decode_s * 1e3:.3f}", f"{cpu_s / (run_s + decode_s):.2f}",
        max(parts, key=lambda part: parts[part]), f"{images / runs:.1f}",
        f"{served.median(samples, 'resident_bytes') / 1e6:.0f}",
    ]  # fmt: skip


def _alone_s(measured: served.Measured, model: str, way: str, limit: limits.Round) -> tuple[float, float]:
    """CPU seconds per image of the run alone and of decoding alone; on one core also their wall time."""
    return measured.best(model, limit).cpu_s, limit.decoded.cpu_s if way.endswith("JPEG") else 0.0


def _batches(samples: list[served.Sample]) -> list[tuple[int, int]]:
    return [
        (sum(sample.batches.values()), sum(size * runs for size, runs in sample.batches.items())) for sample in samples
    ]


def of_noop(measured: served.Measured) -> str:
    """Return what a message costs on a server that does nothing, and beside the run on ours."""
    rows = []
    for way, noops in measured.noop.items():
        rounds = served.rounds_together(measured, served.LENET, way)
        beside_us = statistics.median(bars.beside_run_s(sample, limit) for sample, limit in rounds) * 1e6
        noop_us = served.median(noops, "cpu_s_per_message") * 1e6
        cores = served.median(noops, "generator_cores")
        least = f"{_least_us(measured):.0f}" if way == served.LEAST_WAY else ""
        rows.append([way, f"{noop_us:.0f}", least, f"{beside_us:.0f}", f"{beside_us / noop_us:.2f}", f"{cores:.2f}"])
    head = ["way", "no-op, CPU us/message", "least that batches", "ours beside the run", "ratio", "generator's cores"]
    return markdown(head, rows)


def _least_us(measured: served.Measured) -> float:
    """CPU of the least server that batches, beside its runs, for a message: all of them ran in full batches."""
    limits_around = measured.alone[served.LENET, served.LEAST_WAY]
    images = served.LEAST_IMAGES
    pairs = zip(measured.least, limits_around, strict=True)
    return 1e6 * statistics.median(
        one.cpu_s_per_message - limit.runs[served.LEAST_ROWS].cpu_s * images for one, limit in pairs
    )


def of_limits(measured: served.Measured) -> str:
    """Return ONNX Runtime alone by batch size, one core and one thread, and the decoder."""
    rows = []
    for model in measured.models:
        rounds = measured.limits_of(model)
        by_rows = {
            size: (
                statistics.median(one.runs[size].images_per_s for one in rounds),
                statistics.median(one.runs[size].cpu_s for one in rounds),
            )
            for size in rounds[0].runs
        }
        rows += [[f"{model}, batch {size}", f"{rate:.4g}", f"{cpu * 1e3:.3f}"] for size, (rate, cpu) in by_rows.items()]
        decoded_s = statistics.median(one.decoded.cpu_s for one in rounds)
        rows.append([f"{model}, decoding 500x375", f"{1 / decoded_s:.4g}", f"{decoded_s * 1e3:.3f}"])
    return markdown(["alone, one core", "images/s", "CPU ms/image"], rows)


def of_search(found: Sequence[dict[str, Any]]) -> str:
    """Return the best of instances x threads x batch on all cores."""
    best: dict[str, dict[str, Any]] = {}
    for one in found:
        if one["images_per_s"] > best.get(one["model"], one)["images_per_s"] or one["model"] not in best:
            best[one["model"]] = one
    rows = [
        [model, f"{one['instances']} x {one['threads']}", str(one["rows"]), f"{one['images_per_s']:.4g}"]
        for model, one in best.items()
    ]
    return markdown(["alone, all cores", "instances x threads", "batch", "images/s"], rows)


def of_overload(curve: overload.Curve) -> str:
    """Return goodput, refusals and latency by offered load."""
    head = ["offered / capacity", "offered /s", "goodput /s", "goodput / capacity", "in time, of accepted", "refused"]
    rows = [
        [
            f"{load.share:g}", f"{load.offered:.4g}", f"{load.good:.4g}", f"{load.good / curve.capacity:.2f}",
            f"{load.in_time:.2%}", f"{load.refused:.0%}", f"{load.p50_s * 1e3:.0f}", f"{load.p99_s * 1e3:.0f}",
            f"{load.waiting_max:.0f}", f"{load.resident_bytes / 1e6:.0f}",
            f"{load.counts.get('NOT_SENT', 0) / max(sum(load.counts.values()), 1):.0%}",
        ]
        for load in curve.loads
    ]  # fmt: skip
    return markdown([*head, "p50 ms", "p99 ms", "waiting at most", "MB", "not sent"], rows)
