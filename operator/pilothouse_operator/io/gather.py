"""Reads all that a decision needs: from the cache, referenced Secrets and ConfigMaps that are not cached yet, and the
workers."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Iterable, Iterator

from pilothouse_api import names
from pilothouse_operator.core import modelroute
from pilothouse_operator.core.config import Platform
from pilothouse_operator.core.credentials import VaultState
from pilothouse_operator.core.readiness import Worker, WorkerReport, worker_of
from pilothouse_operator.core.refs import Problem, Secrets, needs_of
from pilothouse_operator.core.resources import (
    CHILD_KINDS,
    CONFIG_MAP,
    CONNECTOR,
    MODEL_ROUTE,
    POD,
    ROLLOUT,
    SECRET,
    TENANT,
    Json,
    Key,
)
from pilothouse_operator.core.tenant import TenantView, configuration
from pilothouse_operator.io.cache import Cache, group_of
from pilothouse_operator.io.kube import Kube

CONTENT = {"Secret": SECRET, "ConfigMap": CONFIG_MAP}
Asker = Callable[[Iterable[Worker]], Awaitable[dict[str, WorkerReport]]]


class Gatherer:
    """Builds the views; remembers which keys looked at which Secret, so that a Secret's change reaches them."""

    def __init__(
        self, cache: Cache, kube: Kube, platform: Platform, ask: Asker, vault: Callable[[Key], VaultState | None]
    ) -> None:
        self._cache = cache
        self._kube = kube
        self._platform = platform
        self._ask = ask
        self._vault = vault
        self._content_users: dict[tuple[str, str, str], set[Key]] = {}
        """By kind, namespace and name of a Secret or a ConfigMap."""
        self._said: dict[Key, tuple[str, ...]] = {}
        """What each Tenant's workers reported of its route's providers when they were last asked."""

    async def tenant(self, key: Key, *, ask: bool = True) -> TenantView:
        """The view of a Tenant; with ``ask=False`` the workers are left out."""
        raw = self._alive(self._cache.get(TENANT.kind, key.namespace, key.name))
        connectors = tuple(c for c in self._cache.grouped(CONNECTOR.kind, key.namespace, key.name) if self._alive(c))
        route_name = group_of(raw) if raw is not None else None
        route = self._cache.get(MODEL_ROUTE.kind, key.namespace, route_name) if route_name else None
        objects = [one for one in (raw, route, *connectors) if one is not None]
        secrets, config_maps = await self._content(key, objects)
        child = names.worker_name(key.name)
        children = {
            resource.kind: live
            for resource in CHILD_KINDS
            if (live := self._cache.get(resource.kind, key.namespace, child)) is not None
        }
        workers: tuple[Worker, ...] = ()
        reports: dict[str, WorkerReport] = {}
        if ask and raw is not None:
            workers = self._workers(key)
            reports = await self._ask(worker for worker in workers if not worker.terminating)
            self._hear(key, reports)
        return TenantView(
            key=key,
            platform=self._platform,
            tenant=raw,
            connectors=connectors,
            route=route,
            secrets=secrets,
            config_maps=config_maps,
            children=children,
            workers=workers,
            reports=reports,
            vault=self._vault(key),
        )

    async def reports(self, key: Key) -> dict[str, WorkerReport]:
        """What a Tenant's workers say now, without anything else being looked at."""
        return await self._ask(worker for worker in self._workers(key) if not worker.terminating)

    def _workers(self, key: Key) -> tuple[Worker, ...]:
        pods = self._cache.grouped(POD.kind, key.namespace, key.name)
        return tuple(worker_of(pod, names.LABEL_REVISION) for pod in pods)

    async def route(self, key: Key) -> modelroute.RouteView | None:
        """The view of a ModelRoute, None where it is gone."""
        raw = self._alive(self._cache.get(MODEL_ROUTE.kind, key.namespace, key.name))
        if raw is None:
            return None
        secrets, config_maps = await self._content(key, [raw])
        users = []
        for tenant in self._cache.grouped(TENANT.kind, key.namespace, key.name):
            view = await self.tenant(Key(TENANT.kind, key.namespace, tenant["metadata"]["name"]), ask=False)
            built = configuration(view)
            expected = None if isinstance(built, Problem) else built.hash
            users.append(modelroute.User(tenant, expected, self._said.get(view.key)))
        return modelroute.RouteView(raw, secrets, config_maps, tuple(users))

    def _hear(self, key: Key, reports: dict[str, WorkerReport]) -> None:
        if said := [report for report in reports.values() if report.error is None]:
            self._said[key] = tuple(dict.fromkeys(each for report in said for each in report.route_problems))

    def said_of_route(self, key: Key) -> tuple[str, ...] | None:
        """What the Tenant's workers reported of its route's providers when they were last asked."""
        return self._said.get(key)

    def affected(self, raw: Json) -> set[Key]:
        """The keys whose decision an object may change."""
        kind, namespace, name = raw["kind"], raw["metadata"]["namespace"], raw["metadata"]["name"]
        group = group_of(raw)
        if kind == TENANT.kind:
            keys = {Key(TENANT.kind, namespace, name)} | self._rollouts(namespace, name)
            return keys | ({Key(MODEL_ROUTE.kind, namespace, group)} if group else set())
        if kind == MODEL_ROUTE.kind:
            users = self._cache.grouped(TENANT.kind, namespace, name)
            tenants = {Key(TENANT.kind, namespace, user["metadata"]["name"]) for user in users}
            rollouts = {key for tenant in tenants for key in self._rollouts(namespace, tenant.name)}
            return {Key(MODEL_ROUTE.kind, namespace, name)} | tenants | rollouts
        if kind == ROLLOUT.kind:
            return {Key(ROLLOUT.kind, namespace, name)}
        keys = {Key(TENANT.kind, namespace, group)} if group else set()
        if kind in CONTENT:
            keys |= self._content_users.get((kind, namespace, name), set())
        return keys

    def want_content_of(self, objects: Iterable[Json]) -> None:
        """Remember who needs which Secret or ConfigMap before these are listed, so that one list brings all of them."""
        for raw in objects:
            namespace = raw["metadata"]["namespace"]
            for need in needs_of(raw):
                place = (need.kind, namespace, need.secret)
                self._content_users.setdefault(place, set()).update(self.affected(raw))
        self._cache.wanted = set(self._content_users)

    async def _content(self, key: Key, objects: Iterable[Json]) -> tuple[Secrets, Secrets]:
        """The Secrets and the ConfigMaps that the objects refer to."""
        found: dict[str, dict[str, dict[str, bytes]]] = {kind: {} for kind in CONTENT}
        for kind, name in sorted({(need.kind, need.secret) for raw in objects for need in needs_of(raw)}):
            place = (kind, key.namespace, name)
            self._content_users.setdefault(place, set()).add(key)
            if place not in self._cache.wanted:
                # Wanted before the read: an event that comes meanwhile is kept, and the newer version wins.
                self._cache.wanted.add(place)
                read = await self._kube.get(CONTENT[kind], key.namespace, name)
                if read is not None:
                    self._cache.put({**read, "kind": kind, "apiVersion": CONTENT[kind].api_version})
            raw = self._alive(self._cache.get(*place))
            if raw is not None:
                found[kind][name] = dict(_decoded(raw))
        return found[SECRET.kind], found[CONFIG_MAP.kind]

    def _rollouts(self, namespace: str, tenant: str) -> set[Key]:
        rollouts = self._cache.grouped(ROLLOUT.kind, namespace, tenant)
        return {Key(ROLLOUT.kind, namespace, rollout["metadata"]["name"]) for rollout in rollouts}

    @staticmethod
    def _alive(raw: Json | None) -> Json | None:
        """An object that is being deleted counts as gone."""
        return None if raw is None or raw["metadata"].get("deletionTimestamp") else raw


def _decoded(raw: Json) -> Iterator[tuple[str, bytes]]:
    """Keys and content; a ConfigMap's texts are plain, and only its bytes are in base64."""
    plain = raw["kind"] == CONFIG_MAP.kind
    for key, value in (raw.get("data") or {}).items():
        yield key, value.encode() if plain else base64.b64decode(value)
    for key, value in (raw.get("binaryData") or {}).items():
        yield key, base64.b64decode(value)
