"""The load generator without a server: what it sends, when, and how its figures are computed."""

import asyncio
import dataclasses
import itertools
import pathlib
import time
from collections.abc import Sequence

import numpy as np
import pytest

from protos import inference_pb2
from service import errors
from service.loadgen import ledger, machine, payloads, plan, result, tally, target, traffic

CLASSIFIER = target.Described("net", (target.Tensor("image", "UINT8", (4, 5, 3)),), "image", 8)
NO_PARAMETERS = payloads.Parameters(None, 0)
NO_COUNTS = target.Counts({}, {})


def made(loop: plan.Closed | plan.Open, **fields: float | None) -> plan.Plan:
    return plan.Plan("nowhere:1", "net", loop, **{"warmup_s": 0.0, "give_up_s": 5.0, **fields})


def parsed(request: bytes) -> inference_pb2.ModelInferRequest:
    return inference_pb2.ModelInferRequest.FromString(request)


def beside(before: target.Counts = NO_COUNTS, after: target.Counts = NO_COUNTS) -> result.Beside:
    described = machine.describe("nowhere:1")
    return result.Beside(before, after, cpu_s=(1.0,), request_bytes=10, answer_bytes=20, machine=described)


class Immediately:
    """A sender whose answers are there at once, or never."""

    def __init__(self, ends: ledger.Ledger, *, answers: bool = True) -> None:
        self._ends, self._answers = ends, answers
        self.numbers: list[int] = []
        self.intended_s: list[float] = []
        self.under_way = self.under_way_max = 0

    async def send(self, number: int, intended_s: float) -> None:
        self.numbers.append(number)
        self.intended_s.append(intended_s)
        self.under_way += 1
        self.under_way_max = max(self.under_way_max, self.under_way)
        try:
            await (asyncio.sleep(0) if self._answers else asyncio.Event().wait())
            self._ends.ended(intended_s, intended_s, intended_s, ledger.OK)
        except asyncio.CancelledError:
            self._ends.ended(intended_s, intended_s, intended_s, ledger.CANCELLED)
            raise
        finally:
            self.under_way -= 1

    async def close(self) -> None:
        return


async def sent(chosen: plan.Plan, *, answers: bool = True) -> tuple[Immediately, ledger.Ledger]:
    started_s = time.monotonic()
    ends = ledger.Ledger(tally.frame(chosen, started_s))
    sender = Immediately(ends, answers=answers)
    await traffic.Traffic(chosen, sender, ends, started_s).run()
    return sender, ends


@pytest.mark.parametrize(
    ("text", "wanted_s"), [("10s", 10), ("250ms", 0.25), ("500us", 0.0005), ("2m", 120), ("1.5", 1.5), (".5s", 0.5)]
)
def test_durations_are_read(text: str, wanted_s: float) -> None:
    assert plan.seconds(text) == pytest.approx(wanted_s)


@pytest.mark.parametrize("text", ["", "10 h", "-1s", "0s", "s", "1e3"])
def test_what_is_no_duration_is_explained(text: str) -> None:
    with pytest.raises(ValueError, match="write 10s, 250ms, 500us or 2m"):
        plan.seconds(text)


def test_requests_of_images_send_every_file_and_all_have_the_same_number() -> None:
    files = [bytes([number]) * (number + 1) for number in range(5)]
    requests = [parsed(one) for one in payloads.of_images(CLASSIFIER, files, 2, NO_PARAMETERS)]
    assert [list(one.inputs[0].shape) for one in requests] == [[2], [2], [2]]
    assert {one.inputs[0].datatype for one in requests} == {"BYTES"}
    elements = [b"%c\0\0\0%b" % (len(file), file) for file in [*files, files[0]]]
    assert b"".join(one.raw_input_contents[0] for one in requests) == b"".join(elements)


def test_the_deadline_and_the_priority_travel_in_each_request() -> None:
    (request, *_) = payloads.of_pixels(CLASSIFIER, 1, payloads.Parameters(0.25, 2))
    assert parsed(request).parameters["timeout"].int64_param == 250_000
    assert parsed(request).parameters["priority"].uint64_param == 2
    assert not parsed(payloads.of_pixels(CLASSIFIER, 1, NO_PARAMETERS)[0]).parameters


@pytest.mark.parametrize(("datatype", "itemsize"), [("UINT8", 1), ("FP16", 2), ("FP32", 4), ("INT64", 8), ("BOOL", 1)])
def test_pixels_have_the_shape_and_type_of_the_input_and_differ_between_requests(datatype: str, itemsize: int) -> None:
    described = target.Described("net", (target.Tensor("x", datatype, (3, 4)),), "", 8)
    requests = [parsed(one) for one in payloads.of_pixels(described, 6, NO_PARAMETERS)]
    assert len({one.raw_input_contents[0] for one in requests}) == len(requests) > 1
    assert list(requests[0].inputs[0].shape) == [6, 3, 4]
    assert len(requests[0].raw_input_contents[0]) == 72 * itemsize
    assert payloads.of_pixels(described, 6, NO_PARAMETERS) == payloads.of_pixels(described, 6, NO_PARAMETERS)


def test_a_model_without_a_batch_dimension_gets_one_sample_a_request() -> None:
    single = target.Described("net", (target.Tensor("x", "FP32", (1, 3)),), "", 0)
    assert list(parsed(payloads.of_pixels(single, 1, NO_PARAMETERS)[0]).inputs[0].shape) == [1, 3]
    with pytest.raises(errors.StartupError, match="no batch dimension"):
        payloads.of_pixels(single, 2, NO_PARAMETERS)


@pytest.mark.parametrize("tensor", [target.Tensor("x", "BYTES", (1,)), target.Tensor("x", "UINT8", (-1, -1, 3))])
def test_inputs_that_cannot_be_made_up_are_named(tensor: target.Tensor) -> None:
    with pytest.raises(errors.StartupError, match=r"input 'x' .* send files with --images"):
        payloads.of_pixels(target.Described("net", (tensor,), "", 8), 1, NO_PARAMETERS)


def test_images_for_a_model_that_takes_none_are_refused() -> None:
    with pytest.raises(errors.StartupError, match="takes no encoded images"):
        payloads.of_images(target.Described("net", (), "", 8), [b"x"], 1, NO_PARAMETERS)


def test_images_come_from_folders_by_name_and_from_files(tmp_path: pathlib.Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).write_bytes(name.encode())
    assert payloads.read([tmp_path, tmp_path / "notes.txt"]) == [b"a.JPG", b"b.png", b"notes.txt"]


def test_an_empty_folder_and_a_missing_file_are_explained(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.StartupError, match=r"has no image files; expected .*\.jpg"):
        payloads.read([tmp_path])
    with pytest.raises(errors.StartupError, match=r"gone.jpg cannot be read: No such file"):
        payloads.read([tmp_path / "gone.jpg"])


async def test_a_closed_loop_keeps_so_many_under_way_and_stops_at_the_count() -> None:
    sender, ends = await sent(made(plan.Closed(7), requests_max=50))
    assert sender.numbers == list(range(50))
    assert sender.under_way_max == 7
    assert ends.counts == {ledger.OK: 50}


async def test_a_constant_rate_means_equal_gaps_whatever_the_answers_do() -> None:
    sender, ends = await sent(made(plan.Open(2000.0, "constant"), requests_max=100))
    assert np.diff(sender.intended_s) == pytest.approx(np.full(99, 0.0005))
    assert len(ends) == 100


async def test_poisson_arrivals_are_repeated_by_their_seed() -> None:
    first, again, other = [
        (await sent(made(plan.Open(20_000.0, seed=seed), requests_max=400)))[0].intended_s for seed in (1, 1, 2)
    ]
    assert np.diff(first) == pytest.approx(np.diff(again), abs=1e-9)
    assert np.diff(first) != pytest.approx(np.diff(other), abs=1e-9)
    # Gaps of a Poisson process: mean 1/rate, and their deviation equals their mean.
    assert np.diff(first).mean() == pytest.approx(1 / 20_000, rel=0.2)
    assert np.diff(first).std() == pytest.approx(1 / 20_000, rel=0.3)


@pytest.mark.parametrize("loop", [plan.Closed(3), plan.Open(1000.0, "constant")])
async def test_a_run_ends_although_no_answer_comes(loop: plan.Closed | plan.Open) -> None:
    _, ends = await sent(made(loop, duration_s=0.02, give_up_s=0.02), answers=False)
    assert set(ends.counts) - {ledger.NOT_SENT} == {ledger.CANCELLED}


async def test_requests_over_the_bound_of_unanswered_ones_are_counted_not_sent() -> None:
    bounded = plan.Open(1000.0, "constant", outstanding_max=5)
    sender, ends = await sent(made(bounded, requests_max=20, give_up_s=0.01), answers=False)
    assert len(sender.numbers) == 5
    assert ends.counts == {ledger.NOT_SENT: 15, ledger.CANCELLED: 5}


def figures(
    chosen: plan.Plan, entries: Sequence[tuple[float, float, str]], period: result.Period, **counts: target.Counts
) -> result.Result:
    return result.of(chosen, filled(chosen, entries, period).tally(), period, beside(**counts))


def filled(chosen: plan.Plan, entries: Sequence[tuple[float, float, str]], period: result.Period) -> ledger.Ledger:
    """Requests that were meant, ended, and how; in a run of that period."""
    planned = dataclasses.replace(chosen, warmup_s=period.measured_from_s - period.started_s)
    ends = ledger.Ledger(tally.frame(planned, period.started_s))
    ends.ends_at(period.ended_s)
    for intended_s, ended_s, status in sorted(entries, key=lambda entry: entry[1]):
        ends.ended(intended_s, intended_s, ended_s, status)
    return ends


def test_latency_counts_from_the_intended_time_and_not_from_the_late_sending() -> None:
    chosen, period = made(plan.Open(1.0)), result.Period(0, 0, 3)
    ends = ledger.Ledger(tally.frame(chosen, 0.0))
    ends.ended(1.0, 1.9, 2.0, ledger.OK)
    measured = result.of(chosen, ends.tally(), period, beside())
    assert measured.latency is not None
    assert measured.latency.p50_s == measured.latency.max_s == pytest.approx(1.0)
    assert measured.from_sent is not None
    assert measured.from_sent.max_s == pytest.approx(0.1)
    assert measured.generator.lag_p99_s == pytest.approx(0.9)


def test_percentiles_by_hand() -> None:
    entries = [(0.0, number / 1000, ledger.OK) for number in range(1, 1002)]
    latency = figures(made(plan.Open(1.0)), entries, result.Period(0, 0, 2)).latency
    assert latency is not None
    assert (latency.p50_s, latency.p90_s, latency.p99_s, latency.p999_s) == pytest.approx(
        (0.501, 0.901, 0.991, 1.0), rel=0.003
    )
    assert (latency.max_s, latency.mean_s) == pytest.approx((1.001, 0.501))


def test_the_warm_up_is_not_measured_and_statuses_are_counted() -> None:
    entries = [(0.5, 0.6, "OK"), (1.5, 1.6, "OK"), (1.6, 1.7, "UNAVAILABLE"), (2.5, 2.6, "OK")]
    measured = figures(made(plan.Open(1.0)), entries, result.Period(0, 1, 2))
    assert measured.counts == {"OK": 1, "UNAVAILABLE": 1}
    assert (measured.whole.requests, measured.whole.images_ok) == (4, 3)
    assert measured.whole.wall_s == pytest.approx(2.1)
    assert measured.whole.latency is not None
    assert measured.whole.latency.p50_s == pytest.approx(0.1)


def test_goodput_leaves_out_answers_after_the_deadline() -> None:
    entries = [(number / 10, number / 10 + (0.05 if number % 2 else 0.5), "OK") for number in range(100)]
    measured = figures(made(plan.Open(10.0), deadline_s=0.1), entries, result.Period(0, 0, 10))
    assert measured.in_time == 50
    assert measured.images_per_s == pytest.approx(10, rel=0.05)
    assert measured.good_images_per_s == pytest.approx(5, rel=0.05)


def test_a_rate_is_right_although_answers_come_in_bursts_that_the_window_cuts() -> None:
    # 16 answers every 0.4 s are 40/s; the plain count of this window would say 48/s.
    entries = [(0.0, 0.4 * burst + 1e-4 * number, "OK") for burst in range(12) for number in range(16)]
    measured = figures(made(plan.Closed(16)), entries, result.Period(0, 0.39, 4.01))
    assert measured.images_per_s == pytest.approx(40, rel=0.001)


def test_each_window_has_its_entry() -> None:
    entries = [(0.1, 0.3, "OK"), (0.2, 0.4, "ABORTED"), (0.9, 1.1, "OK"), (1.2, 1.6, "OK")]
    chosen = made(plan.Open(100.0), duration_s=60.0)
    windows = figures(chosen, entries, result.Period(0, 0, 1.7)).windows
    assert [(one.from_s, one.width_s, one.intended, one.ok, one.failed) for one in windows] == [
        (0.0, 1.0, 3, 1, 1), (1.0, pytest.approx(0.7), 1, 2, 0),
    ]  # fmt: skip
    assert windows[0].p50_s == pytest.approx(0.2)


def test_a_run_without_any_answer_has_figures_too() -> None:
    measured = figures(made(plan.Closed(1)), [], result.Period(0, 0, 1))
    assert (measured.images_per_s, measured.latency, measured.counts, measured.server) == (0, None, {}, None)


def test_the_server_s_stages_are_means_of_what_was_added() -> None:
    names = ("success", "queue", "compute_input", "compute_infer", "compute_output")
    before = target.Counts(dict.fromkeys(names, (10, 10_000)), {4: 2})
    after = target.Counts(dict(zip(names, ((14, 10_000 + 4_000 * n) for n in range(1, 6)), strict=True)), {4: 3, 2: 1})
    server = figures(
        made(plan.Closed(1)), [], result.Period(0, 0, 1), before=before, after=after
    ).server  # fmt: skip
    assert server == result.Server(
        queue_s=pytest.approx(2e-6), compute_input_s=pytest.approx(3e-6), compute_infer_s=pytest.approx(4e-6),
        compute_output_s=pytest.approx(5e-6), total_s=pytest.approx(1e-6), mean_batch=3.0, batches={4: 1, 2: 1},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("loop", "requests_max", "counted"),
    [
        (plan.Closed(1), None, {"B": 1, "C": 1}),
        (plan.Closed(1), 2, {"C": 1, "D": 1}),
        (plan.Open(1.0), None, {"C": 1, "D": 1}),
    ],
)
def test_errors_and_their_sentences_are_of_the_same_requests(
    loop: plan.Closed | plan.Open, requests_max: int | None, counted: dict[str, int]
) -> None:
    ends = ledger.Ledger(tally.frame(made(loop, warmup_s=1.0, duration_s=2.0, requests_max=requests_max), 0.0))
    ends.ends_at(3.0)
    for status, sent_s, ended_s in (("A", 0.1, 0.2), ("B", 0.9, 1.1), ("C", 1.5, 2.0), ("D", 2.9, 3.1)):
        ends.ended(sent_s, sent_s, ended_s, status, "lost")
    assert ends.tally().counts == counted
    assert ends.sentences == {f"{status}: lost": count for status, count in counted.items()}


def test_sentences_are_counted_without_their_numbers_and_their_kinds_are_bounded() -> None:
    ends = ledger.Ledger(tally.frame(made(plan.Closed(1)), 0.0))
    for number in range(10):
        ends.ended(0, 0, 1, "RESOURCE_EXHAUSTED", f"{number} wait; try again in {number}.5 ms")
    for letters in itertools.islice(itertools.permutations("abcdef"), 200):
        ends.ended(0, 0, 1, "INTERNAL", "".join(letters))
    assert ends.sentences["RESOURCE_EXHAUSTED: N wait; try again in N ms"] == 10
    assert len(ends.sentences) == 50
    assert len(ends) == 210
