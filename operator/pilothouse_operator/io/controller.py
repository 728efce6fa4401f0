"""The loop: events make keys dirty, workers gather, decide and apply; lists read anew make good what was missed.

What only a Tenant's workers know (whether systems and Vault are reached) comes as no event. A second queue holds the
Tenants that are settled: their workers are asked now and then, and the key is dirty only where they say something else
than before.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable
from datetime import UTC, datetime

from pilothouse_api import names
from pilothouse_operator.core import modelroute, tenant
from pilothouse_operator.core.readiness import WorkerReport, poll_delay
from pilothouse_operator.core.resources import (
    BY_KIND,
    CHILD_KINDS,
    CONFIG_MAP,
    CONNECTOR,
    MODEL_ROUTE,
    OWN_KINDS,
    POD,
    ROLLOUT,
    SECRET,
    TENANT,
    Json,
    Key,
    Resource,
)
from pilothouse_operator.core.rollout import status as rollout_status
from pilothouse_operator.io.cache import Cache
from pilothouse_operator.io.gather import Asker, Gatherer
from pilothouse_operator.io.keeper import VaultKeeper, VaultWriter
from pilothouse_operator.io.kube import Kube, KubeError
from pilothouse_operator.io.queue import DirtyQueue
from pilothouse_operator.settings import Settings

log = logging.getLogger(__name__)

MANAGED = f"{names.LABEL_MANAGED_BY}={names.FIELD_MANAGER}"
WORKER_PODS = f"{names.LABEL_COMPONENT}={names.COMPONENT_WORKER},{names.LABEL_TENANT}"
PEOPLES_SECRETS = "type!=kubernetes.io/service-account-token,type!=helm.sh/release.v1"
"""Types that nothing refers to and that can be large are not even listed."""
ERROR_FIRST_SECONDS = 1.0
ERROR_LAST_SECONDS = 60.0
ASK_SECONDS = 15.0
"""How often the workers of a settled Tenant are asked, give or take a fifth."""
ASK_SOON_SECONDS = 2.0
"""Likewise, while a worker has not tried yet whether it reaches one of its systems."""
ASKERS = 4
RESYNC_SPREAD = 0.5
"""Part of the resync period over which the keys are spread, so that no burst comes each minute."""


def _now() -> datetime:
    return datetime.now(UTC)


class Controller:
    """Owns the cache, the queue and the tasks; ``start`` and ``stop`` bound its life."""

    def __init__(
        self,
        settings: Settings,
        kube: Kube,
        ask: Asker,
        vault: VaultWriter,
        now: Callable[[], datetime] = _now,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._settings = settings
        self._kube = kube
        self._now = now
        self._random_bytes = random_bytes
        self.cache = Cache()
        self.queue = DirtyQueue()
        self.keeper = VaultKeeper(vault, self.queue.add)
        self.gatherer = Gatherer(self.cache, kube, settings.platform, ask, self.keeper.state)
        self._watched = DirtyQueue()
        self._reports: dict[Key, dict[str, WorkerReport]] = {}
        """What the workers of each watched Tenant said when it was decided on."""
        self._tasks: list[asyncio.Task[None]] = []
        self.writes = 0
        """Applies since the start; a converged cluster does not raise it."""

    async def start(self) -> None:
        """Read everything once, then begin to work: a decision on half of the objects would be wrong."""
        await self._relist()
        self._mark_all(spread_seconds=0)
        loops = [self._resync(), self.keeper.run(), *(self._ask() for _ in range(ASKERS))]
        loops += [self._work() for _ in range(self._settings.concurrency)]
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    async def stop(self) -> None:
        """End the tasks; a write that is under way is cut off, which the next start makes good."""
        self.queue.close()
        self._watched.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.keeper.close()

    def observe(self, raw: Json, *, deleted: bool) -> None:
        """Take in a watch event."""
        meta = raw["metadata"]
        changed = self.cache.drop(raw["kind"], meta["namespace"], meta["name"]) if deleted else self.cache.put(raw)
        if changed:
            for key in self.gatherer.affected(raw):
                self.queue.add(key)

    async def reconcile(self, key: Key) -> tenant.Decision:
        """Gather, decide, apply; gives what was decided."""
        if key.kind == MODEL_ROUTE.kind:
            route = await self.gatherer.route(key)
            await self._write_status(None if route is None else modelroute.decide(route, self._now()))
            return tenant.Decision()
        if key.kind == ROLLOUT.kind:
            await self._write_status(self._decide_rollout(key))
            return tenant.Decision()
        said = self.gatherer.said_of_route(key)
        view = await self.gatherer.tenant(key)
        if view.route is not None and self.gatherer.said_of_route(key) != said:
            self.queue.add(Key(MODEL_ROUTE.kind, *_place(view.route)))
        decision = tenant.decide(view, self._now(), self._random_bytes)
        if decision.creates:
            for body in decision.creates:
                await self._create(body)
            view = await self.gatherer.tenant(key)
            decision = tenant.decide(view, self._now(), self._random_bytes)
        if not decision.keeps_access:
            self.keeper.want(key, decision.access)
        self._watch(key, decision, view.reports)
        for child in decision.children:
            self._take(await self._kube.apply(child), child)
        for status in decision.statuses:
            await self._write_status(status)
        return decision

    async def _create(self, body: Json) -> None:
        """Create what is not there, and take in what turns out to be."""
        try:
            self._take(await self._kube.create(body), body)
        except KubeError as error:
            if error.status != 409:
                raise
            live = await self._kube.get(BY_KIND[body["kind"]], *_place(body))
            if live is not None:
                self.cache.put({**live, "kind": body["kind"], "apiVersion": body["apiVersion"]})

    def _watch(self, key: Key, decision: tenant.Decision, reports: dict[str, WorkerReport]) -> None:
        """Have the workers asked from time to time; an unsettled Tenant is looked at anyway."""
        if decision.watched and decision.settled:
            self._reports[key] = reports
            self._watched.add_after(key, _ask_delay(reports))
        else:
            self._reports.pop(key, None)

    async def _ask(self) -> None:
        while True:
            key = await self._watched.get()
            try:
                known = self._reports.get(key)
                if known is None:
                    continue
                if await self.gatherer.reports(key) == known:
                    self._watched.add_after(key, _ask_delay(known))
                else:
                    self.queue.add(key)
            except Exception:  # whatever it is, the key is looked at again at the next resync
                log.exception("%s: its workers could not be asked", key)
            finally:
                self._watched.done(key)

    def _decide_rollout(self, key: Key) -> Json | None:
        raw = self.cache.get(ROLLOUT.kind, key.namespace, key.name)
        if raw is None:
            return None
        spec = raw.get("spec") or {}
        tenant_name = (spec.get("tenantRef") or {}).get("name", "")
        route_name = ((spec.get("template") or {}).get("modelRouteRef") or {}).get("name", "")
        return rollout_status.decide(
            raw,
            self.cache.get(TENANT.kind, key.namespace, tenant_name) is not None,
            self.cache.get(MODEL_ROUTE.kind, key.namespace, route_name) is not None,
            self._now(),
        )

    async def _write_status(self, body: Json | None) -> None:
        if body is None:
            return
        try:
            stored = await self._kube.apply_status(body)
        except KubeError as error:
            if error.status == 404:  # deleted meanwhile: its event is on the way
                return
            raise
        self._take(stored, body)
        if body["kind"] == TENANT.kind:
            for key in self.gatherer.affected(stored) - {Key(TENANT.kind, *_place(body))}:
                self.queue.add(key)

    def _take(self, stored: Json, sent: Json) -> None:
        """Keep what the API answered, so that the next decision sees this write whatever the watch's delay."""
        self.writes += 1
        self.cache.put({**stored, "kind": sent["kind"], "apiVersion": sent["apiVersion"]})

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                decision = await self.reconcile(key)
                if decision.settled:
                    self.queue.settled(key)
                else:
                    self.queue.add_after(key, poll_delay(self.queue.retry(key), decision.worth_asking))
            except Exception as error:  # one Tenant's trouble must not stop the others
                delay = min(ERROR_FIRST_SECONDS * 2.0 ** (self.queue.retry(key) - 1), ERROR_LAST_SECONDS)
                expected = isinstance(error, KubeError)
                log.error("%s is tried again in %.0f s: %s", key, delay, error, exc_info=not expected)  # noqa: TRY400
                self.queue.add_after(key, delay)
            finally:
                self.queue.done(key)

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(self._settings.resync_seconds)
            try:
                await self._relist()
            except KubeError as error:
                log.warning("Lists are read again in %.0f s: %s", self._settings.resync_seconds, error)
            self._mark_all(spread_seconds=self._settings.resync_seconds * RESYNC_SPREAD)

    async def _relist(self) -> None:
        for resource in OWN_KINDS:
            await self._list(resource)
        for resource in (TENANT, CONNECTOR, MODEL_ROUTE):
            self.gatherer.want_content_of(self.cache.all(resource.kind))
        for resource in CHILD_KINDS:
            if resource is not SECRET:
                await self._list(resource, labels=MANAGED)
        await self._list(SECRET, fields=PEOPLES_SECRETS)
        await self._list(POD, labels=WORKER_PODS)
        # One by one: those that something refers to are few among a cluster's.
        mark = self.cache.mark()
        wanted = sorted(place[1:] for place in self.cache.wanted if place[0] == CONFIG_MAP.kind)
        read = [await self._kube.get(CONFIG_MAP, *place) for place in wanted]
        named = ({**raw, "kind": CONFIG_MAP.kind, "apiVersion": CONFIG_MAP.api_version} for raw in read if raw)
        self.cache.replace(CONFIG_MAP.kind, named, mark)

    async def _list(self, resource: Resource, *, labels: str = "", fields: str = "") -> None:
        mark = self.cache.mark()
        self.cache.replace(resource.kind, await self._kube.list(resource, labels=labels, fields=fields), mark)

    def _mark_all(self, spread_seconds: float) -> None:
        for resource in (TENANT, CONNECTOR, MODEL_ROUTE, ROLLOUT):
            for raw in self.cache.all(resource.kind):
                for key in self.gatherer.affected(raw) if resource is CONNECTOR else {Key(resource.kind, *_place(raw))}:
                    self.queue.add_after(key, random.uniform(0, spread_seconds))  # noqa: S311 - spreads load


def _ask_delay(reports: dict[str, WorkerReport]) -> float:
    untried = any(said.reachable is None for report in reports.values() for said in report.connectors)
    return (ASK_SOON_SECONDS if untried else ASK_SECONDS) * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load


def _place(raw: Json) -> tuple[str, str]:
    return raw["metadata"]["namespace"], raw["metadata"]["name"]
