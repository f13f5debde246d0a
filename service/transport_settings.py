"""The settings of connections and of who may call: fields of settings.Settings, kept here for their number.

Path: **transport_settings** → settings → server → wire.transport, wire.security.
"""

import pathlib
from typing import Literal

import pydantic


class TransportSettings(pydantic.BaseModel):
    """What `fovea serve` can be told about connections, TLS and callers."""

    compression: Literal["none", "gzip", "deflate"] = pydantic.Field(
        "none",
        description="Of answers, for clients that take it. Worth its CPU for feature maps on slow networks; "
        "scores are too short to gain. Requests may come compressed whatever this says.",
    )
    connections_max: int = pydantic.Field(
        1000,
        ge=0,
        description="Connections at once; more are closed. Below the 1024 files that a process may often have open, so "
        "that metrics and probes still get theirs. 0: no limit.",
    )
    connection_calls_max: int = pydantic.Field(
        1024,
        ge=1,
        description="Calls and streams open at once on one connection; a client waits with more. As many as the queue "
        "takes: one connection can fill it, and no more.",
    )
    unheard_calls_max: int = pydantic.Field(
        1000,
        ge=1,
        description="New calls that gRPC keeps until the server hears of them. Beyond, it cancels some of the next "
        "ones, and at three times as many all: at hardly any cost, but as CANCELLED and without a word (Fovea's client "
        "sends those again). gRPC's own number, which lets bursts pass. For deadlines below 0.2 s at small networks, "
        "in single calls, 32: up to twice the capacity most is answered in time; with 1000 nothing is.",
    )
    connection_age_s: float = pydantic.Field(
        600.0,
        ge=0,
        description="Seconds, give or take a tenth, after which a client is told to open another connection, so that "
        "load finds new replicas and certificates. Nothing is lost: what is open on the old one goes on. 0: never.",
    )
    connection_age_grace_s: float = pydantic.Field(
        0.0,
        ge=0,
        description="Seconds after that until streams that are still open are cut off; Fovea's client renews its own "
        "after 66 s at most. 0: never.",
    )
    keepalive_s: float = pydantic.Field(
        60.0,
        ge=1,
        description="Seconds without a sign of life after which the server pings a client, so that the calls of "
        "clients that vanished are given up. Shorter than what middleboxes forget silent connections after.",
    )
    keepalive_timeout_s: float = pydantic.Field(
        20.0, gt=0, description="Seconds that the answer to such a ping may take before the connection is closed."
    )
    ping_pause_min_s: float = pydantic.Field(
        10.0,
        ge=0,
        description="Shortest pause between a client's pings, with calls open or not; one that pings more often is "
        "disconnected (too_many_pings). gRPC's own is 300 s, and cuts off idle streams of common clients.",
    )
    caller_samples_max: int = pydantic.Field(
        0,
        ge=0,
        description="Samples that one caller (a token, else a host) may have unanswered; more are refused. The queue "
        "is fair in who is served next, this also in who may wait. Behind a proxy without tokens all callers are one. "
        "0: no limit but the queue's.",
    )
    tls_certificate: pathlib.Path | None = pydantic.Field(
        None,
        description="PEM file of the server's certificate, followed by intermediate ones. With --tls-key the gRPC port "
        "speaks TLS. Changed files are read for the next connection, without a restart.",
    )
    tls_key: pathlib.Path | None = pydantic.Field(
        None, description="PEM file of the certificate's private key, not encrypted."
    )
    tls_client_ca: pathlib.Path | None = pydantic.Field(
        None,
        description="PEM file of the authorities whose client certificates are let in; others are turned away (mTLS).",
    )
    tokens: pathlib.Path | None = pydantic.Field(
        None,
        description="TOML file of API tokens (`fovea token` makes entries). With it every call but health checks needs "
        "one, and what the token may do is in the file. Read again when it changes.",
    )
    health_port: int | None = pydantic.Field(
        None,
        ge=0,
        le=65535,
        description="Plain gRPC port with grpc.health.v1 only, for probes that speak no TLS (the kubelet's); 0 takes a "
        "free one and logs it. Left out: none.",
    )

    def contradiction(self, *, allows_remote_control: bool) -> str | None:
        """Return what of these settings cannot go together, and what to do about it."""
        if (self.tls_certificate is None) != (self.tls_key is None):
            given, missing = ("--tls-certificate", "--tls-key")[:: 1 if self.tls_key is None else -1]
            return f"{given} is given without {missing}; give both for TLS, or neither for plain text"
        if self.tls_client_ca is not None and self.tls_certificate is None:
            return (
                "--tls-client-ca is given, but client certificates need TLS; give --tls-certificate and --tls-key too"
            )
        if self.tokens is not None and allows_remote_control:
            return (
                "--allow-remote-control is given with --tokens, where the right to control is a token's; leave it out, "
                'and give a token rights = ["infer", "control"]'
            )
        return None
