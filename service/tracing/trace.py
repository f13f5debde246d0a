"""What a traced request leaves behind on its way: marks in plain numbers, made into spans at its end.

Path: passage, batcher → **trace** → otlp.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Ran(NamedTuple):
    """One run of a batch. Times are seconds of `time.monotonic`."""

    started_s: float
    """When it was handed over."""
    ended_s: float
    """When its outputs were back."""
    gather_s: float
    run_s: float
    samples: int
    rows: int
    """Samples and padding."""
    error: BaseException | None = None


class Trace:
    """A traced request.

    Mutable state: all of it; touched only on the event loop.
    """

    __slots__ = ("decoded_s", "id", "model", "offset_ns", "runs", "samples", "span", "submitted_s")

    def __init__(self, span: Any, trace_id: str, offset_ns: int) -> None:
        self.span = span
        """OpenTelemetry's span of the request."""
        self.id = trace_id
        """32 hexadecimal digits."""
        self.offset_ns = offset_ns
        """From `time.monotonic` to the time of day; one for all spans of a request, so that they fit together."""
        self.model = ("", "")
        """Name and version, as soon as they are known."""
        self.samples = 0
        self.decoded_s: tuple[float, float] | None = None
        """From when to when its images were decoded."""
        self.submitted_s: float | None = None
        self.runs: list[tuple[Ran, Any]] = []
        """The runs it had a part in, each with its batch's span context."""

    def admitted(self, model: tuple[str, str], samples: int) -> None:
        """It has a place in the queue of a model: name and version."""
        self.model, self.samples = model, samples

    def decoded(self, decode_s: float) -> None:
        """Its images are decoded now."""
        now_s = time.monotonic()
        self.decoded_s = (now_s - decode_s, now_s)

    def submitted(self) -> None:
        """From now on it waits for a batch."""
        self.submitted_s = time.monotonic()


class End(NamedTuple):
    """How a request ended: the name of a gRPC code, and for how many seconds the reply was made."""

    code: str
    reply_s: float = 0.0
    error: BaseException | None = None


class Tracer(Protocol):
    """What the server tells of its requests. Everything on the event loop."""

    is_on: bool
    """Whether anything is traced at all."""
    ratio: float
    """The share of requests without a parent that is traced, 0 to 1."""

    def set(self, *, is_on: bool, ratio: float) -> None:
        """Change both, for requests that begin from now on."""

    def arrives(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """A call or a stream has come, in the task that asks; its metadata holds for what begins in it."""

    def begin(self, method: str, request_id: str, carrier: Mapping[str, str]) -> Trace | None:
        """Return the trace of a request that begins now; None: it is not traced. `carrier`: context of its own."""

    def ran(self, traces: Sequence[Trace], run: Ran) -> None:
        """A batch has run, with these of its requests being traced."""

    def end(self, trace: Trace, end: End) -> None:
        """A request has ended now."""

    def current_id(self) -> str:
        """Return the trace id that came with the call of this task, 32 hexadecimal digits; empty without one."""
        ...
