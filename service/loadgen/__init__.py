"""The load generator: requests at a chosen concurrency or rate, and what became of each.

Path: images or pixels ─payloads─▶ request bytes, once ─traffic─▶ when ─senders─▶ server ─ledger─▶ tally ─▶ **result**.

    job        what the command line asked for: one run, several rates, a search     run      a session with one server
    generator  one process's part of a run     processes  several of them, one tally     traffic, arrivals  when
    ledger, tally, histogram  how it is counted: as much memory after a day as after a minute, and exact to add up
    result, confidence, findings, conditions   the figures, how far to trust them, whether they are good enough
    searching, capacity   the highest rate within a latency: one measures, the other decides
    screen, report        what a person sees: at the terminal, and in a file

Cheap by design, because it must not be what is measured: requests are serialised once, answers are
not parsed (of a stream's only id and error). Latencies of an open loop count from the moment that a
request was meant to be sent, so a server that stalls is charged for the callers it kept waiting.
"""
