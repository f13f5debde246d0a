"""`make demo`: the main job from beginning to end, on real handwritten digits.

Trains LeNet-5, exports it, starts the server, sends 450 held-out digits as PNG files over gRPC, and
shows how right, how fast and how near to PyTorch the answers are. Ends by saying how to go on by hand.
"""

import asyncio
import contextlib
import dataclasses
import io
import json
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import numpy as np
import rich.console
import rich.progress
import rich.table
import torch
from PIL import Image

from export import digits, pictures, reference, signature, weights, zoo
from protos import inference_pb2
from service import client

BUILD = pathlib.Path("build/demo")
WEIGHTS = BUILD / "lenet5-digits.pt"
REPOSITORY = pathlib.Path("models")
FOVEA = str(pathlib.Path(sys.executable).with_name("fovea"))
MODEL = "lenet5"

ROUNDS = 10
"""How often the 450 digits are sent, so that the figures are of more than a tenth of a second."""
UNARY_CALLS = 32
STREAMS, IN_FLIGHT = 8, 64

ACCURACY_MIN, BATCH_MIN = 0.97, 4.0
READY_WITHIN_S, DRAIN_WITHIN_S = 30.0, 30.0

console = rich.console.Console(highlight=False)


class DemoFailed(Exception):
    """The demo did not show what it must show."""


@dataclasses.dataclass(slots=True)
class Traffic:
    """What one way of sending brought: answers by number of the message, latencies, and the wall time."""

    name: str
    answers: dict[int, inference_pb2.ModelInferResponse] = dataclasses.field(default_factory=dict)
    latencies_s: list[float] = dataclasses.field(default_factory=list)
    wall_s: float = 0.0
    mean_batch: float = 0.0


Send = Callable[[client.Client, list[inference_pb2.ModelInferRequest], Traffic], Awaitable[None]]


def main() -> int:
    """Run the demo; 0 if it showed what it must."""
    started_s = time.perf_counter()
    try:
        train_and_export()
        held_out = digits.load()[1]
        files = png_files(held_out)
        with server() as address:
            unary, streamed = asyncio.run(send_both_ways(address, files))
        report(held_out, unary, streamed)
    except (DemoFailed, subprocess.CalledProcessError) as error:
        console.print(f"[red]demo failed:[/red] {error}")
        return 1
    console.print(f"\nThe demo took {time.perf_counter() - started_s:.0f} s. To go on by hand:\n")
    console.print("  [bold].venv/bin/fovea serve --repository models[/bold]")
    console.print(f"  [bold].venv/bin/fovea classify --model {MODEL} {BUILD}/digits/000.png[/bold]")
    return 0


def train_and_export() -> None:
    """Train unless it is done, export unless the repository holds exactly these weights."""
    console.rule("train")
    subprocess.run([sys.executable, "-m", "export.digits", "--out", str(WEIGHTS)], check=True)
    console.rule("export")
    network = trained()
    graph = REPOSITORY / MODEL / "1" / "model.onnx"
    if graph.exists() and weights.sha256(network).encode() in graph.read_bytes():
        console.print(f"{graph} holds these weights already")
        return
    export = [FOVEA, "export", MODEL, "--repository", str(REPOSITORY), "--weights", str(WEIGHTS), "--replace"]
    subprocess.run([*export, "--outputs", "probabilities"], check=True)


def trained() -> torch.nn.Module:
    """Return LeNet-5 with the trained weights."""
    lenet5 = zoo.find(MODEL)
    return weights.load(lenet5, str(WEIGHTS), lenet5.classes, seed=0).network


def png_files(held_out: digits.Digits) -> list[bytes]:
    """Return the digits as PNG files; they are written to build/demo/digits/ as well."""
    folder = BUILD / "digits"
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, image_hwc in enumerate(held_out.images_nhwc):
        buffer = io.BytesIO()
        Image.fromarray(image_hwc[:, :, 0]).save(buffer, "PNG")
        files.append(buffer.getvalue())
        (folder / f"{number:03}.png").write_bytes(files[-1])
    return files


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Start the server on free ports, yield its address, and drain it."""
    console.rule("serve")
    log_path = BUILD / "server.log"
    command = [FOVEA, "serve", "--repository", str(REPOSITORY), "--grpc-port", "0", "--metrics-port", "0"]
    with log_path.open("wb") as log:
        started_s = time.perf_counter()
        process = subprocess.Popen(command, stderr=log)
    try:
        address = wait_until_ready(process, log_path)
        console.print(f"ready after {time.perf_counter() - started_s:.2f} s on {address} (log: {log_path})")
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(DRAIN_WITHIN_S)
    if status != 0:
        raise DemoFailed(f"the server ended with status {status} after SIGTERM; see {log_path}")


def wait_until_ready(process: "subprocess.Popen[bytes]", log_path: pathlib.Path) -> str:
    """Return the address once the server's log says that it is ready."""
    give_up_s = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < give_up_s and process.poll() is None:
        ready = re.search(r"ready: gRPC on (\S+:\d+)", log_path.read_text())
        if ready:
            return ready[1]
        time.sleep(0.02)
    raise DemoFailed(f"the server did not become ready:\n{log_path.read_text()}")


async def send_both_ways(address: str, files: list[bytes]) -> tuple[Traffic, Traffic]:
    """Send all digits as concurrent unary calls, then over streams."""
    async with client.Client(address, streams=False) as connection:
        signature = dataclasses.replace(await connection.signature(MODEL), output="logits")
        requests = [
            client.image_request(signature, [files[number % len(files)]], request_id=str(number))
            for number in range(ROUNDS * len(files))
        ]
        unary = await send(connection, requests, Traffic(f"{UNARY_CALLS} unary calls"), send_unary)
        streamed = await send(connection, requests, Traffic(f"streams, {IN_FLIGHT} in flight"), send_streamed)
    return unary, streamed


async def send(
    connection: client.Client, requests: list[inference_pb2.ModelInferRequest], traffic: Traffic, how: Send
) -> Traffic:
    """Send all requests, with a progress bar, and read the mean batch size off the server's counts."""
    before = await connection.statistics(MODEL)
    started_s = time.perf_counter()
    with rich.progress.Progress(console=console, transient=True) as bar:
        task = bar.add_task(traffic.name, total=len(requests))
        sending = asyncio.ensure_future(how(connection, requests, traffic))
        while not (await asyncio.wait((sending,), timeout=0.2))[0]:
            bar.update(task, completed=len(traffic.answers))
        sending.result()
    traffic.wall_s = time.perf_counter() - started_s
    after = await connection.statistics(MODEL)
    runs = after.execution_count - before.execution_count
    traffic.mean_batch = (after.inference_count - before.inference_count) / runs
    return traffic


async def send_unary(
    connection: client.Client, requests: list[inference_pb2.ModelInferRequest], traffic: Traffic
) -> None:
    """Keep UNARY_CALLS calls under way."""
    queue = iter(enumerate(requests))

    async def caller() -> None:
        for number, request in queue:
            sent_s = time.perf_counter()
            traffic.answers[number] = await connection.infer(request)
            traffic.latencies_s.append(time.perf_counter() - sent_s)

    await asyncio.gather(*(caller() for _ in range(UNARY_CALLS)))


async def send_streamed(
    connection: client.Client, requests: list[inference_pb2.ModelInferRequest], traffic: Traffic
) -> None:
    """Keep IN_FLIGHT messages under way, spread over STREAMS streams, one image each."""
    await asyncio.gather(*(one_stream(connection, requests[first::STREAMS], traffic) for first in range(STREAMS)))


async def one_stream(
    connection: client.Client, requests: list[inference_pb2.ModelInferRequest], traffic: Traffic
) -> None:
    """Send requests over one stream, IN_FLIGHT / STREAMS at a time."""
    room = asyncio.Semaphore(IN_FLIGHT // STREAMS)
    sent_s: dict[str, float] = {}

    async def messages() -> AsyncIterator[inference_pb2.ModelInferRequest]:
        for request in requests:
            await room.acquire()
            sent_s[request.id] = time.perf_counter()
            yield request

    async for answer in connection.stream(messages()):
        if answer.error_message:
            raise DemoFailed(f"a message failed: {answer.error_message}")
        number = answer.infer_response.id
        traffic.latencies_s.append(time.perf_counter() - sent_s[number])
        traffic.answers[int(number)] = answer.infer_response
        room.release()


def report(held_out: digits.Digits, unary: Traffic, streamed: Traffic) -> None:
    """Print the figures, draw the picture, and fail where a figure is not as promised."""
    console.rule("results")
    table = rich.table.Table("sent as", "images", "accuracy", "images/s", "p50 ms", "p99 ms", "mean batch", box=None)
    accuracies = []
    for traffic in (unary, streamed):
        logits = served_logits(traffic)
        labels = np.resize(held_out.labels, len(logits))
        accuracies.append(float((logits.argmax(1) == labels).mean()))
        p50_ms, p99_ms = np.percentile(traffic.latencies_s, (50, 99)) * 1e3
        rate = len(logits) / traffic.wall_s
        table.add_row(
            *(traffic.name, str(len(logits)), f"{accuracies[-1]:.2%}", f"{rate:.0f}"),
            *(f"{p50_ms:.1f}", f"{p99_ms:.1f}", f"{traffic.mean_batch:.1f}"),
        )
    console.print(table)
    difference, agreement = compare_with_pytorch(held_out, served_logits(streamed))
    console.print(f"\nagainst PyTorch: max |Δlogit| {difference:.1e}, top-1 agreement {agreement:.2%}")
    console.print(f"picture: {draw(held_out, served_logits(streamed)[: len(held_out.labels)])}")
    if min(accuracies) < ACCURACY_MIN or streamed.mean_batch < BATCH_MIN or agreement < 1:
        raise DemoFailed(f"expected accuracy >= {ACCURACY_MIN}, mean batch on streams >= {BATCH_MIN}, agreement 100 %")


def served_logits(traffic: Traffic) -> np.ndarray:
    """Return the logits in the order of sending: (messages, 10) float32."""
    return np.concatenate([client.tensors(traffic.answers[number])["logits"] for number in sorted(traffic.answers)])


def compare_with_pytorch(held_out: digits.Digits, logits: np.ndarray) -> tuple[float, float]:
    """Return max |Δlogit| and the share of equal top-1 between the served and PyTorch's answers."""
    pytorch = reference.TorchReference(trained(), ("logits",), {}, zoo.find(MODEL).preprocessing, signature.UINT8_NHWC)
    wanted = np.resize(pytorch.run({"image": held_out.images_nhwc}, np.float32)["logits"], logits.shape)
    return float(np.abs(logits - wanted).max()), float((logits.argmax(1) == wanted.argmax(1)).mean())


def draw(held_out: digits.Digits, logits: np.ndarray) -> pathlib.Path:
    """Draw the contact sheet and return its path."""
    scaled = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = scaled / scaled.sum(1, keepdims=True)
    tiles = [
        pictures.Tile(image[:, :, 0], str(label), str(row.argmax()), float(row.max()))
        for image, label, row in zip(held_out.images_nhwc, held_out.labels, probabilities, strict=True)
    ]
    wrong = sum(tile.is_wrong for tile in tiles)
    path = BUILD / "contact-sheet.png"
    title = (
        f"LeNet-5, served over gRPC: {len(tiles) - wrong} of {len(tiles)} held-out digits right, least certain first"
    )
    pictures.contact_sheet(tiles, path, title)
    (BUILD / "figures.json").write_text(json.dumps({"wrong": wrong, "digits": len(tiles)}) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
