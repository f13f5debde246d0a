"""All numbers that the server publishes: Prometheus metrics, and the exact counts of ModelStatistics.

Path: wire and batcher report → **metrics** → wire.http (/metrics) and wire.describe (ModelStatistics).

    counts      what is counted while requests pass: plain numbers of one model version
    occupancy   how much of the device, and of whatever else can run out, is taken
    families    those as our metrics, fovea_*
    triton      those as Triton's metrics, nv_inference_* and others, with its names, labels and units
    machine     the computer's CPU and memory, for Triton's nv_cpu_*
    published   all of it together, for one server

Base units in names. Labels from closed sets: model, version, gRPC code, reason, resource, provider, certificate. A
request for an unknown model counts under model "".

Counting is done in plain numbers, and becomes Prometheus' families when somebody scrapes: the
library's own objects, made for many threads, cost four times as much for every request. A scrape
from another thread may see a request in one family a moment before it is in the next.
"""

from service.metrics.counts import Duration, ModelMetrics, Stages, Totals, Watched
from service.metrics.published import Metrics

__all__ = ["Duration", "Metrics", "ModelMetrics", "Stages", "Totals", "Watched"]
