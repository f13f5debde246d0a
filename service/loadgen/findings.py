"""What to know before believing a run's figures, in sentences.

Path: result → **findings** → table, report.
"""

from service.loadgen import confidence, ledger, result

BUSY_MAX = 0.9
"""Above this share of a core a generator process may be what limits the rate."""

_LAG_SHARE_MAX = 0.1
_LAG_MIN_S = 0.001
"""Sending that was later than a tenth of the p99, and than a millisecond, is worth a sentence."""


def cautions(measured: result.Result) -> list[str]:
    """Return what speaks against the figures; nothing if nothing does."""
    return [*_of_generator(measured), *_of_answers(measured), *_of_machine(measured)]


def _of_generator(measured: result.Result) -> list[str]:
    made, said = measured.generator, []
    more = "more --processes" if made.processes == 1 else "more cores"
    not_sent = measured.counts.get(ledger.NOT_SENT, 0)
    if not_sent:
        said.append(
            f"The generator was the bottleneck: {not_sent} requests were not sent, it was too far behind or too "
            f"many had no answer. Give it {more} or a smaller --rate."
        )
    elif made.busiest > BUSY_MAX:
        said.append(
            f"The generator was at its own limit ({made.busiest:.0%} of a core): the server may be faster than these "
            f"figures. Give it {more}."
        )
    p99_s = measured.latency.p99_s if measured.latency else 0.0
    if made.lag_p99_s > max(_LAG_SHARE_MAX * p99_s, _LAG_MIN_S):
        said.append(
            f"The generator itself sent 1 in 100 requests {made.lag_p99_s * 1e3:.1f} ms late or later. The latencies "
            "contain that; those from the moment of sending do not."
        )
    return said


def _of_answers(measured: result.Result) -> list[str]:
    said, sure = [], measured.confidence
    if sure is None:
        said.append("Too short to say whether it was steady: measure for longer.")
        return said
    is_ramp = bool(measured.plan["loop"].get("ramp"))
    if not sure.is_steady and not is_ramp:
        said.append(
            f"Not steady: from the first half to the second the rate changed by {sure.drift:+.0%}. "
            "Warm up or measure for longer."
        )
    if sure.beyond_p99 < confidence.BEYOND_MIN:
        said.append(f"Only {sure.beyond_p99} answers lie beyond p99: it is a matter of luck. Measure for longer.")
    return said


def _of_machine(measured: result.Result) -> list[str]:
    where = measured.machine
    said = []
    if where.is_shared_with_server:
        said.append("Server and generator ran on one machine and took each other's time.")
    if where.load_before is not None and where.load_before > 0.5 * where.cores:
        said.append(f"The machine was busy before the run: load {where.load_before:.1f} on {where.cores} cores.")
    return said
