"""Finds a worker for a run and connects to it: directory, affinity, choice and channel put together.

First choice are ready workers that were not just found dead. Where there is none, every worker of the tenant that stays
is asked for its health: a container that was killed and started again answers a second or two before the cluster says
that it is ready, and one that drains says that it does not serve.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from pilothouse_dataplane.gateway.channels import ChannelPool, WorkerLink
from pilothouse_dataplane.gateway.problems import no_worker
from pilothouse_dataplane.gateway.routing import Affinity, choose
from pilothouse_dataplane.gateway.sessions import SessionStore
from pilothouse_dataplane.gateway.workers import Directory, Worker

log = logging.getLogger(__name__)

_AVOID = 5.0
"""Seconds that a worker found dead is second choice: by then the cluster has noticed too, or it is back."""
_CONNECT = 0.8
"""Seconds to connect: a Pod in the same cluster takes milliseconds, and a second worker must fit into the wait."""
_CHECK = 0.25
"""Seconds for a worker of second choice to answer; then the directory is looked at again."""
_PAUSE = 0.05
"""Seconds between two looks at workers that answer at once, but not that they serve."""


class Dispatcher:
    """Leases workers to runs."""

    def __init__(self, directory: Directory, sessions: SessionStore, pool: ChannelPool, *, wait: float) -> None:
        self._directory = directory
        self._sessions = sessions
        self._pool = pool
        self._wait = wait
        self._avoid: dict[str, float] = {}
        self._checks: dict[str, asyncio.Task[bool]] = {}
        self._noting: set[asyncio.Task[None]] = set()
        directory.listen(lambda: pool.keep(directory.table.known()))

    def avoid(self, worker: Worker) -> None:
        """Prefer others for a few seconds: it was just found dead, or drains."""
        self._avoid[worker.uid] = time.monotonic() + _AVOID

    def _avoided(self) -> frozenset[str]:
        now = time.monotonic()
        self._avoid = {uid: until for uid, until in self._avoid.items() if until > now}
        return frozenset(self._avoid)

    @asynccontextmanager
    async def lease(
        self,
        tenant: str,
        session_id: str,
        *,
        lost: Worker | None = None,
        elsewhere: frozenset[str] = frozenset(),
        until: Callable[[], float] | None = None,
    ) -> AsyncIterator[WorkerLink]:
        """A connected worker for one run. Raises :class:`Problem` NO_WORKER if none is found by ``until``.

        ``lost``: the worker that the run had and that is gone: the run goes to one of the same revision, and waits for
        no store. ``elsewhere``: uids of workers that said another one has the run. ``until`` gives monotonic seconds
        and is asked again and again, so that a wait can be cut short.
        Nothing has been sent to a worker that could not be connected to, so trying the next one is safe.
        """
        if lost is None:
            affinity = await self._sessions.affinity(tenant, session_id)
        else:
            affinity = Affinity(lost.name, lost.revision)
        link = await self._find(tenant, session_id, affinity, until or self._patience(self._wait), elsewhere)
        try:
            self._note(tenant, session_id, Affinity(link.worker.name, link.worker.revision))
            yield link
        finally:
            self._pool.release(link)

    @asynccontextmanager
    async def any_worker(self, tenant: str, seconds: float) -> AsyncIterator[WorkerLink]:
        """A connected worker for one call that any of the tenant's workers can answer. Raises like :meth:`lease`."""
        link = await self._find(tenant, "", None, self._patience(seconds))
        try:
            yield link
        finally:
            self._pool.release(link)

    def _patience(self, seconds: float) -> Callable[[], float]:
        deadline = time.monotonic() + seconds
        return lambda: deadline

    def _note(self, tenant: str, session_id: str, affinity: Affinity) -> None:
        # Aside: a store that does not answer must not hold up the answer, let alone a takeover.
        task = asyncio.create_task(self._sessions.remember(tenant, session_id, affinity), name="remember-worker")
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)

    async def _find(
        self,
        tenant: str,
        session_id: str,
        affinity: Affinity | None,
        until: Callable[[], float],
        elsewhere: frozenset[str] = frozenset(),
    ) -> WorkerLink:
        """An acquired link; the caller releases it."""
        table = self._directory.table
        while True:
            avoid = self._avoided() | elsewhere
            worker = choose(session_id, table.ready(tenant), self._pool.in_flight(), affinity, avoid)
            if worker is not None:
                link = await self._acquire(worker)
                if link is not None:
                    return link
                continue
            left = until() - time.monotonic()
            if left <= 0:
                raise no_worker(tenant, known=table.namespace_of(tenant) is not None)
            worker = await self._first_serving(table.standing(tenant), min(left, _CHECK))
            if worker is not None:
                self._avoid.pop(worker.uid, None)
                link = await self._acquire(worker)
                if link is not None:
                    return link

    async def _acquire(self, worker: Worker) -> WorkerLink | None:
        link = self._pool.acquire(worker)
        connected = False
        try:
            connected = await link.connected(_CONNECT)
        finally:
            if not connected:
                self._pool.release(link)
        if connected:
            return link
        log.warning("worker %s at %s cannot be connected to", worker.name, worker.address)
        self.avoid(worker)
        return None

    async def _first_serving(self, workers: Iterable[Worker], seconds: float) -> Worker | None:
        """The first of these that says it serves; None where none does in ``seconds`` or the directory changed.

        However many runs wait, a worker is asked once at a time: it has just been started, and has enough to do.
        """
        checks = {self._check(worker): worker for worker in workers}
        changed = asyncio.create_task(self._directory.wait_change(seconds))
        try:
            waiting: set[asyncio.Task[bool] | asyncio.Task[None]] = {changed, *checks}
            while changed in waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task, worker in checks.items():
                    if task in done and not task.cancelled() and task.result():
                        return worker
                if done - {changed} and len(waiting) == 1:
                    await asyncio.sleep(_PAUSE)
                    return None
            return None
        finally:
            changed.cancel()

    def _check(self, worker: Worker) -> asyncio.Task[bool]:
        task = self._checks.get(worker.uid)
        if task is None or task.done():
            task = asyncio.create_task(self._ask_health(worker), name=f"health-{worker.name}")
            self._checks[worker.uid] = task
            task.add_done_callback(lambda done: self._forget_check(worker.uid, done))
        return task

    def _forget_check(self, uid: str, task: asyncio.Task[bool]) -> None:
        if self._checks.get(uid) is task:
            del self._checks[uid]

    async def _ask_health(self, worker: Worker) -> bool:
        link = self._pool.acquire(worker)
        try:
            return await link.serving(_CHECK)
        finally:
            self._pool.release(link)
