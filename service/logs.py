"""Log lines: for people on a console, or one JSON object a line for collectors.

Path: logging → **logs** → stderr.

Lines never hold contents of images, strings of tensors, or values of parameters. What ONNX Runtime gives as the
cause of a failed run may name a number, such as an index that is out of range.

What a request's failure is worth, from which level on:

    error   INTERNAL, with the cause: a run that raised, or a mistake of ours
    debug   all others: they are their callers' business, who are told, and are counted in the metrics

Whoever sends bad requests can make the server log, so of lines that requests cause only some of each kind are
written (`Flood`): no flood of requests fills a disk.

What ONNX Runtime's and gRPC's C++ write to stderr themselves does not pass here; both write errors only.
"""

import contextvars
import datetime
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple

log = logging.getLogger(__name__)

_TEXT_MAX = 16 * 1024
"""Characters of a message or a stack trace that are written; a client's names may be as long as messages get."""
_ID_MAX = 128
"""Characters of a request's id that are written."""
_OURS, _EDGE = "service", "service.wire"
_NEVER_BELOW = {"PIL": logging.INFO}
"""Libraries whose debug lines hold contents of images: Pillow tells the tags of EXIF with their values."""
_BURST = 10
"""So many lines of a kind at once: enough to see whether they are alike."""
_ONE_MORE_EVERY_S = 10.0
"""Then one in this time: with a stack trace of 5 kB some 45 MB a day."""


class Request(NamedTuple):
    """Which request a line is about. Empty: not known."""

    id: str
    model: str
    trace_id: str


_REQUEST: contextvars.ContextVar[Request | None] = contextvars.ContextVar("request", default=None)


def concerns(request: Request) -> None:
    """Let what this task logs from now on say that it is about this request. Every request has a task of its own."""
    _REQUEST.set(request)


class JsonFormatter(logging.Formatter):
    """One JSON object a line.

    Fields: time (UTC), level, logger, message; for a request `request_id`, `model`, `trace_id`, those that are
    known; `trace`, the stack trace of an exception; `suppressed`, how many lines of this kind were left out before it.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        entry: dict[str, str | int] = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _short(record.getMessage()),
        }
        entry |= {name: value for name, value in _about().items() if value}
        if suppressed := _suppressed(record):
            entry["suppressed"] = suppressed
        if record.exc_info and record.exc_info[0] is not None:
            entry["trace"] = _short(self.formatException(record.exc_info))
        return json.dumps(entry)  # in ASCII: valid whatever the terminal's encoding is


class ConsoleFormatter(logging.Formatter):
    """Time, level, message; what is known of a request in brackets behind it; stack traces on lines of their own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the first line."""
        about = [f"{name}={value!r}" for name, value in _about().items() if value]
        if suppressed := _suppressed(record):
            about.append(f"{suppressed} more like it before")
        record.message = _short(record.message)
        return super().formatMessage(record) + (f" [{', '.join(about)}]" if about else "")

    def formatException(self, ei: "_ExcInfo") -> str:  # noqa: N802 - logging's name
        """Return the stack trace, shortened."""
        return _short(super().formatException(ei))


_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class Flood(logging.Filter):
    """Lets a burst of lines of a kind through, then one now and then, which says how many were left out.

    A kind is a place in the code, with the model that it is about. Only lines that requests can cause count: those
    that concern one, those of the edge, and those of other libraries.

    Mutable state: of each kind the lines that are left and those left out; under a lock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, int, str], _Kind] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a line is written."""
        request = _REQUEST.get()
        if request is None and record.name.startswith(_OURS) and not record.name.startswith(_EDGE):
            return True
        key = (record.pathname, record.lineno, request.model if request else "")
        now_s = self._clock()
        with self._lock:
            kind = self._kinds.setdefault(key, _Kind(now_s))
            left_out = kind.take(now_s)
        if left_out is None:
            return False
        record.suppressed = left_out
        return True


class _Kind:
    """Lines of one kind. Mutable state: all; touched only under Flood's lock."""

    __slots__ = ("left", "left_out", "looked_s")

    def __init__(self, now_s: float) -> None:
        self.left = float(_BURST)
        self.left_out = 0
        self.looked_s = now_s

    def take(self, now_s: float) -> int | None:
        """Return how many were left out before this line, None if it is left out as well."""
        self.left = min(_BURST, self.left + (now_s - self.looked_s) / _ONE_MORE_EVERY_S)
        self.looked_s = now_s
        if self.left < 1:
            self.left_out += 1
            return None
        self.left -= 1
        left_out, self.left_out = self.left_out, 0
        return left_out


def set_up(log_format: str, level: str) -> None:
    """Send everything of at least `level` to stderr as "console" or "json"; warnings and last words too."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else ConsoleFormatter())
    handler.addFilter(Flood())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name, least in _NEVER_BELOW.items():
        logging.getLogger(name).setLevel(least)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    log.critical("the process ends with an unexpected error", exc_info=(kind, error, trace))


def _uncaught_in_thread(ended: threading.ExceptHookArgs) -> None:
    name = ended.thread.name if ended.thread else "gone"
    if ended.exc_value is not None:
        log.critical("thread %s ended with an unexpected error", name, exc_info=ended.exc_value)


def _about() -> dict[str, str]:
    """What is known of the request that this task works for."""
    request = _REQUEST.get()
    if request is None:
        return {}
    return {"request_id": request.id[:_ID_MAX], "model": request.model, "trace_id": request.trace_id}


def _suppressed(record: logging.LogRecord) -> int:
    return getattr(record, "suppressed", 0)


def _short(text: str) -> str:
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}… ({len(text) - _TEXT_MAX} characters more)"
