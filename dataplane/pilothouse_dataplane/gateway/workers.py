"""Which workers exist and may be trusted: the pure table, and the directory that tells others of its changes.

A Pod is a tenant's worker when it has the labels *and* stands in the namespace that holds that Tenant. A Pod elsewhere
that claims the label gets no traffic. Where two namespaces hold a Tenant of the same name, the older one owns the name:
nobody can take over a tenant by creating a second object of its name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pilothouse_api import names


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker Pod. ``ready``: takes new runs; ``leaving``: it is being deleted, and may still finish its runs."""

    tenant: str
    namespace: str
    name: str
    uid: str
    ip: str
    revision: str
    ready: bool
    port: int = names.WORKER_GRPC_PORT
    leaving: bool = False

    @property
    def address(self) -> str:
        """``host:port`` of its Agent service; IPv6 in brackets."""
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TenantRef:
    """One Tenant object. ``created`` is RFC 3339 text in UTC, which sorts by time."""

    namespace: str
    name: str
    uid: str
    created: str


def worker_from_pod(pod: Mapping[str, Any]) -> Worker | None:
    """The worker that a Pod object is, or None where it has no tenant label, no address yet or has ended."""
    meta, status = pod.get("metadata", {}), pod.get("status", {})
    labels = meta.get("labels") or {}
    tenant = labels.get(names.LABEL_TENANT)
    ip = status.get("podIP")
    if labels.get(names.LABEL_COMPONENT) != names.COMPONENT_WORKER or not tenant or not ip:
        return None
    if status.get("phase") in {"Succeeded", "Failed"}:
        return None
    conditions = {c.get("type"): c.get("status") for c in status.get("conditions") or ()}
    leaving = bool(meta.get("deletionTimestamp"))
    ready = conditions.get("Ready") == "True" and not leaving
    return Worker(
        tenant=tenant,
        namespace=meta.get("namespace", ""),
        name=meta.get("name", ""),
        uid=meta.get("uid", ""),
        ip=ip,
        revision=labels.get(names.LABEL_REVISION, ""),
        ready=ready,
        leaving=leaving,
    )


def tenant_from_object(obj: Mapping[str, Any]) -> TenantRef:
    """The reference that a Tenant object is."""
    meta = obj.get("metadata", {})
    return TenantRef(
        meta.get("namespace", ""), meta.get("name", ""), meta.get("uid", ""), meta.get("creationTimestamp", "")
    )


@dataclass(slots=True)
class WorkerTable:
    """Pods and Tenants as last seen; every question is answered from both."""

    _pods: dict[tuple[str, str], Worker] = field(default_factory=dict)
    _tenants: dict[tuple[str, str], TenantRef] = field(default_factory=dict)
    _owners: dict[str, str] = field(default_factory=dict)

    def put_pod(self, pod: Mapping[str, Any]) -> None:
        """Take a Pod object's newest state."""
        meta = pod.get("metadata", {})
        self.put_worker((meta.get("namespace", ""), meta.get("name", "")), worker_from_pod(pod))

    def put_worker(self, key: tuple[str, str], worker: Worker | None) -> None:
        """Set (or with None drop) what is known at (namespace, pod name)."""
        if worker is None:
            self._pods.pop(key, None)
        else:
            self._pods[key] = worker

    def replace_pods(self, pods: Iterable[Mapping[str, Any]]) -> None:
        """Take a full list of Pods."""
        self._pods = {(w.namespace, w.name): w for w in map(worker_from_pod, pods) if w is not None}

    def put_tenant(self, ref: TenantRef) -> None:
        """Take a Tenant's newest state."""
        self._tenants[ref.namespace, ref.name] = ref
        self._settle_owners()

    def drop_tenant(self, namespace: str, name: str) -> None:
        """A Tenant was deleted: its workers are trusted no more."""
        self._tenants.pop((namespace, name), None)
        self._settle_owners()

    def replace_tenants(self, refs: Iterable[TenantRef]) -> None:
        """Take a full list of Tenants."""
        self._tenants = {(r.namespace, r.name): r for r in refs}
        self._settle_owners()

    def _settle_owners(self) -> None:
        oldest: dict[str, TenantRef] = {}
        for ref in self._tenants.values():
            held = oldest.get(ref.name)
            if held is None or (ref.created, ref.uid) < (held.created, held.uid):
                oldest[ref.name] = ref
        self._owners = {name: ref.namespace for name, ref in oldest.items()}

    def tenants(self) -> dict[str, str]:
        """Every tenant's name with the namespace that owns it."""
        return dict(self._owners)

    def namespace_of(self, tenant: str) -> str | None:
        """Namespace that owns the tenant's name; None for an unknown tenant."""
        return self._owners.get(tenant)

    def known(self) -> list[Worker]:
        """Trusted workers, ready or not."""
        return [w for w in self._pods.values() if self._owners.get(w.tenant) == w.namespace]

    def ready(self, tenant: str) -> list[Worker]:
        """Trusted workers of one tenant that take new runs."""
        return [w for w in self.standing(tenant) if w.ready]

    def standing(self, tenant: str) -> list[Worker]:
        """Trusted workers of one tenant that stay, ready or not: one of them may be just back from a restart."""
        namespace = self._owners.get(tenant)
        return [w for w in self._pods.values() if w.tenant == tenant and w.namespace == namespace and not w.leaving]


class Directory:
    """The table plus notice of its changes; discovery writes it, routing and the fleet view read it."""

    def __init__(self) -> None:
        self.table = WorkerTable()
        self._listeners: list[Callable[[], None]] = []
        self._changed = asyncio.Event()

    def listen(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` (must not block or raise) after each change."""
        self._listeners.append(callback)

    def announce(self) -> None:
        """Tell everybody that the table changed."""
        self._changed.set()
        self._changed = asyncio.Event()
        for callback in self._listeners:
            callback()

    async def wait_change(self, seconds: float) -> None:
        """Return at the next change, or after ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
