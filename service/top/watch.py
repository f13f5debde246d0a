"""Looks at servers again and again, and keeps what the next look is compared with.

Path: top_cli → **watch** → places, scrape, figures → table.
"""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Mapping, Sequence

from service import scrape
from service.top import figures, places

HISTORY = 30
"""Looks that a sparkline shows."""
_AT_ONCE = 32
"""Servers asked at once."""
_WITHIN_S = 2.0
"""A server that is slower is shown as one that does not answer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """A server at this moment: how it is, in words; whether it answers."""

    where: places.Where
    condition: str
    answers: bool


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """What is to be shown."""

    servers: Sequence[Server]
    models: Sequence[figures.ModelFigures]
    elapsed_s: float
    """Between the two looks that the figures are of; 0: there has been only one, so there are none yet."""
    history: Mapping[tuple[str, str], Sequence[float]]
    """Model and version → images a second, the latest last."""


class Watch:
    """Watches the servers behind some addresses. Use it as a context manager, from one thread.

    Mutable state: the last scrape of each server, and the throughputs of the last looks.
    """

    def __init__(self, names: Sequence[places.Where]) -> None:
        self._names = names
        self._last: dict[places.Where, scrape.Scrape] = {}
        self._history: dict[tuple[str, str], collections.deque[float]] = {}
        self._threads = concurrent.futures.ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="scrape")

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def begin(self) -> None:
        """Look for the first time.

        Raises:
            NoFigures: nobody answers.
        """
        _, scrapes, failures = self._scrape()
        self._last = scrapes
        if not scrapes:
            raise failures[0]

    def look(self) -> View:
        """Look again, and return what happened since the look before."""
        servers, scrapes, _ = self._scrape()
        pairs = {where: (self._last[where], now) for where, now in scrapes.items() if where in self._last}
        spans = [figures.Span(before, after) for before, after in pairs.values() if after.at_s > before.at_s]
        self._last = scrapes
        models = figures.of(spans)
        self._remember(models)
        elapsed_s = max((span.elapsed_s for span in spans), default=0.0)
        return View(servers, models, elapsed_s, self._history)

    def _remember(self, models: Sequence[figures.ModelFigures]) -> None:
        now = {(one.model, one.version): one.images_per_s or 0.0 for one in models}
        self._history = {key: self._history.get(key, collections.deque(maxlen=HISTORY)) for key in now}
        for key, rate in now.items():
            self._history[key].append(rate)

    def _scrape(self) -> tuple[list[Server], dict[places.Where, scrape.Scrape], list[scrape.NoFigures]]:
        """Ask all servers that are behind the names now."""
        found: dict[places.Where, None] = {}
        failures: list[scrape.NoFigures] = []
        servers: list[Server] = []
        for name in self._names:
            try:
                found |= dict.fromkeys(places.behind(name))
            except scrape.NoFigures as error:
                failures.append(error)
                servers.append(Server(name, error.wrong, answers=False))
        asked = {where: self._threads.submit(scrape.read, where.url, _WITHIN_S) for where in found}
        scrapes: dict[places.Where, scrape.Scrape] = {}
        for where, answer in asked.items():
            try:
                scrapes[where] = answer.result()
            except scrape.NoFigures as error:
                failures.append(error)
                servers.append(Server(where, error.wrong, answers=False))
            else:
                servers.append(Server(where, _condition(scrapes[where]), answers=True))
        return servers, scrapes, failures


def _condition(now: scrape.Scrape) -> str:
    """What a server says of itself: ready or not, its version and provider; as far as it does."""
    said = []
    for value in now.of("fovea_ready").values():
        said.append("ready" if value else "not ready")
    said += [f"v{dict(labels).get('version', '')}" for labels in now.of("fovea_build_info")]
    active = [dict(labels).get("provider", "") for labels, on in now.of("fovea_provider_info").items() if on]
    said += [name.removesuffix("ExecutionProvider") for name in active]
    return " ".join(said) or "answers"
