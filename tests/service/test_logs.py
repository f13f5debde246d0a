"""Log lines: JSON or console, about which request, and how many of them."""

import io
import json
import logging
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator

import PIL.Image
import pytest

from service import logs


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines(clock: Clock) -> Iterator[io.StringIO]:
    """What a logger named `service.test` writes as JSON."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    handler.addFilter(logs.Flood(clock))
    loggers = [logging.getLogger(name) for name in ("service.test", "other")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    yield stream
    for logger in loggers:
        logger.removeHandler(handler)
        logger.propagate = True


def entries(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def in_a_request(request: logs.Request, act: object) -> None:
    """Every request has a context of its own; so has a thread."""

    def run() -> None:
        logs.concerns(request)
        act()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def test_a_line_says_which_request_it_is_about(lines: io.StringIO) -> None:
    request = logs.Request("7\n8", "lenet5", "a" * 32)
    in_a_request(request, lambda: logging.getLogger("service.test").error("it failed"))
    logging.getLogger("service.test").error("nobody's")
    about, other = entries(lines)
    assert (about["request_id"], about["model"], about["trace_id"]) == ("7\n8", "lenet5", "a" * 32)
    assert (about["level"], about["logger"], about["message"]) == ("error", "service.test", "it failed")
    assert not set(other) & {"request_id", "model", "trace_id"}


def test_a_stack_trace_is_part_of_its_line(lines: io.StringIO) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("service.test").exception("caught")
    (entry,) = entries(lines)
    assert entry["message"] == "caught"
    assert "ValueError: two\nlines" in str(entry["trace"])


def test_long_texts_are_cut(lines: io.StringIO) -> None:
    request = logs.Request("i" * 10**6, "lenet5", "")
    in_a_request(request, lambda: logging.getLogger("service.test").error("x" * 10**6))
    assert len(lines.getvalue()) < 20_000
    assert "characters more" in str(entries(lines)[0]["message"])


def fail(number: int) -> None:
    logging.getLogger("service.test").error("request %d failed", number)


def test_of_a_flood_a_burst_is_written_then_a_line_now_and_then_with_the_count(
    lines: io.StringIO, clock: Clock
) -> None:
    request = logs.Request("", "lenet5", "")
    for number in range(1000):
        in_a_request(request, lambda number=number: fail(number))
    assert [entry["message"] for entry in entries(lines)] == [f"request {number} failed" for number in range(10)]
    clock.now_s = 9.9
    in_a_request(request, lambda: fail(1000))
    assert len(entries(lines)) == 10
    clock.now_s = 10.0
    in_a_request(request, lambda: fail(1001))
    last = entries(lines)[-1]
    assert (last["message"], last["suppressed"]) == ("request 1001 failed", 991)


def test_models_and_places_have_bursts_of_their_own(lines: io.StringIO) -> None:
    for model in ("a", "b"):
        for _ in range(20):
            in_a_request(logs.Request("", model, ""), lambda: fail(0))
    in_a_request(logs.Request("", "a", ""), lambda: logging.getLogger("service.test").error("another place"))
    assert len(entries(lines)) == 21


def test_the_servers_own_lines_are_all_written_and_other_libraries_are_not_trusted(lines: io.StringIO) -> None:
    for number in range(50):
        fail(number)
    assert len(entries(lines)) == 50
    for _ in range(50):
        logging.getLogger("other").warning("a client did that")
    assert len(entries(lines)) == 60


def camera_jpeg(description: str) -> bytes:
    """As cameras write it: EXIF, and no JFIF; Pillow then reads the EXIF as it opens the file."""
    exif = PIL.Image.Exif()
    exif[0x010E] = description
    written = io.BytesIO()
    PIL.Image.new("L", (28, 28)).save(written, "JPEG", exif=exif)
    file = written.getvalue()
    assert file[2:4] == b"\xff\xe0", "JFIF's segment comes first"
    return file[:2] + file[4 + int.from_bytes(file[4:6], "big") :]


def said_by(script: str) -> str:
    """What a program of its own writes to stderr."""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
    )
    return ended.stderr


def test_pillow_does_not_tell_what_is_in_a_photo(tmp_path: pathlib.Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(camera_jpeg("SECRET"))
    script = f"""
import logging
import PIL.Image
from service import logs
logs.set_up("json", "debug")
logging.getLogger("elsewhere").debug("heard")
PIL.Image.open({str(photo)!r}).load()
"""
    said = said_by(script)
    assert "heard" in said
    assert "SECRET" not in said


SCRIPT = """
import logging, sys, threading, warnings
from service import logs
logs.set_up({log_format!r}, "info")
logging.getLogger("grpc").error("not %s", "ours")
warnings.warn("a warning")
thread = threading.Thread(target=lambda: 1 / 0, name="worker")
thread.start(); thread.join()
logging.getLogger("service").info("umlaut \\u00e4 and half a pair \\ud800")
raise RuntimeError("the last")
"""


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_everything_that_passes_logging_is_json_last_words_too(encoding: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(log_format="json")],
        capture_output=True,
        check=False,
        timeout=60,
        env={"PYTHONIOENCODING": encoding, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
    )
    written = [json.loads(line) for line in ended.stderr.decode().splitlines()]
    assert ended.returncode == 1
    assert [entry["level"] for entry in written] == ["error", "warning", "critical", "info", "critical"]
    assert "UserWarning: a warning" in written[1]["message"]
    assert written[2]["message"] == "thread worker ended with an unexpected error"
    assert "ZeroDivisionError" in written[2]["trace"]
    assert "RuntimeError: the last" in written[4]["trace"]


def test_console_lines_say_it_in_brackets() -> None:
    script = """
from service import logs
import logging
logs.set_up("console", "info")
logs.concerns(logs.Request("a\\nb", "lenet5", ""))
logging.getLogger("service").error("it failed")
"""
    said = said_by(script)
    (line,) = said.splitlines()
    assert line.endswith("ERROR   it failed [request_id='a\\nb', model='lenet5']")
