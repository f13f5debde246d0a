"""What became of each request: noted in flat arrays, and every few thousand added to the tally.

Path: senders → **ledger** → tally.
"""

import array
import collections
import dataclasses
import re

import numpy as np
from numpy.typing import NDArray

from service.loadgen import histogram, tally

OK = "OK"
CANCELLED = "CANCELLED"
"""Cut off by the generator at the end of the run, or by the server."""
NOT_SENT = "NOT_SENT"
"""Meant to be sent, but the generator could not: too far behind, or too many unanswered."""
MESSAGE_ERROR = "MESSAGE_ERROR"
"""An error as an answer in a stream, which carries a sentence and no code."""

_SENTENCES_MAX = 50

_NOTED_MAX = 2048
"""Then they are added to the tally: below a millisecond of work, once in so many requests."""


@dataclasses.dataclass(slots=True)
class Recent:
    """What ended since the last look."""

    ok: int = 0
    failed: int = 0
    latency: histogram.Histogram = dataclasses.field(default_factory=histogram.Histogram)


class Ledger:
    """The requests that have ended.

    Mutable state: notes that are not in the tally yet, the tally, when the measured time ends; touched only on
    the event loop.
    """

    def __init__(self, frame: tally.Frame) -> None:
        self._frame = frame
        self._ends_s = np.inf
        self._intended_s = array.array("d")
        self._sent_s = array.array("d")
        self._ended_s = array.array("d")
        self._status = array.array("B")
        self._numbers: dict[str, int] = {OK: 0, NOT_SENT: 1}
        self._tally = tally.Tally()
        self._recent = Recent()
        self.counts: collections.Counter[str] = collections.Counter()

    def ended(self, intended_s: float, sent_s: float, ended_s: float, status: str, sentence: str = "") -> None:
        """Note one request: when it was meant to be sent, when it was, when it ended, and how."""
        self._intended_s.append(intended_s)
        self._sent_s.append(sent_s)
        self._ended_s.append(ended_s)
        self._status.append(self._numbers.setdefault(status, len(self._numbers)))
        self.counts[status] += 1
        if sentence and self._is_measured(np.array(intended_s if self._frame.counts_intended else ended_s)):
            self._note(f"{status}: {sentence}")
        if len(self._status) >= _NOTED_MAX:
            self._add_up()

    def ends_at(self, ends_s: float) -> None:
        """Say when the measured time ends, or has ended."""
        self._ends_s = ends_s

    def tally(self) -> tally.Tally:
        """Return all counts so far."""
        self._add_up()
        return self._tally

    def recent(self) -> Recent:
        """Return what ended since the last call."""
        self._add_up()
        recent, self._recent = self._recent, Recent()
        return recent

    def __len__(self) -> int:
        return self.counts.total()

    @property
    def sentences(self) -> collections.Counter[str]:
        """How often which error was told in the measured time, without its numbers."""
        return self._tally.sentences

    def _add_up(self) -> None:
        if not self._status:
            return
        intended_s, sent_s, ended_s = (np.array(one) for one in (self._intended_s, self._sent_s, self._ended_s))
        status = np.array(self._status)
        for one in (self._intended_s, self._sent_s, self._ended_s, self._status):
            del one[:]
        part = _Part(intended_s, sent_s, ended_s, status, status == self._numbers[OK])
        self._count(part)
        self._count_windows(part)
        self._recent.ok += int(part.is_ok.sum())
        self._recent.failed += int((~part.is_ok).sum())
        self._recent.latency.add((ended_s - intended_s)[part.is_ok])

    def _count(self, part: "_Part") -> None:
        frame, counted = self._frame, self._tally
        measured = self._is_measured(part.intended_s if frame.counts_intended else part.ended_s)
        latency_s = part.ended_s - part.intended_s
        good = part.is_ok & (latency_s <= frame.deadline_s)
        names = list(self._numbers)
        for counts, which in ((counted.counts, measured), (counted.all_counts, slice(None))):
            for number, count in enumerate(np.bincount(part.status[which])):
                if count:
                    counts[names[number]] += int(count)
        counted.measured.add(latency_s[part.is_ok & measured])
        counted.from_sent.add((part.ended_s - part.sent_s)[part.is_ok & measured])
        counted.whole.add(latency_s[part.is_ok])
        counted.lag.add((part.sent_s - part.intended_s)[part.status != self._numbers[NOT_SENT]])
        counted.in_time += int((good & measured).sum())
        within = (part.ended_s >= frame.measured_from_s) & (part.ended_s <= self._ends_s)
        for answers, which in ((counted.answered, part.is_ok & within), (counted.good, good & within)):
            # Twice the edge: the gap after its last answer counts, too.
            answers.add(part.ended_s[which], frame.measured_from_s + 2 * frame.edge_s, 2 * frame.edge_s)
        counted.first_sent_s = min(counted.first_sent_s, float(part.sent_s.min()))
        counted.last_ended_s = max(counted.last_ended_s, float(part.ended_s.max()))

    def _count_windows(self, part: "_Part") -> None:
        meant, ended = (self._places(times_s) for times_s in (part.intended_s, part.ended_s))
        for number in np.unique(np.concatenate((meant, ended))):
            if number < 0:
                continue
            window = self._tally.windows.setdefault(int(number), tally.Window())
            here = ended == number
            window.intended += int((meant == number).sum())
            window.ok += int((here & part.is_ok).sum())
            window.failed += int((here & ~part.is_ok).sum())
            window.latency.add((part.ended_s - part.intended_s)[here & part.is_ok])

    def _is_measured(self, by_s: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether requests count that were meant to be sent, or that ended, at these times."""
        return (by_s >= self._frame.measured_from_s) & (by_s <= self._ends_s)

    def _places(self, times_s: NDArray[np.float64]) -> NDArray[np.int64]:
        """The window of each time; -1 outside of the measured time."""
        places = np.floor((times_s - self._frame.measured_from_s) / self._frame.window_s).astype(np.int64)
        places[times_s > self._ends_s] = -1
        return places

    def _note(self, sentence: str) -> None:
        """Count a sentence; its numbers are left out, so that the same error is the same sentence."""
        kind = re.sub(r"\d+(\.\d+)?", "N", sentence)
        if kind in self.sentences or len(self.sentences) < _SENTENCES_MAX:
            self.sentences[kind] += 1


@dataclasses.dataclass(frozen=True, slots=True)
class _Part:
    """Requests that ended since the last addition, (n,) each."""

    intended_s: NDArray[np.float64]
    sent_s: NDArray[np.float64]
    ended_s: NDArray[np.float64]
    status: NDArray[np.uint8]
    is_ok: NDArray[np.bool_]
