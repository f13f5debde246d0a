"""The load generator: requests at a chosen concurrency or rate, and what became of each.

Path: images or pixels ─payloads─▶ request bytes, once ─traffic─▶ when ─senders─▶ server ─ledger─▶ **result**.

Cheap by design, because it must not be what is measured: requests are serialised once, answers are
not parsed (of a stream's only id and error). Latencies of an open loop count from the moment that a
request was meant to be sent, so a server that stalls is charged for the callers it kept waiting.
"""
