"""How connections behave: what gRPC's core is told, under the names that it really has.

Path: settings → server → **transport** → grpc.aio.
"""

import dataclasses

import grpc

COMPRESSIONS = {
    "none": grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}

# A message over the limit should get our sentence, not gRPC's, so the transport takes somewhat more.
_MESSAGE_FACTOR = 2
_UNHEARD_FACTOR = 3
"""gRPC's own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Transport:
    """Limits of connections, messages and streams; the settings say how each is chosen, and where 0 means none."""

    message_bytes_max: int
    stream_messages_max: int
    compression: str = "none"
    connections_max: int = 0
    connection_calls_max: int = 1024
    unheard_calls_max: int = 1000
    connection_age_s: float = 0.0
    connection_age_grace_s: float = 0.0
    keepalive_s: float = 60.0
    keepalive_timeout_s: float = 20.0
    ping_pause_min_s: float = 10.0

    @property
    def answers(self) -> grpc.Compression:
        """How answers are compressed."""
        return COMPRESSIONS[self.compression]

    def options(self) -> list[tuple[str, int]]:
        """Return gRPC's channel arguments."""
        options = [
            ("grpc.so_reuseport", 0),  # else a second server silently shares the port
            ("grpc.max_receive_message_length", self.message_bytes_max * _MESSAGE_FACTOR),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", self.connection_calls_max),
            ("grpc.server.max_pending_requests", self.unheard_calls_max),
            ("grpc.server.max_pending_requests_hard_limit", self.unheard_calls_max * _UNHEARD_FACTOR),
            ("grpc.keepalive_time_ms", _ms(self.keepalive_s)),
            ("grpc.keepalive_timeout_ms", _ms(self.keepalive_timeout_s)),
            ("grpc.http2.ping_timeout_ms", _ms(self.keepalive_timeout_s)),  # else an answer may take a minute
            # Not min_recv_ping_interval_without_data_ms, as its macro and many programs call it: that is ignored.
            ("grpc.http2.min_ping_interval_without_data_ms", _ms(self.ping_pause_min_s)),
            ("grpc.keepalive_permit_without_calls", 1),  # else a client without calls may ping every 2 hours only
        ]
        if self.connections_max:
            options.append(("grpc.max_allowed_incoming_connections", self.connections_max))
        if self.connection_age_s:
            options.append(("grpc.max_connection_age_ms", _ms(self.connection_age_s)))
        if self.connection_age_s and self.connection_age_grace_s:
            options.append(("grpc.max_connection_age_grace_ms", _ms(self.connection_age_grace_s)))
        return options


def _ms(seconds: float) -> int:
    return round(seconds * 1e3)
