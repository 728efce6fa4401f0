"""Fan-out of changes to Fleet clients.

Only keys are queued, each once: a slow client gets the newest state, never a backlog.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from pilothouse_dataplane.gateway.fleet.projection import Key

MAX_PENDING = 20_000
"""Keys that one client may have pending; beyond it gets a snapshot instead."""


class Subscription:
    """What one client has not been told yet."""

    def __init__(self, tenants: frozenset[str] | None, session: tuple[str, str] | None = None) -> None:
        self._tenants = tenants
        self._session = session
        self._pending: dict[Key, None] = {}
        self._ready = asyncio.Event()
        self.overflown = False

    def offer(self, key: Key) -> None:
        """Note a change, where the client wants it."""
        if self._tenants is not None and key.tenant not in self._tenants:
            return
        if self._session is not None and (key.kind != "session" or (key.tenant, key.name) != self._session):
            return
        if len(self._pending) >= MAX_PENDING:
            self._pending.clear()
            self.overflown = True
        self._pending[key] = None
        self._ready.set()

    async def take(self, seconds: float) -> list[Key]:
        """What has changed since the last call; waits at most ``seconds`` and may return nothing."""
        try:
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        except TimeoutError:
            return []
        self._ready.clear()
        keys = list(self._pending)
        self._pending.clear()
        return keys


class Hub:
    """All subscriptions."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def publish(self, keys: Iterable[Key]) -> None:
        """Tell every client; never waits."""
        for key in keys:
            for subscription in self._subscriptions:
                subscription.offer(key)

    def add(self, subscription: Subscription) -> None:
        """Begin to tell a client."""
        self._subscriptions.add(subscription)

    def remove(self, subscription: Subscription) -> None:
        """Tell it no more."""
        self._subscriptions.discard(subscription)
