"""`make bench`: LeNet-5 as served beside ONNX Runtime alone, interleaved; medians of rounds.

Prints a table: images/s and CPU seconds of the server's process per image, unary and over streams,
PNG files and pixels. Needs `models/lenet5` (`make demo` makes it).
"""

import asyncio
import dataclasses
import pathlib
import statistics
import sys
import tempfile
import time

import numpy as np
import rich.console
import rich.progress
import rich.table

import demo
from export import digits
from protos import inference_pb2
from service import client
from service.runtime import cores, providers, session
from tests import conftest

ROUNDS, MESSAGES = 5, 2000
REPOSITORY = pathlib.Path("models")


@dataclasses.dataclass(frozen=True)
class Figures:
    """One round: images a second, and CPU milliseconds of the server per image."""

    rate: float
    cpu_ms: float


def main() -> int:
    """Run the rounds and print their medians."""
    if not (REPOSITORY / "lenet5/1/model.onnx").exists():
        print("models/lenet5 is not there: run `make demo` first", file=sys.stderr)  # noqa: T201 - the command's output
        return 1
    with (
        tempfile.TemporaryDirectory() as folder,
        conftest.running(REPOSITORY, pathlib.Path(folder) / "log", "--device", "cpu") as server,
    ):
        results = asyncio.run(_rounds(server))
    _print(results)
    return 0


async def _rounds(server: conftest.RunningServer) -> dict[str, list[Figures]]:
    held_out = digits.load()[1]
    results: dict[str, list[Figures]] = {}
    async with client.Client(server.address) as connection:
        signature = dataclasses.replace(await connection.signature("lenet5"), output="logits")
        png = [client.image_request(signature, [file], request_id=str(n)) for n, file in enumerate(_files(held_out))]
        pixels = [_pixel_request(signature, row, str(n)) for n, row in enumerate(_rows(held_out))]
        ways = {
            "unary, PNG": (png, demo.send_unary),
            "unary, pixels": (pixels, demo.send_unary),
            "streams, PNG": (png, demo.send_streamed),
            "streams, pixels": (pixels, demo.send_streamed),
        }
        for _ in rich.progress.track(range(ROUNDS), "rounds"):
            for name, (requests, how) in ways.items():
                results.setdefault(name, []).append(await _one(connection, server, requests, how))
            for batch in (1, 16):
                results.setdefault(f"ONNX Runtime alone, batch {batch}", []).append(_alone(held_out, batch))
    return results


def _files(held_out: digits.Digits) -> list[bytes]:
    files = demo.png_files(held_out)
    return [files[number % len(files)] for number in range(MESSAGES)]


def _rows(held_out: digits.Digits) -> list[np.ndarray]:
    return [held_out.images_nhwc[number % 450][None] for number in range(MESSAGES)]


def _pixel_request(
    signature: client.Signature, row_nhwc: np.ndarray, request_id: str
) -> inference_pb2.ModelInferRequest:
    request = inference_pb2.ModelInferRequest(model_name=signature.model, id=request_id)
    request.inputs.add(name=signature.image_input, datatype="UINT8", shape=row_nhwc.shape)
    request.raw_input_contents.append(row_nhwc.tobytes())
    request.outputs.add(name=signature.output)
    return request


async def _one(
    connection: client.Client,
    server: conftest.RunningServer,
    requests: list[inference_pb2.ModelInferRequest],
    how: demo.Send,
) -> Figures:
    cpu_before_s, started_s = _cpu_s(server.process.pid), time.perf_counter()
    await how(connection, requests, demo.Traffic(""))
    wall_s, cpu_s = time.perf_counter() - started_s, _cpu_s(server.process.pid) - cpu_before_s
    return Figures(len(requests) / wall_s, cpu_s / len(requests) * 1e3)


def _alone(held_out: digits.Digits, batch: int) -> Figures:
    options = session.Options(providers.choose("cpu"), cores.available())
    loaded = session.Session("lenet5", REPOSITORY / "lenet5/1/model.onnx", options)
    images_nhwc = held_out.images_nhwc[:batch]
    runs = MESSAGES // batch
    cpu_before_s, started_s = time.process_time(), time.perf_counter()
    for _ in range(runs):
        loaded.run({"image": images_nhwc}, ["logits"])
    wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_before_s
    return Figures(runs * batch / wall_s, cpu_s / (runs * batch) * 1e3)


def _cpu_s(pid: int) -> float:
    """User and system seconds of a process, in steps of 10 ms."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _print(results: dict[str, list[Figures]]) -> None:
    table = rich.table.Table("way", "images/s", "server CPU ms/image", box=None)
    for name, rounds in results.items():
        rate, cpu_ms = (
            statistics.median(getattr(figures, field) for figures in rounds) for field in ("rate", "cpu_ms")
        )
        table.add_row(name, f"{rate:.0f}", f"{cpu_ms:.3f}")
    rich.console.Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
