"""The Python client: images and arrays in, labels and arrays out, from one or more servers of the v2 protocol.

Needs only numpy, grpcio, protobuf and `protos`. Any Triton or KServe v2 client works as well; see README.md.

A call's way, and where each step lives:

    asynchronous ─messages, arrays─▶ connection ─calls─▶ fleet ─▶ endpoint ─▶ stream, or a unary call ─▶ server
    synchronous: the same from threads    retries: whether again, and when    failures: the one error

`calls` keeps deadlines and repeats, `fleet` knows the addresses, `endpoint` one of them, `stream` one of its streams.
`context` says which trace a call belongs to, where the calling program has OpenTelemetry.
"""

from service.client.access import Access
from service.client.arrays import tensors
from service.client.asynchronous import Client
from service.client.failures import CallFailed
from service.client.messages import Prediction, Signature, image_request, pixel_request, predictions
from service.client.synchronous import SyncClient

__all__ = [
    "Access",
    "CallFailed",
    "Client",
    "Prediction",
    "Signature",
    "SyncClient",
    "image_request",
    "pixel_request",
    "predictions",
    "tensors",
]
