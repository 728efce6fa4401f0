"""Asks a worker of each tenant what the ledger holds of the day's model calls, so that lost events are made good.

Asked at the start, after a break in the reading of events, once a minute while calls are heard of, and every ten
minutes anyway. No worker, or no ledger: the sums from events stay, and Fleet tells since when they are not confirmed.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import grpc.aio

from pilothouse_dataplane.gateway.calls import WorkerCalls
from pilothouse_dataplane.gateway.fleet.hub import Hub
from pilothouse_dataplane.gateway.fleet.projection import Projection
from pilothouse_dataplane.gateway.problems import Problem
from pilothouse_dataplane.gateway.workers import Directory
from pilothouse_proto.agent.v1 import agent_pb2 as agent

log = logging.getLogger(__name__)

LAG = timedelta(seconds=5)
"""How far behind now the ledger is asked: by then it has been told of every call, unless PostgreSQL is away."""
_LOOK = 1.0
_BUSY = 60.0
_QUIET = 600.0
_AGAIN = 30.0
_WAIT = 0.2
_TIMEOUT = 5.0
_AT_ONCE = 4
_BY = (agent.COST_BY_TIER, agent.COST_BY_PROVIDER, agent.COST_BY_MODEL)


class Reconciler:
    """Keeps the projection's costs to what the ledger says."""

    def __init__(self, calls: WorkerCalls, directory: Directory, projection: Projection, hub: Hub) -> None:
        self._calls = calls
        self._directory = directory
        self._projection = projection
        self._hub = hub
        self._due: dict[str, float] = {}
        """By tenant, the loop's time at which it is asked at the latest."""
        self._asked: dict[str, float] = {}
        self._under_way: set[str] = set()

    def gap(self) -> None:
        """Events may have been missed: every tenant is asked soon."""
        self._due.clear()

    async def run(self, started: asyncio.Event) -> None:
        """Ask until cancelled; begins when ``started`` says that the tenants are known."""
        await started.wait()
        slots = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while True:
                now = asyncio.get_running_loop().time()
                tenants = self._directory.table.tenants()
                unsettled = self._projection.unsettled()
                for gone in [tenant for tenant in self._due if tenant not in tenants]:
                    del self._due[gone]
                for tenant in tenants:
                    busy = tenant in unsettled and now >= self._asked.get(tenant, 0.0) + _BUSY
                    if tenant not in self._under_way and (busy or now >= self._due.get(tenant, 0.0)):
                        self._under_way.add(tenant)
                        group.create_task(self._ask(tenant, slots))
                await asyncio.sleep(_LOOK)

    async def _ask(self, tenant: str, slots: asyncio.Semaphore) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with slots:
                await self.reconcile(tenant, datetime.now(UTC))
            self._due[tenant] = loop.time() + _QUIET
        except (Problem, grpc.aio.AioRpcError) as error:
            log.info("what %s's model calls cost could not be asked: %r", tenant, error)
            self._due[tenant] = loop.time() + _AGAIN
        except Exception:
            log.exception("what %s's model calls cost could not be asked", tenant)
            self._due[tenant] = loop.time() + _AGAIN
        finally:
            self._asked[tenant] = loop.time()
            self._under_way.discard(tenant)

    async def reconcile(self, tenant: str, now: datetime) -> None:
        """Ask once. Raises Problem where no worker is there, AioRpcError where it can't say."""
        until = now - LAG
        request = agent.ListCostsRequest(tenant=tenant, day=until.date().isoformat(), by=_BY)
        request.until.FromDatetime(until)
        told = await self._calls.call(
            tenant, "ListCosts", request, agent.ListCostsResponse, wait=_WAIT, timeout=_TIMEOUT, again=True
        )
        self._hub.publish(self._projection.reconcile(tenant, until.date(), until, told.sums, now))
