"""Finds a worker for a run and connects to it: directory, affinity, choice and channel put together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio

from pilothouse_dataplane.gateway.channels import ChannelPool, WorkerLink
from pilothouse_dataplane.gateway.problems import no_worker
from pilothouse_dataplane.gateway.routing import Affinity, choose
from pilothouse_dataplane.gateway.sessions import SessionStore
from pilothouse_dataplane.gateway.workers import Directory, Worker

log = logging.getLogger(__name__)

_AVOID = 5.0
"""Seconds that a worker found dead is left out: by then the cluster has noticed too, or it is back."""
_CONNECT = 0.8
"""Seconds to connect: a Pod in the same cluster takes milliseconds, and a second worker must fit into the wait."""


class Dispatcher:
    """Leases workers to runs."""

    def __init__(self, directory: Directory, sessions: SessionStore, pool: ChannelPool, *, wait: float) -> None:
        self._directory = directory
        self._sessions = sessions
        self._pool = pool
        self._wait = wait
        self._avoid: dict[str, float] = {}
        directory.listen(lambda: pool.keep(directory.table.known()))

    def avoid(self, worker: Worker) -> None:
        """Send nothing to this worker for a few seconds: it was just found dead."""
        self._avoid[worker.uid] = time.monotonic() + _AVOID

    def _avoided(self) -> frozenset[str]:
        now = time.monotonic()
        self._avoid = {uid: until for uid, until in self._avoid.items() if until > now}
        return frozenset(self._avoid)

    @asynccontextmanager
    async def lease(self, tenant: str, session_id: str) -> AsyncIterator[WorkerLink]:
        """A connected worker for one run. Raises :class:`Problem` NO_WORKER if none is found in the configured wait.

        Nothing has been sent to a worker that could not be connected to, so trying the next one is safe.
        """
        affinity = await self._sessions.affinity(tenant, session_id)
        deadline = time.monotonic() + self._wait
        while True:
            ready = self._directory.table.ready(tenant)
            worker = choose(session_id, ready, self._pool.in_flight(), affinity, self._avoided())
            left = deadline - time.monotonic()
            if worker is None:
                if left <= 0:
                    raise no_worker(tenant, known=self._directory.table.namespace_of(tenant) is not None)
                await self._directory.wait_change(min(left, 0.25))
                continue
            link = self._pool.acquire(worker)
            try:
                if not await _connected(link, _CONNECT):
                    log.warning("worker %s at %s cannot be connected to", worker.name, worker.address)
                    self.avoid(worker)
                    continue
                await self._sessions.remember(tenant, session_id, Affinity(worker.name, worker.revision))
                yield link
                return
            finally:
                self._pool.release(link)


async def _connected(link: WorkerLink, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await link.channel.channel_ready()
    except (TimeoutError, asyncio.InvalidStateError, grpc.aio.UsageError):
        return False
    return True
