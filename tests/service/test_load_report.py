"""The report and the sparklines: self-contained, well formed, and true to the figures."""

import dataclasses
import html.parser
import itertools
import math
import pathlib
import re
from collections.abc import Sequence

import numpy as np
import pytest

from service import errors
from service.loadgen import capacity, findings, ledger, machine, plan, result, screen, searching, tally, target
from service.loadgen.report import page, scales

VOID = {"meta"}


class Balanced(html.parser.HTMLParser):
    """Notes every element, and fails where one is closed that was not opened last."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(text: str) -> Balanced:
    reader = Balanced()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def measured(
    loop: plan.Closed | plan.Open, *, latency_s: float = 0.02, failing: str = "", sentence: str = ""
) -> result.Result:
    chosen = plan.Plan("10.0.0.1:8001", "net<1>", loop, warmup_s=0.0, duration_s=10.0)
    ends = ledger.Ledger(tally.frame(chosen, 0.0))
    random = np.random.default_rng(0)
    for number in range(1000):
        status = failing if failing and number % 10 == 0 else ledger.OK
        began_s = number / 100
        ends.ended(began_s, began_s + 1e-4, began_s + random.exponential(latency_s), status, sentence)
    stages = ("success", "queue", "compute_input", "compute_infer", "compute_output")
    before, after = target.Counts({}, {}), target.Counts(dict.fromkeys(stages, (1000, 5_000_000_000)), {1: 100, 4: 225})
    described = machine.describe("10.0.0.1:8001")
    beside = result.Beside(before, after, (0.5,), 100, 40, described, "fovea 0.1.0")
    return result.of(chosen, ends.tally(), result.Period(0.0, 0.0, 10.0), beside)


def found(*, is_verified: bool = True) -> searching.Found:
    steps = [("search", 70.0, True), ("search", 91.0, False), ("verify", 70.0, is_verified)]
    trials = tuple(
        capacity.Trial(
            kind, rate, rate, 0.01, 0.02 if is_met else 0.2, 0.0, 0.0, 5.0, () if is_met else ("p99",), False
        )
        for kind, rate, is_met in steps
    )
    rate = 70.0 if is_verified else None
    return searching.Found(
        capacity.Wanted(0.05), 100.0, trials, rate, rate, measured(plan.Open(70.0)), "verified over 15 s", 60.0
    )


def every_page() -> dict[str, str]:
    steps = [measured(plan.Open(rate)) for rate in (50.0, 100.0)]
    return {
        "closed": page.of_runs([measured(plan.Closed(4))]),
        "open": page.of_runs([measured(plan.Open(100.0), failing="UNAVAILABLE", sentence="<script>alert(1)</script>")]),
        "ramp": page.of_runs([measured(plan.Open(50.0, ramp=plan.Ramp(150.0, 10.0)))]),
        "steps": page.of_runs(steps),
        "found": page.of_search(found()),
        "not found": page.of_search(found(is_verified=False)),
    }


@pytest.mark.parametrize("kind", list(every_page()))
def test_a_page_is_well_formed_and_needs_nothing_from_outside(kind: str) -> None:
    text = every_page()[kind]
    reader = parsed(text)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in reader.seen}
    assert not re.search(r"https?:|url\(|@import|\bon\w+=", text)
    assert "net&lt;1&gt;" in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert not re.search(r"\bnan\b|\binf\b|None", re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL))


def test_a_page_says_what_was_measured() -> None:
    run = measured(plan.Open(100.0), failing="UNAVAILABLE", sentence="all is lost")
    text = page.of_runs([run])
    assert run.latency is not None
    for part in (f"{run.latency.p99_s * 1e3:.0f}", "10.00%", "UNAVAILABLE", "all is lost", "open loop, 100 requests/s"):
        assert part in text
    for title in (
        "Throughput over time",
        "Latency over time",
        "Latencies",
        "Where a request&#x27;s time goes",
        "Batches",
    ):
        assert title in text


def test_the_page_of_a_search_marks_the_rate_that_was_verified() -> None:
    text = page.of_search(found())
    assert "70.0" in text
    assert text.count("class=found") == 1
    assert "no rate verified" in page.of_search(found(is_verified=False))


def test_a_report_that_cannot_be_written_is_explained(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.StartupError, match=r"the report cannot be written to .*No such file"):
        page.write(tmp_path / "gone" / "report.html", [measured(plan.Closed(1))])


def polyline(text: str) -> Sequence[tuple[float, float]]:
    points = re.search(r'<polyline class="line orange" points="([^"]+)"', text)
    assert points
    return [(float(x), float(y)) for x, y in (point.split(",") for point in points[1].split())]


def test_higher_latencies_are_drawn_higher() -> None:
    points = polyline(page.of_search(found()))
    assert points[0][0] < points[-1][0]
    assert points[0][1] > points[-1][1]  # SVG counts from above


@pytest.mark.parametrize("low", [0.0, 0.001, 3.0])
@pytest.mark.parametrize("size", [0.002, 1.0, 77.0, 12_345.0])
@pytest.mark.parametrize("is_log", [False, True])
def test_ticks_are_few_round_and_inside(low: float, size: float, is_log: bool) -> None:
    if is_log and low == 0:
        return
    scale = scales.Scale(low, low + size, 0, 100, is_log)
    ticks = scale.ticks()
    assert len(ticks) <= 8
    assert all(low <= tick <= low + size for tick in ticks)
    places = [scale.place(tick) for tick in ticks]
    assert all(first < second for first, second in itertools.pairwise(places))
    assert scale.place(low) == 0
    assert scale.place(low + size) == pytest.approx(100)


def test_sparklines_go_from_nothing_to_the_largest() -> None:
    assert screen.sparkline([0.0, 1.0, 2.0, math.nan, 4.0]) == "▁▃▅ █"
    assert screen.sparkline([0.0, 0.0]) == "▁▁"
    assert screen.sparkline([]) == ""


def lagging(lag_s: float, *, not_sent: int = 0, cpu_s: float = 0.5) -> result.Result:
    chosen = plan.Plan("10.0.0.1:8001", "net", plan.Open(100.0), warmup_s=0.0, duration_s=20.0)
    ends = ledger.Ledger(tally.frame(chosen, 0.0))
    for number in range(2000):
        began_s = number / 100
        ends.ended(
            began_s, began_s + lag_s, began_s + lag_s + 0.01, ledger.OK if number >= not_sent else ledger.NOT_SENT
        )
    none = target.Counts({}, {})
    described = dataclasses.replace(machine.describe("10.0.0.1:8001"), load_before=0.0)
    return result.of(
        chosen, ends.tally(), result.Period(0.0, 0.0, 20.0), result.Beside(none, none, (cpu_s,), 1, 1, described)
    )


def test_a_generator_that_kept_up_on_a_quiet_machine_gives_no_cautions() -> None:
    assert findings.cautions(lagging(1e-5)) == []


@pytest.mark.parametrize(
    ("measured", "sentence"),
    [
        (lagging(1e-5, not_sent=1), "The generator was the bottleneck: 1 requests were not sent"),
        (lagging(1e-5, cpu_s=19.0), r"at its own limit \(95% of a core\).*Give it more --processes"),
        (lagging(0.01), r"The generator itself sent 1 in 100 requests 10\.\d ms late"),
    ],
)
def test_a_generator_that_was_the_bottleneck_says_so(measured: result.Result, sentence: str) -> None:
    assert re.search(sentence, " ".join(findings.cautions(measured)))
