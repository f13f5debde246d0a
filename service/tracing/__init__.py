"""Traces of single requests, for a collector that speaks OTLP: off unless a setting asks for it.

Path: wire and batcher → `trace` (plain marks) → `otlp` (OpenTelemetry, the extra `tracing`) → collector.

Spans of a traced request, by name:

    inference.GRPCInferenceService/ModelInfer     one request, or one message of a stream; kind SERVER
    ├─ decode    its images, waiting for a thread included
    ├─ queue     from its inputs' being there to the start of its batch
    ├─ copy      its batch's inputs are put together ┐ one of each for every run
    ├─ run       the model runs; linked to its batch ┘ that it had a part in
    └─ reply     from outputs to the finished message

    batch         a trace of its own: one run, linked to the requests in it that are traced

Between copy and run a batch changes threads; on CUDA it waits there for the device.

The context comes as W3C says, in `traceparent` and `tracestate`: of a call from its metadata; of a message
in a ModelStreamInfer stream from its parameters with these names, else from the stream's metadata. What
has a parent is traced if the parent is; what has none, with the ratio of the setting.
"""
