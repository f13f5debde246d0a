"""Figures between two scrapes, worked out by hand."""

import math

import pytest

from service import scrape
from service.top import figures, places, table

LENET = (("model", "lenet5"), ("version", "1"))


def with_code(code: str) -> scrape.Labels:
    return (("code", code), *LENET)


def with_edge(edge: str) -> scrape.Labels:
    return (("le", edge), *LENET)


def span(before: dict, after: dict, seconds: float = 2.0) -> figures.Span:
    return figures.Span(scrape.Scrape(100.0, before), scrape.Scrape(100.0 + seconds, after))


def test_rates_are_growth_by_time_summed_over_servers() -> None:
    first = span(
        {"fovea_images_total": {LENET: 10}, "fovea_requests_total": {with_code("OK"): 10}},
        {"fovea_images_total": {LENET: 30}, "fovea_requests_total": {with_code("OK"): 20}},
    )
    second = span(
        {"fovea_images_total": {LENET: 0}, "fovea_requests_total": {with_code("OK"): 0}},
        {"fovea_images_total": {LENET: 4}, "fovea_requests_total": {with_code("OK"): 4}},
        seconds=4.0,
    )
    (model,) = figures.of([first, second])
    assert (model.model, model.version) == ("lenet5", "1")
    assert model.images_per_s == 20 / 2 + 4 / 4
    assert model.requests_per_s == 10 / 2 + 4 / 4


def test_a_server_that_has_begun_anew_counts_from_zero() -> None:
    (model,) = figures.of(
        [span({"fovea_images_total": {LENET: 1_000_000}}, {"fovea_images_total": {LENET: 6}}, seconds=3.0)]
    )
    assert model.images_per_s == 2.0


def test_a_model_that_is_new_counts_from_zero() -> None:
    (model,) = figures.of([span({}, {"fovea_images_total": {LENET: 6}})])
    assert model.images_per_s == 3.0


def test_errors_are_what_was_neither_answered_nor_shed_nor_given_up() -> None:
    counts = {"OK": 100, "INVALID_ARGUMENT": 6, "RESOURCE_EXHAUSTED": 10, "CANCELLED": 50}
    after = {
        "fovea_requests_total": {with_code(code): count for code, count in counts.items()},
        "fovea_shed_total": {(*LENET, ("reason", "queue_full")): 8, (*LENET, ("reason", "too_late")): 2},
    }
    (model,) = figures.of([span({}, after)])
    assert (model.requests_per_s, model.shed_per_s, model.errors_per_s) == (50.0, 5.0, 3.0)


def test_latencies_are_of_what_came_between_the_scrapes() -> None:
    """Before: a hundred slow ones. Between: 90 up to 10 ms, 10 up to 100 ms."""
    name = "fovea_request_duration_seconds_bucket"
    edges = ("0.01", "0.1", "1.0", "+Inf")
    before = {name: dict(zip(map(with_edge, edges), (0, 0, 100, 100), strict=True))}
    after = {
        name: dict(zip(map(with_edge, edges), (90, 100, 200, 200), strict=True)),
        "fovea_images_total": {LENET: 100},
    }
    (model,) = figures.of([span(before, after)])
    assert model.p50_s == pytest.approx(0.01 * 50 / 90)
    assert model.p99_s == pytest.approx(0.01 + 0.09 * 9 / 10)


@pytest.mark.parametrize(
    ("share", "buckets", "expected"),
    [
        (0.5, [], None),
        (0.5, [(0.1, 0), (math.inf, 0)], None),
        (0.5, [(0.1, 0), (math.inf, 4)], 0.1),
        (1.0, [(0.1, 4), (math.inf, 4)], 0.1),
        (0.25, [(0.1, 2), (0.2, 4), (math.inf, 4)], 0.05),
    ],
)
def test_quantiles(share: float, buckets: list[tuple[float, float]], expected: float | None) -> None:
    assert figures.quantile(share, buckets) == (None if expected is None else pytest.approx(expected))


def test_batch_queue_and_saturation() -> None:
    first = {
        "fovea_images_total": {LENET: 40},
        "fovea_batch_size_count": {LENET: 10},
        "fovea_batch_size_sum": {LENET: 40},
        "fovea_queue_samples": {LENET: 3},
        "fovea_queue_oldest_age_seconds": {LENET: 0.5},
        "fovea_model_busy_seconds_total": {LENET: 2.0},
    }
    second = {
        **first,
        "fovea_queue_samples": {LENET: 4},
        "fovea_queue_oldest_age_seconds": {LENET: 0.1},
        "fovea_model_busy_seconds_total": {LENET: 1.0},
    }
    (model,) = figures.of([span({}, first), span({}, second)])
    assert (model.batch_mean, model.queue_samples, model.oldest_s, model.saturation) == (4.0, 7, 0.5, 0.75)


def test_what_a_server_does_not_publish_is_missing_not_zero() -> None:
    (model,) = figures.of([span({}, {"fovea_images_total": {LENET: 1}})])
    missing = (
        model.p50_s,
        model.batch_mean,
        model.queue_samples,
        model.saturation,
        model.shed_per_s,
        model.errors_per_s,
    )
    assert missing == (None,) * 6


def test_sparkline() -> None:
    assert table.sparkline([0, 1, 2, 4], 6) == "  ▁▂▄█"
    assert table.sparkline([0, 0], 3) == " ▁▁"
    assert table.sparkline([5, 0, 5], 2) == "▁█"
    assert table.sparkline([], 2) == "  "


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1", "127.0.0.1", 8002),
        ("fovea:9000", "fovea", 9000),
        ("[::1]:9000", "::1", 9000),
        ("http://fovea-0.fovea:8002/metrics", "fovea-0.fovea", 8002),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert places.where(text) == places.Where(host, port)


@pytest.mark.parametrize("text", ["", "a b", "a:0", "a:70000", "::1", "https://a:1", "a:1/v2"])
def test_what_is_no_address_says_so(text: str) -> None:
    with pytest.raises(scrape.NoFigures, match="is no address; expected host:port"):
        places.where(text)
