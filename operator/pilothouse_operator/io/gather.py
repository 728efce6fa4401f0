"""Reads all that a decision needs: from the cache, referenced Secrets that are not cached yet, and the workers."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Iterable

from pilothouse_api import names
from pilothouse_operator.core import modelroute
from pilothouse_operator.core.readiness import Worker, WorkerReport, worker_of
from pilothouse_operator.core.refs import Problem, Secrets, needs_of
from pilothouse_operator.core.resources import (
    CHILD_KINDS,
    CONNECTOR,
    MODEL_ROUTE,
    POD,
    ROLLOUT,
    SECRET,
    TENANT,
    Json,
    Key,
)
from pilothouse_operator.core.tenant import Platform, TenantView, configuration
from pilothouse_operator.io.cache import Cache, group_of
from pilothouse_operator.io.kube import Kube

Asker = Callable[[Iterable[Worker]], Awaitable[dict[str, WorkerReport]]]


class Gatherer:
    """Builds the views; remembers which keys looked at which Secret, so that a Secret's change reaches them."""

    def __init__(self, cache: Cache, kube: Kube, platform: Platform, ask: Asker) -> None:
        self._cache = cache
        self._kube = kube
        self._platform = platform
        self._ask = ask
        self._secret_users: dict[tuple[str, str], set[Key]] = {}

    async def tenant(self, key: Key, *, ask: bool = True) -> TenantView:
        """The view of a Tenant; with ``ask=False`` the workers are left out."""
        raw = self._alive(self._cache.get(TENANT.kind, key.namespace, key.name))
        connectors = tuple(c for c in self._cache.grouped(CONNECTOR.kind, key.namespace, key.name) if self._alive(c))
        route_name = group_of(raw) if raw is not None else None
        route = self._cache.get(MODEL_ROUTE.kind, key.namespace, route_name) if route_name else None
        objects = [one for one in (raw, route, *connectors) if one is not None]
        secrets = await self._secrets(key, objects)
        child = names.worker_name(key.name)
        children = {
            resource.kind: live
            for resource in CHILD_KINDS
            if (live := self._cache.get(resource.kind, key.namespace, child)) is not None
        }
        workers: tuple[Worker, ...] = ()
        reports: dict[str, WorkerReport] = {}
        if ask and raw is not None:
            pods = self._cache.grouped(POD.kind, key.namespace, key.name)
            workers = tuple(worker_of(pod, names.LABEL_REVISION) for pod in pods)
            reports = await self._ask(worker for worker in workers if not worker.terminating)
        return TenantView(key, self._platform, raw, connectors, route, secrets, children, workers, reports)

    async def route(self, key: Key) -> modelroute.RouteView | None:
        """The view of a ModelRoute, None where it is gone."""
        raw = self._alive(self._cache.get(MODEL_ROUTE.kind, key.namespace, key.name))
        if raw is None:
            return None
        secrets = await self._secrets(key, [raw])
        users = []
        for tenant in self._cache.grouped(TENANT.kind, key.namespace, key.name):
            view = await self.tenant(Key(TENANT.kind, key.namespace, tenant["metadata"]["name"]), ask=False)
            built = configuration(view)
            users.append(modelroute.User(tenant, None if isinstance(built, Problem) else built.hash))
        return modelroute.RouteView(raw, secrets, tuple(users))

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
        if kind == SECRET.kind:
            keys |= self._secret_users.get((namespace, name), set())
        return keys

    def want_secrets_of(self, objects: Iterable[Json]) -> None:
        """Remember who needs which Secret before the Secrets are listed, so that one list brings all of them."""
        for raw in objects:
            namespace = raw["metadata"]["namespace"]
            for need in needs_of(raw):
                self._secret_users.setdefault((namespace, need.secret), set()).update(self.affected(raw))
        self._cache.wanted_secrets = set(self._secret_users)

    async def _secrets(self, key: Key, objects: Iterable[Json]) -> Secrets:
        found: dict[str, dict[str, bytes]] = {}
        for name in sorted({need.secret for raw in objects for need in needs_of(raw)}):
            place = (key.namespace, name)
            self._secret_users.setdefault(place, set()).add(key)
            if place not in self._cache.wanted_secrets:
                # Wanted before the read: an event that comes meanwhile is kept, and the newer version wins.
                self._cache.wanted_secrets.add(place)
                read = await self._kube.get(SECRET, *place)
                if read is not None:
                    self._cache.put({**read, "kind": SECRET.kind, "apiVersion": SECRET.api_version})
            raw = self._alive(self._cache.get(SECRET.kind, *place))
            if raw is not None:
                found[name] = {k: base64.b64decode(v) for k, v in (raw.get("data") or {}).items()}
        return found

    def _rollouts(self, namespace: str, tenant: str) -> set[Key]:
        rollouts = self._cache.grouped(ROLLOUT.kind, namespace, tenant)
        return {Key(ROLLOUT.kind, namespace, rollout["metadata"]["name"]) for rollout in rollouts}

    @staticmethod
    def _alive(raw: Json | None) -> Json | None:
        """An object that is being deleted counts as gone."""
        return None if raw is None or raw["metadata"].get("deletionTimestamp") else raw
