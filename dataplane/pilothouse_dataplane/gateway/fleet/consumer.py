"""Reads every tenant's event stream from its beginning, folds it, and tells the hub what changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import DecodeError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from pilothouse_api import names
from pilothouse_dataplane.gateway.fleet.hub import Hub
from pilothouse_dataplane.gateway.fleet.projection import Key, Projection
from pilothouse_dataplane.gateway.metrics import Metrics
from pilothouse_dataplane.gateway.workers import Directory
from pilothouse_proto.events.v1 import events_pb2 as ev

log = logging.getLogger(__name__)

_BATCH = 200
"""Events a stream and read: decoding them holds the event loop for about 5 ms."""
_BLOCK_MS = 1_000
_EXPIRE = 2.0
"""Seconds between two looks for runs and sessions that have ended unheard."""


class Consumer:
    """Keeps the projection up to date; ``synced`` once it has caught up with what the streams held at the start."""

    def __init__(
        self,
        redis: Redis,
        directory: Directory,
        projection: Projection,
        hub: Hub,
        metrics: Metrics,
        heard: Callable[[ev.RunEvent], None] | None = None,
        gap: Callable[[], None] | None = None,
    ) -> None:
        """``heard`` is told of each event that could be folded, ``gap`` when events may have been missed; neither may
        block or raise."""
        self._heard = heard
        self._gap = gap
        self._redis = redis
        self._directory = directory
        self._projection = projection
        self._hub = hub
        self._metrics = metrics
        self._positions: dict[str, bytes] = {}
        self.synced = False

    async def run(self, started: asyncio.Event) -> None:
        """Read until cancelled; begins when ``started`` says that the tenants are known."""
        await started.wait()
        delay = 0.2
        while True:
            try:
                await self._read_once()
                delay = 0.2
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("the event streams cannot be read (%r); trying again in %.1f s", error, delay)
                if self._gap is not None:
                    self._gap()
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)

    async def _read_once(self) -> None:
        tenants = self._directory.table.tenants()
        for gone in [t for t in self._positions if t not in tenants]:
            del self._positions[gone]
            self._projection.forget(gone)
        if not tenants:
            self.synced = True
            await self._directory.wait_change(1.0)
            return
        by_key = {names.events_key(t).encode(): t for t in tenants}
        positions: dict[Any, Any] = {key: self._positions.get(t, b"0") for key, t in by_key.items()}
        # Before it has caught up it does not block: an empty answer is how it learns that it has.
        answer = await self._redis.xread(positions, count=_BATCH, block=_BLOCK_MS if self.synced else None)
        if not answer:
            self.synced = True
            return
        pairs: Any = answer.items() if isinstance(answer, dict) else answer
        for key, entries in pairs:
            tenant = by_key[key]
            for entry_id, fields in _flat(entries):
                self._positions[tenant] = entry_id
                self._hub.publish(self._fold(tenant, fields))
            await asyncio.sleep(0)  # chats come between two tenants' batches

    def _fold(self, tenant: str, fields: dict[bytes, bytes]) -> list[Key]:
        self._metrics.fleet_events.inc()
        try:
            event = ev.RunEvent.FromString(fields[b"e"])
            changed = self._projection.apply(tenant, event)
        except (DecodeError, KeyError, ValueError) as error:
            self._metrics.fleet_rejected.inc()
            log.warning("an event of %s was left out: %r", tenant, error)
            return []
        if self._heard is not None:
            self._heard(event)
        return changed

    async def expire(self) -> None:
        """End what has ended unheard, every two seconds, until cancelled."""
        while True:
            await asyncio.sleep(_EXPIRE)
            if self.synced:
                live = {(w.tenant, w.name) for w in self._directory.table.known()}
                self._hub.publish(self._projection.expire(datetime.now(UTC), live))


def _flat(entries: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """RESP3 wraps a stream's entries in one more list than RESP2."""
    if entries and isinstance(entries[0], list) and entries[0] and isinstance(entries[0][0], tuple | list):
        return [tuple(entry) for part in entries for entry in part]
    return [tuple(entry) for entry in entries]
