"""`make bench`: the server beside its limits, and under more load than it can take.

`python -m tests.bench.engine [--quick] [--only limit|noop|served|overload] [--models a,b]`. Prints tables in
Markdown and the promises as lines that begin with "bar:"; figures of every round go to build/bench/*.json.
The server and the limits run on core 0, the load generator on core 1, in turn, in rounds.
"""

import argparse
import dataclasses
import datetime
import json
import os
import sys
import time
from collections.abc import Iterable
from typing import Any

from export import latency
from tests.bench import bars, limits, overload, processes, served, subjects, tables

SECTIONS = ("limit", "noop", "served", "overload")
QUICK_MODELS = (served.LENET, "resnet18")
_SECONDS = {served.LENET: 1.0, "resnet18": 8.0}
_ROUNDS = {served.LENET: 5, "resnet18": 3}
_SECONDS_OTHERS, _ROUNDS_OTHERS = 3.0, 1
_LIMIT_S, _LIMIT_S_OTHERS = {served.LENET: 0.15, "resnet18": 1.0}, 0.5
"""For each batch size, before and after every run: what is compared has to be measured as well."""


def main() -> int:
    """Measure what was asked for and print it."""
    asked = _asked()
    started_s = time.monotonic()
    if len(os.sched_getaffinity(0)) < 2:
        print("one core only: the load generator takes it from the server; ratios mean little")  # noqa: T201
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {latency.machine()}\n")  # noqa: T201 - the output
    kept: list[bars.Bar] = []
    if asked.only in {None, "limit"}:
        _search(asked)
    if asked.only != "overload":
        kept += _served(asked)
    if asked.only in {None, "overload"}:
        kept += _overload(asked)
    for bar in kept:
        print(bar)  # noqa: T201 - the output
    print(f"took {time.monotonic() - started_s:.0f} s")  # noqa: T201 - the output
    return 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round of two models: does it work at all?")
    parser.add_argument("--only", choices=SECTIONS, help="this part alone")
    parser.add_argument("--models", default="", help=f"of {','.join(subjects.MODELS)}; default: all, --quick: two")
    asked = parser.parse_args()
    asked.models = asked.models.split(",") if asked.models else list(QUICK_MODELS if asked.quick else subjects.MODELS)
    if asked.only == "noop":
        asked.models = [served.LENET]
    for model in asked.models:
        subjects.repository(model)
    subjects.photos()
    return asked


def _search(asked: argparse.Namespace) -> None:
    seconds = 0.1 if asked.quick else 0.7
    found = limits.search(asked.models, seconds, len(os.sched_getaffinity(0)))
    _write("limit-all-cores", found)
    _show(tables.of_search(found))


def _served(asked: argparse.Namespace) -> list[bars.Bar]:
    effort = _effort(asked)
    if asked.only == "limit":
        _show(tables.of_limits(_limits_only(effort)))
        return []
    measured = served.measure(effort, _report)
    _write("served" if asked.only != "noop" else "noop", measured.as_json())
    kept = list(bars.of_messages(measured))
    if asked.only != "noop":
        _show(tables.of_limits(measured))
        _show(tables.of_served(measured))
        kept += bars.of_served(measured)
    if measured.noop:
        _show(tables.of_noop(measured))
    return kept


def _effort(asked: argparse.Namespace) -> served.Effort:
    if asked.quick:
        seconds = dict.fromkeys(asked.models, 0.4)
        short = dict.fromkeys(asked.models, 0.05)
        return served.Effort(seconds, dict.fromkeys(asked.models, 1), short)
    return served.Effort(
        {model: _SECONDS.get(model, _SECONDS_OTHERS) for model in asked.models},
        {model: _ROUNDS.get(model, _ROUNDS_OTHERS) for model in asked.models},
        {model: _LIMIT_S.get(model, _LIMIT_S_OTHERS) for model in asked.models},
    )


def _limits_only(effort: served.Effort) -> served.Measured:
    measured, limit = served.Measured(), limits.Limit()
    try:
        for model in effort.models:
            _report(model)
            rounds = [limit.round(model, effort.limit_s[model]) for _ in range(effort.rounds[model])]
            measured.alone[model, "alone"] = rounds
    finally:
        limit.close()
    return measured


def _overload(asked: argparse.Namespace) -> list[bars.Bar]:
    shares = overload.SHARES_QUICK if asked.quick else overload.SHARES
    ways = {model: {way.name: way for way in subjects.ways(model)} for model in QUICK_MODELS}
    seconds = 2.0 if asked.quick else 6.0
    trials = [
        overload.Trial(
            "resnet18", dataclasses.replace(ways["resnet18"]["unary, JPEG"], concurrency=32), 1.0, seconds, shares
        ),
        overload.Trial(served.LENET, ways[served.LENET]["unary, pixels"], 0.1, seconds / 2, shares),
    ]
    curves = [overload.measure(trial, _report) for trial in trials if trial.model in asked.models]
    _write("overload", [dataclasses.asdict(curve) for curve in curves])
    for curve in curves:
        _show(f"{curve.model}: capacity {curve.capacity:.4g} images/s\n\n{tables.of_overload(curve)}")
    print(f"drawn: {', '.join(overload.draw(curves))}")  # noqa: T201 - the output
    return [bar for curve in curves if curve.model == "resnet18" for bar in overload.bars_of(curve)]


def _show(text: str) -> None:
    print(text, end="\n\n", flush=True)  # noqa: T201 - the output


def _report(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)  # noqa: T201 - what it is at


def _write(name: str, figures: Iterable[Any]) -> None:
    processes.BUILD.mkdir(parents=True, exist_ok=True)
    (processes.BUILD / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
