"""What the Fleet gRPC service shows: a snapshot, then coalesced changes, for as long as the caller may see them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio

from pilothouse_dataplane.gateway.approvals import Approvals
from pilothouse_dataplane.gateway.calls import WorkerCalls
from pilothouse_dataplane.gateway.fleet.actions import FleetActions, bearer, refused
from pilothouse_dataplane.gateway.fleet.auth import Authorizer
from pilothouse_dataplane.gateway.fleet.hub import Hub, Subscription
from pilothouse_dataplane.gateway.fleet.projection import Key, Projection
from pilothouse_dataplane.gateway.metrics import Metrics
from pilothouse_dataplane.gateway.settings import Settings
from pilothouse_dataplane.gateway.workers import Directory
from pilothouse_proto.fleet.v1 import fleet_pb2 as pb

_SNAPSHOT = 2_000
"""Sessions in the first message (about 600 KB; a gRPC message may have 4 MB); older ones follow as changes."""

Context = grpc.aio.ServicerContext[Any, Any]


class FleetService(FleetActions):
    """See ``fleet.proto``."""

    def __init__(
        self,
        *,
        settings: Settings,
        authorizer: Authorizer,
        calls: WorkerCalls,
        approvals: Approvals,
        directory: Directory,
        projection: Projection,
        hub: Hub,
        metrics: Metrics,
    ) -> None:
        super().__init__(
            settings=settings, authorizer=authorizer, calls=calls, approvals=approvals, directory=directory
        )
        self._projection = projection
        self._hub = hub
        self._metrics = metrics

    async def _visible(self, context: Context, tenant: str) -> frozenset[str] | None:
        async with refused(context):
            return await self._authorizer.visible(bearer(context), tenant, self._directory.table.tenants())
        raise AssertionError("unreachable: refused() has ended the call")

    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.WatchResponse]:
        """One snapshot, then changes as they happen; ends when the right is taken away."""
        visible = await self._visible(context, request.tenant)
        subscription = Subscription(visible)
        self._hub.add(subscription)
        self._metrics.fleet_clients.inc()
        try:
            for response in self._everything(visible):
                yield response
            checked = time.monotonic()
            while True:
                keys = await subscription.take(self._settings.fleet_recheck)
                if subscription.overflown:
                    subscription.overflown = False
                    for response in self._everything(visible):
                        yield response
                else:
                    for key in keys:
                        change = self._projection.change(key)
                        if change is not None:
                            yield change
                if time.monotonic() - checked >= self._settings.fleet_recheck:
                    if await self._visible(context, request.tenant) != visible:
                        await context.abort(
                            grpc.StatusCode.ABORTED, "What you may see has changed. Call Watch again to see it."
                        )
                    checked = time.monotonic()
                await asyncio.sleep(self._settings.fleet_interval)
        finally:
            self._metrics.fleet_clients.dec()
            self._hub.remove(subscription)

    def _everything(self, visible: frozenset[str] | None) -> Iterator[pb.WatchResponse]:
        """A snapshot, and where there are more sessions than one message should carry, the rest as changes."""
        snapshot, rest = pb.Snapshot(), list[Key]()
        for tenant in self._projection.tenants():
            if visible is not None and tenant not in visible:
                continue
            for key in self._projection.keys(tenant):
                change = self._projection.change(key)
                if change is None:
                    continue
                if key.kind == "cost":
                    snapshot.costs.append(change.cost)
                elif key.kind == "breaker":
                    snapshot.breakers.append(change.breaker)
                elif key.kind == "approval":
                    snapshot.approvals.append(change.approval)
                elif len(snapshot.sessions) < _SNAPSHOT:
                    snapshot.sessions.append(change.session)
                else:
                    rest.append(key)
        yield pb.WatchResponse(snapshot=snapshot)
        for key in rest:
            change = self._projection.change(key)
            if change is not None:
                yield change

    async def WatchSession(
        self, request: pb.WatchSessionRequest, context: Context
    ) -> AsyncIterator[pb.WatchSessionResponse]:
        """All runs and steps of one session, again whenever they change."""
        if not request.tenant or not request.session_id:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "tenant and session_id are both needed. Nothing is watched. Set both."
            )
        visible = await self._visible(context, request.tenant)
        subscription = Subscription(visible, (request.tenant, request.session_id))
        self._hub.add(subscription)
        self._metrics.fleet_clients.inc()
        try:
            checked = time.monotonic()
            while True:
                state = self._projection.session(request.tenant, request.session_id)
                if state is None:
                    await context.abort(
                        grpc.StatusCode.NOT_FOUND,
                        f"Session {request.session_id} of {request.tenant} is not known: it is older than 24 h, or has "
                        "asked nothing yet. Choose one that Watch shows.",
                    )
                    return
                yield state
                while not await subscription.take(self._settings.fleet_recheck):
                    await self._visible(context, request.tenant)
                    checked = time.monotonic()
                if time.monotonic() - checked >= self._settings.fleet_recheck:
                    await self._visible(context, request.tenant)
                    checked = time.monotonic()
                await asyncio.sleep(self._settings.fleet_interval)
        finally:
            self._metrics.fleet_clients.dec()
            self._hub.remove(subscription)
