"""The models' numbers as Prometheus' families, made anew for every scrape.

Path: counts, occupancy → **families** → published.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import core

from service.metrics import counts, occupancy

Models = Sequence[counts.ModelMetrics]

_BY_MODEL = ("model", "version")
_HISTOGRAMS: tuple[tuple[str, str, Callable[[counts.ModelMetrics], counts.Histogram]], ...] = (
    (
        "fovea_decode_duration_seconds",
        "Decoding a request's images, waiting for a thread included.",
        lambda m: m.decode,
    ),
    ("fovea_queue_duration_seconds", "A request's wait for a batch to start.", lambda m: m.wait),
    ("fovea_copy_duration_seconds", "Gathering one batch, and copying it to the device.", lambda m: m.copy),
    ("fovea_run_duration_seconds", "One run of the model.", lambda m: m.run),
    ("fovea_reply_duration_seconds", "Making a request's answer of its outputs.", lambda m: m.reply),
    ("fovea_request_duration_seconds", "A request from parsed message to finished reply.", lambda m: m.total),
    ("fovea_batch_size", "Samples in one run.", lambda m: m.batch_size),
)
_COUNTERS: tuple[tuple[str, str, Callable[[counts.ModelMetrics], int]], ...] = (
    ("fovea_images", "Samples answered with OK.", lambda m: m.samples),
    ("fovea_padding_rows", "Rows run to fill a batch up, for nobody.", lambda m: m.padding),
)
_GAUGES: tuple[tuple[str, str, Callable[[counts.ModelMetrics], float]], ...] = (
    ("fovea_queue_samples", "Samples admitted and not yet running.", lambda m: m.waiting().samples),
    ("fovea_queue_requests", "Requests admitted and not yet running.", lambda m: m.waiting().requests),
    (
        "fovea_queue_oldest_age_seconds",
        "For how long the oldest of them has waited.",
        lambda m: m.waiting().oldest_age_s,
    ),
    ("fovea_instances", "Runs that compute at the same time.", lambda m: sum(one.instances for one in m.watched)),
)


def of_models(models: Models) -> Iterator[core.Metric]:
    """Yield what is one number, or one histogram, of each model."""
    for name, text, number in _COUNTERS:
        counter = core.CounterMetricFamily(name, text, labels=_BY_MODEL)
        for model in models:
            counter.add_metric(model.labels, number(model))
        yield counter
    for name, text, histogram in _HISTOGRAMS:
        family = core.HistogramMetricFamily(name, text, labels=_BY_MODEL)
        for model in models:
            found = histogram(model)
            family.add_metric(model.labels, found.buckets(), found.sum)
        yield family
    for name, text, value in _GAUGES:
        gauge = core.GaugeMetricFamily(name, text, labels=_BY_MODEL)
        for model in models:
            gauge.add_metric(model.labels, value(model))
        yield gauge


def requests(models: Models, unknown: Mapping[str, int]) -> core.Metric:
    """Return all requests by code; `unknown` are those for no served model."""
    family = core.CounterMetricFamily(
        "fovea_requests", "Requests answered, by gRPC status code.", labels=(*_BY_MODEL, "code")
    )
    for labels, codes in (*((model.labels, model.codes) for model in models), (("", ""), unknown)):
        for code, count in sorted(codes.items()):
            family.add_metric((*labels, code), count)
    return family


def shed(models: Models) -> core.Metric:
    """Return the requests that were not run for want of room or time."""
    family = core.CounterMetricFamily(
        "fovea_shed",
        "Requests not run for want of room or time: queue_full, too_late (could not be answered before its "
        "deadline), deadline (it passed in the queue), rate (of its token), caller (has too much out).",
        labels=(*_BY_MODEL, "reason"),
    )
    for model in models:
        for reason, count in model.shed.items():
            family.add_metric((*model.labels, reason), count)
    return family


def costs(models: Models) -> core.Metric:
    """Return what the planner expects a run to cost."""
    family = core.GaugeMetricFamily(
        "fovea_run_cost_seconds",
        "What a run of so many rows is expected to take: measured at load, corrected by the runs.",
        labels=(*_BY_MODEL, "rows"),
    )
    for model in models:
        for rows, cost_s in sorted(model.watched[-1].costs_s().items()) if model.watched else ():
            family.add_metric((*model.labels, str(rows)), cost_s)
    return family


def load_failures(failures: Mapping[str, int], models: Models) -> core.Metric:
    """Return how many loads of each model have failed."""
    family = core.CounterMetricFamily(
        "fovea_model_load_failures", "Loads that failed; RepositoryIndex and the log say why.", labels=("model",)
    )
    all_of_them = dict.fromkeys((model.labels[0] for model in models), 0) | dict(failures)
    for name, count in sorted(all_of_them.items()):
        family.add_metric((name,), count)
    return family


def certificates(ends_s: Mapping[str, float]) -> core.Metric:
    """Return when each certificate ends, in Unix seconds; nothing of a server without TLS."""
    family = core.GaugeMetricFamily(
        "fovea_certificate_expiry_timestamp_seconds",
        "When the certificate in use ends, in Unix time: server's own, client_ca (the last of the authorities).",
        labels=("certificate",),
    )
    for name, end_s in ends_s.items():
        family.add_metric((name,), end_s)
    return family


def saturations(
    name: str,
    what: str,
    labels: Sequence[str],
    parts: Iterable[tuple[Sequence[str], occupancy.Saturation]],
    now_s: float,
) -> Iterator[core.Metric]:
    """Yield busy seconds and saturation of the parts, which are given by the values of their labels."""
    busy = core.CounterMetricFamily(
        f"fovea_{name}busy_seconds",
        f"Seconds in which {what} was taken, by its share: the rate is 0 to 1.",
        labels=labels,
    )
    saturation = core.GaugeMetricFamily(
        f"fovea_{name}saturation_ratio",
        f"The share of {what} that is taken, 0 to 1, since the scrape before, or {occupancy.WINDOW_S:g} s.",
        labels=labels,
    )
    for values, part in parts:
        busy_s, share = part.read(now_s)
        busy.add_metric(values, busy_s)
        saturation.add_metric(values, share)
    yield busy
    yield saturation


def info(name: str, text: str, facts: Mapping[str, str]) -> core.Metric:
    """Return a gauge that is 1 and says something in its labels."""
    family = core.GaugeMetricFamily(name, text, labels=tuple(facts))
    family.add_metric(tuple(facts.values()), 1)
    return family
