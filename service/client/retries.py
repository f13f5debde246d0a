"""When a call that failed is sent again: pauses that grow, and a budget that all calls of a client share.

Path: failures → **retries** → calls. No clock, no event loop: numbers in, numbers out.
"""

import random

FIRST_PAUSE_S = 0.05
PAUSE_S_MAX = 2.0

RESENDS_MAX = 5
"""Times that one call is sent again after a server may have seen it."""


def backoff_s(attempt: int, chance: random.Random) -> float:
    """Return the pause before attempt 1, 2, …: anything up to a bound that doubles (full jitter)."""
    return chance.uniform(0.0, bound_s(attempt))


def bound_s(attempt: int) -> float:
    """Return the longest pause before attempt 1, 2, …: 50 ms, 100 ms, …, 2 s."""
    return min(PAUSE_S_MAX, FIRST_PAUSE_S * 2.0 ** min(attempt - 1, 30))


class Budget:
    """Tokens as in gRPC's retry throttling (gRFC A6): sending again takes one, an answer earns a tenth.

    So calls sent again are at most a tenth of those answered, beyond a reserve that lets the calls of a
    server that died move at once. A trickle lets a client that has none left try again some time.

    Mutable state: the tokens and when they were last counted; touched only on the event loop.
    """

    TOKENS_MAX = 256.0
    PER_SUCCESS = 0.1
    PER_S = 1.0

    def __init__(self, now_s: float = 0.0) -> None:
        self._tokens = self.TOKENS_MAX
        self._counted_s = now_s

    def earn(self) -> None:
        """Count a call that was answered."""
        self._tokens = min(self.TOKENS_MAX, self._tokens + self.PER_SUCCESS)

    def take(self, now_s: float) -> bool:
        """Take a token for one resend, if there is one; `now_s` in seconds of any clock that does not go back."""
        self._tokens = min(self.TOKENS_MAX, self._tokens + self.PER_S * max(0.0, now_s - self._counted_s))
        self._counted_s = now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
