"""All addresses of a client: kept up to date, and one of them picked for each call.

Path: calls → **fleet** → endpoint.
"""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable

import grpc

from service.client import addresses, endpoint, failures

log = logging.getLogger(__name__)

RESOLVE_AGAIN_S = 1.0
"""Seconds at least between two look-ups of the names."""

LOOK_AGAIN_S = 2.0
"""Seconds after which a call that finds nobody looks again, whether or not something changed."""

Resolve = Callable[[addresses.Name], Awaitable[list[str]]]


class Fleet:
    """The endpoints by address, fixed ones and those that names stand for.

    Mutable state: the endpoints, those that leave, and who waits for one; touched only on the event loop.
    """

    def __init__(
        self,
        places: addresses.Places,
        transport: endpoint.Transport,
        *,
        resolve_every_s: float,
        resolve: Resolve = addresses.resolve,
    ) -> None:
        self._places = places
        self._transport = transport
        self._resolve_every_s = resolve_every_s
        self._resolve = resolve
        self._endpoints: dict[str, endpoint.Endpoint] = {}
        self._turns = itertools.count(1)
        self._waiters: set[asyncio.Future[None]] = set()
        self._unresolved: OSError | None = None
        self._look_up = asyncio.Event()
        self._resolver: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Open the fixed addresses; look the names up, now and from time to time."""
        for address in self._places.fixed:
            self._add(address, "")
        if self._places.names:
            self._resolver = asyncio.get_running_loop().create_task(self._keep_resolved())

    async def close(self) -> None:
        """Close everything; no calls are out any more."""
        if self._resolver is not None:
            self._resolver.cancel()
            await asyncio.wait((self._resolver,))
        await asyncio.gather(*self._leaving, *(one.close() for one in self._endpoints.values()))

    async def known(self) -> list[endpoint.Endpoint]:
        """Return all addresses; wait for the first look-up of the names."""
        while not self._endpoints:
            await self._change()
        return list(self._endpoints.values())

    async def pick(self) -> endpoint.Endpoint:
        """Return the address with the fewest calls out; wait while none takes any. The caller must call it at once."""
        while (chosen := self._best()) is None:
            await self._change()
        chosen.picked = next(self._turns)
        return chosen

    def trouble(self) -> failures.CallFailed | None:
        """Return why nobody takes calls, as far as is known."""
        if self._unresolved is not None and not self._endpoints:
            names = ", ".join(name.host for name in self._places.names)
            return failures.CallFailed(
                grpc.StatusCode.UNAVAILABLE, f"the name cannot be resolved: {self._unresolved.strerror}", names
            )
        known = [one.last_failure for one in self._endpoints.values() if one.failures]
        return next((failure for failure in known if failure is not None), None)

    def _best(self) -> endpoint.Endpoint | None:
        now_s = time.monotonic()
        able = [one for one in self._endpoints.values() if one.takes_calls(now_s)]
        return min(able, key=lambda one: (one.outstanding, one.picked), default=None)

    async def _change(self) -> None:
        """Wait until an endpoint has rested, or something else changed."""
        now_s = time.monotonic()
        rests_s = [one.rests_until_s - now_s for one in self._endpoints.values() if one.rests_until_s > now_s]
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait((waiter,), timeout=min(rests_s, default=LOOK_AGAIN_S))
        finally:
            self._waiters.discard(waiter)

    def _changed(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        if any(one.failures for one in self._endpoints.values()):
            self._look_up.set()

    def _add(self, address: str, authority: str) -> None:
        self._endpoints[address] = added = endpoint.Endpoint(address, authority, self._transport, self._changed)
        added.open()

    async def _keep_resolved(self) -> None:
        while True:
            self._update(await self._resolved())
            await asyncio.sleep(min(RESOLVE_AGAIN_S, self._resolve_every_s))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look_up.wait(), self._resolve_every_s)
            self._look_up.clear()

    async def _resolved(self) -> dict[str, addresses.Name]:
        """Look the names up; of one that cannot be, the addresses that are known stay."""
        found: dict[str, addresses.Name] = {}
        unresolved: OSError | None = None
        for name in self._places.names:
            try:
                known = await self._resolve(name)
            except OSError as error:
                if self._unresolved is None:  # once, not at every look-up until it is there again
                    log.warning("%s cannot be looked up: %s", name.host, error)
                unresolved = error
                self._look_up.set()
                known = [address for address, one in self._endpoints.items() if one.authority == name.authority]
            found |= dict.fromkeys(known, name)
        self._unresolved = unresolved
        return found

    def _update(self, found: dict[str, addresses.Name]) -> None:
        """Add the addresses that are new; those that are gone finish what they have."""
        for address in self._endpoints.keys() - found.keys() - set(self._places.fixed):
            task = asyncio.get_running_loop().create_task(self._endpoints.pop(address).finish())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        for address in found.keys() - self._endpoints.keys():
            self._add(address, found[address].authority)
        self._changed()
