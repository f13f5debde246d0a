"""What became of each request, kept small: times and a status number, in flat arrays.

Path: senders → **ledger** → result.
"""

import array
import collections
import re

import numpy as np
from numpy.typing import NDArray

OK = "OK"
CANCELLED = "CANCELLED"
"""Cut off by the generator at the end of the run, or by the server."""
NOT_SENT = "NOT_SENT"
"""Meant to be sent, but the generator could not: too far behind, or too many unanswered."""
MESSAGE_ERROR = "MESSAGE_ERROR"
"""An error as an answer in a stream, which carries a sentence and no code."""

_SENTENCES_MAX = 50


class Ledger:
    """The requests that have ended.

    Mutable state: the arrays and counts; touched only on the event loop.
    """

    def __init__(self) -> None:
        self._intended_s = array.array("d")
        self._sent_s = array.array("d")
        self._ended_s = array.array("d")
        self._status = array.array("B")
        self._numbers: dict[str, int] = {}
        self.counts: collections.Counter[str] = collections.Counter()
        self.sentences: collections.Counter[str] = collections.Counter()

    def ended(self, intended_s: float, sent_s: float, ended_s: float, status: str, sentence: str = "") -> None:
        """Note one request: when it was meant to be sent, when it was, when it ended, and how."""
        self._intended_s.append(intended_s)
        self._sent_s.append(sent_s)
        self._ended_s.append(ended_s)
        self._status.append(self._numbers.setdefault(status, len(self._numbers)))
        self.counts[status] += 1
        if sentence:
            self._note(f"{status}: {sentence}")

    def __len__(self) -> int:
        return len(self._status)

    def times_s(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return (intended, sent, ended) of all requests, each (requests,) float64, in order of ending."""
        return np.array(self._intended_s), np.array(self._sent_s), np.array(self._ended_s)

    def statuses(self) -> NDArray[np.str_]:
        """Return each request's status: (requests,) of str."""
        names = np.array(list(self._numbers) or [OK])
        return names[np.array(self._status, dtype=np.intp)]

    def _note(self, sentence: str) -> None:
        """Count a sentence; its numbers are left out, so that the same error is the same sentence."""
        kind = re.sub(r"\d+(\.\d+)?", "N", sentence)
        if kind in self.sentences or len(self.sentences) < _SENTENCES_MAX:
            self.sentences[kind] += 1
