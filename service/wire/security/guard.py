"""The one place that says no: who a caller is, which models, how much, and whether it may control the server.

Path: gRPC → **guard** → inference, image_service, repository, controls; passage → **guard** → engine.

Who calls is found once, when a call or a stream opens, and kept in the call's own context, which the tasks of a
stream's messages inherit. What the token may do is looked up for every message: a token taken out of the file ends at
the next one, in streams too.
"""

import asyncio
import contextlib
import contextvars
import logging
import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import grpc
import grpc.aio

from service import errors
from service.wire import failures, status
from service.wire.security import buckets, peers, tokens

log = logging.getLogger(__name__)

REFRESH_S = 1.0
"""Seconds between two looks at the file of tokens."""

PAUSE_S = 0.05
"""When to try again with too much out: about the time of a batch."""

_HEADER = "authorization"
_SCHEME = "bearer "
_token: contextvars.ContextVar[tokens.Token | None] = contextvars.ContextVar("the token of this call", default=None)
_NO_LIMIT = contextlib.nullcontext()


def caller_name() -> str:
    """Return whose call this is by its token; "" without one."""
    token = _token.get()
    return "" if token is None else f"token {token.name}"


class Guard:
    """Answers for every call whether it may.

    Mutable state: the tokens, the buckets by token, and how much each caller has out; touched only on the event loop.
    """

    def __init__(
        self,
        known: tokens.Tokens | None = None,
        *,
        allows_remote_control: bool = False,
        caller_samples_max: int = 0,
        count: Callable[[str], None] = lambda code: None,
    ) -> None:
        self._tokens = known
        self._allows_remote_control = allows_remote_control
        self._samples_max = caller_samples_max
        self._count = count
        self._buckets: dict[str, buckets.Bucket] = {}
        self._out: dict[str, int] = {}
        self._refreshing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look at the file of tokens from time to time, until `aclose`."""
        if self._tokens is not None:
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh(self._tokens))

    async def aclose(self) -> None:
        """Look no more."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait((self._refreshing,))

    async def _refresh(self, known: tokens.Tokens) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                known.refresh()
            except Exception:  # whatever it is, the next look may succeed
                log.exception("the file of tokens cannot be read again; the tokens before stay in force")

    def guarded(self, handler: Any) -> Any:
        """Return a gRPC handler whose calls need a token; the handler itself where there are none."""
        return handler if self._tokens is None else _Guarded(handler, self)

    def identify(self, metadata: Any) -> None:
        """Find who calls, for the rest of the call.

        Raises:
            NotAuthenticated: no token, several, or one that is not known.
        """
        assert self._tokens is not None, "handlers are guarded only with tokens"
        try:
            token = self._tokens.find(_secret(metadata))
            if token is None:
                raise errors.NotAuthenticated("the token is not known here (any more)")
        except errors.NotAuthenticated as error:
            self._count(status.code(error).name)
            raise
        _token.set(token)

    def require_model(self, model: str) -> None:
        """Check that the caller may use a model.

        Raises:
            NotAuthenticated: the token is no longer known.
            NotPermitted: it is for other models.
        """
        token = self._current()
        if token is None:
            return
        if tokens.INFER not in token.rights:
            raise errors.NotPermitted(token.name, "infer", "use another, or give it the right 'infer'")
        self._require_allowed(token, model)

    def may_use(self, model: str) -> bool:
        """Return whether the caller may use a model.

        Raises:
            NotAuthenticated: the token is no longer known.
        """
        try:
            self.require_model(model)
        except errors.NotPermitted:
            return False
        return True

    def require_control(self, peer: str, model: str = "") -> None:
        """Check that the caller may change the server: by its token's right, else by being on this machine.

        Raises:
            NotAuthenticated, NotPermitted: see require_model.
            ControlDenied: there are no tokens, and the peer is elsewhere.
        """
        token = self._current()
        if token is None:
            if not self._allows_remote_control and not peers.is_local(peer):
                raise errors.ControlDenied(peer)
            return
        if tokens.CONTROL not in token.rights:
            raise errors.NotPermitted(token.name, "control the server", "use another, or give it the right 'control'")
        if model:
            self._require_allowed(token, model)

    def held(self, caller: str, samples: int) -> contextlib.AbstractContextManager[None]:
        """Count samples as a caller's while they are out.

        Raises (when entered):
            RateExceeded: the token's rate is used up.
            CallerFull: the caller has as many out as it may.
        """
        if self._tokens is None and not self._samples_max:
            return _NO_LIMIT
        return _Held(self, caller, samples)

    def take(self, caller: str, samples: int) -> buckets.Bucket | None:
        """Count samples out, for `held`; the bucket they came from."""
        out = self._out.get(caller, 0)
        if self._samples_max and out and out + samples > self._samples_max:
            raise errors.CallerFull(caller, out, self._samples_max, PAUSE_S)
        bucket = self._bucket()
        pause_s = bucket.take(samples, time.monotonic()) if bucket else 0.0
        if bucket and pause_s:
            raise errors.RateExceeded(caller, bucket.rate_per_s, pause_s)
        self._out[caller] = out + samples
        return bucket

    def give_back(self, caller: str, samples: int) -> None:
        """Count samples in again."""
        left = self._out[caller] - samples
        if left:
            self._out[caller] = left
        else:
            del self._out[caller]

    def _bucket(self) -> buckets.Bucket | None:
        token = self._current()
        if token is None or token.images_per_s == math.inf:
            return None
        bucket = self._buckets.get(token.name)
        if bucket is None or (bucket.rate_per_s, bucket.burst) != (token.images_per_s, token.burst):
            bucket = buckets.Bucket(token.images_per_s, token.burst, time.monotonic())
            self._buckets[token.name] = bucket
        return bucket

    def _current(self) -> tokens.Token | None:
        """The token of this call as it is now in the file; None where there are no tokens."""
        if self._tokens is None:
            return None
        known = _token.get()
        current = None if known is None else self._tokens.current(known)
        if current is None:
            raise errors.NotAuthenticated("the token is not known here any more")
        return current

    def _require_allowed(self, token: tokens.Token, model: str) -> None:
        if not token.may_use(model):
            raise errors.NotPermitted(
                token.name, f"use model {model!r}", f"it is for {', '.join(token.models)}; use another, or extend it"
            )


class _Held:
    """Samples of a caller, out from enter to exit; a refusal by the engine does not count towards the rate."""

    __slots__ = ("_bucket", "_caller", "_guard", "_samples")

    def __init__(self, guard: Guard, caller: str, samples: int) -> None:
        self._guard, self._caller, self._samples = guard, caller, samples
        self._bucket: buckets.Bucket | None = None

    def __enter__(self) -> None:
        self._bucket = self._guard.take(self._caller, self._samples)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._guard.give_back(self._caller, self._samples)
        if self._bucket is not None and isinstance(error, errors.Refused):
            self._bucket.give_back(self._samples)


class _Guarded(grpc.GenericRpcHandler):
    """Handles the calls of another handler, if their token is known."""

    def __init__(self, inner: Any, guard: Guard) -> None:
        self._inner = inner
        self._guard = guard

    def service(self, details: Any) -> Any:
        """Return the call's handler; gRPC asks in the call's own task, so the context is the call's."""
        handler = self._inner.service(details)
        if handler is None:
            return None
        try:
            self._guard.identify(details.invocation_metadata)
        except errors.NotAuthenticated as error:
            return _refusal(error)
        return handler


def _refusal(error: errors.FoveaError) -> Any:
    """A handler that reads nothing: a streaming one, which serves as well for calls with one message."""

    async def refuse(requests: Any, context: Any) -> None:
        failures.of_call(context, error)

    return grpc.stream_stream_rpc_method_handler(refuse)


def _secret(metadata: Any) -> str:
    """The token in a call's metadata.

    Raises:
        NotAuthenticated: none, or several.
    """
    found = [value for key, value in metadata or () if key == _HEADER]
    if len(found) != 1:
        raise errors.NotAuthenticated(f"the call has {len(found) or 'no'} {_HEADER} metadata")
    text = str(found[0])
    if not text.lower().startswith(_SCHEME):
        raise errors.NotAuthenticated(f"the {_HEADER} metadata is not of the scheme Bearer")
    return text[len(_SCHEME) :].strip()
