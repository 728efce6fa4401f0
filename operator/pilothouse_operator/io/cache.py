"""What the operator knows of the cluster: the newest version of each object that it has seen.

Time model: a watch event, a list and the answer to a write all bring versions of an object, in any order. The higher
resourceVersion wins. ``mark`` gives a tick; a list that was begun at a tick may remove what it does not hold, unless
the object was touched after that tick. So an event that a watch has missed is mended by the next list.

Objects are kept as JSON bytes without their managed fields (2 KB instead of 20 KB as dicts).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import orjson

from pilothouse_api import names
from pilothouse_operator.core.resources import (
    CONFIG_MAP,
    CONNECTOR,
    POD,
    ROLLOUT,
    SECRET,
    TENANT,
    Json,
)

_Place = tuple[str, str, str]
"""Kind, namespace, name."""


@dataclass(slots=True)
class _Entry:
    version: int
    body: bytes
    tick: int
    group: str | None


class Cache:
    """In-memory view of the cluster; not thread-safe, used from one event loop."""

    def __init__(self) -> None:
        self._by_kind: dict[str, dict[str, dict[str, _Entry]]] = {}
        self._groups: dict[_Place, set[str]] = {}
        self._dropped: dict[_Place, int] = {}
        self._tick = 0
        self.wanted: set[_Place] = set()
        """The people's Secrets and ConfigMaps that are kept: those that something refers to. All others are never held
        in memory."""

    def mark(self) -> int:
        """The tick to give to ``replace`` after a list that is begun now."""
        return self._tick

    def put(self, raw: Json) -> bool:
        """Keep a version of an object; False where it is not newer than what is kept, or not of interest."""
        meta = raw["metadata"]
        kind, namespace, name = raw["kind"], meta["namespace"], meta["name"]
        if kind in (SECRET.kind, CONFIG_MAP.kind) and not self._matters(kind, namespace, name, meta):
            return False
        version = _version(meta)
        objects = self._by_kind.setdefault(kind, {}).setdefault(namespace, {})
        kept = objects.get(name)
        if kept is not None and kept.version >= version:
            return False
        self._tick += 1
        group = group_of(raw)
        self._regroup(kind, namespace, name, None if kept is None else kept.group, group)
        objects[name] = _Entry(version, orjson.dumps(_lean(raw)), self._tick, group)
        self._dropped.pop((kind, namespace, name), None)
        return True

    def drop(self, kind: str, namespace: str, name: str) -> bool:
        """Forget a deleted object; False where it was not known."""
        self._tick += 1
        self._dropped[(kind, namespace, name)] = self._tick
        return self._forget(kind, namespace, name)

    def _forget(self, kind: str, namespace: str, name: str) -> bool:
        objects = self._by_kind.get(kind, {}).get(namespace, {})
        kept = objects.pop(name, None)
        if kept is None:
            return False
        self._regroup(kind, namespace, name, kept.group, None)
        if not objects:
            del self._by_kind[kind][namespace]
        return True

    def _regroup(self, kind: str, namespace: str, name: str, old: str | None, new: str | None) -> None:
        if old == new:
            return
        if old is not None:
            members = self._groups.get((kind, namespace, old), set())
            members.discard(name)
            if not members:
                self._groups.pop((kind, namespace, old), None)
        if new is not None:
            self._groups.setdefault((kind, namespace, new), set()).add(name)

    def get(self, kind: str, namespace: str, name: str) -> Json | None:
        """A copy of an object as last seen."""
        entry = self._by_kind.get(kind, {}).get(namespace, {}).get(name)
        return None if entry is None else _load(entry)

    def grouped(self, kind: str, namespace: str, group: str) -> list[Json]:
        """Copies of the objects of a kind that belong to a group (see ``group_of``), by name."""
        objects = self._by_kind.get(kind, {}).get(namespace, {})
        return [_load(objects[name]) for name in sorted(self._groups.get((kind, namespace, group), ()))]

    def all(self, kind: str) -> Iterator[Json]:
        """Copies of all objects of a kind, one at a time."""
        for objects in list(self._by_kind.get(kind, {}).values()):
            for entry in list(objects.values()):
                yield _load(entry)

    def replace(self, kind: str, listed: Iterable[Json], since: int) -> None:
        """Take a list that was begun at tick ``since`` as the whole of a kind."""
        seen: set[tuple[str, str]] = set()
        for raw in listed:
            place = (raw["metadata"]["namespace"], raw["metadata"]["name"])
            seen.add(place)
            if self._dropped.get((kind, *place), -1) <= since:
                self.put(raw)
        for namespace, objects in list(self._by_kind.get(kind, {}).items()):
            for name, entry in list(objects.items()):
                if (namespace, name) not in seen and entry.tick <= since:
                    self._forget(kind, namespace, name)
        self._dropped = {place: tick for place, tick in self._dropped.items() if place[0] != kind or tick > since}

    def _matters(self, kind: str, namespace: str, name: str, meta: Json) -> bool:
        managed = (meta.get("labels") or {}).get(names.LABEL_MANAGED_BY) == names.FIELD_MANAGER
        return (managed and kind == SECRET.kind) or (kind, namespace, name) in self.wanted


def group_of(raw: Json) -> str | None:
    """What an object is looked up by: a Tenant by its ModelRoute, all others by their Tenant."""
    spec = raw.get("spec") or {}
    if raw["kind"] == TENANT.kind:
        return ((spec.get("agent") or {}).get("modelRouteRef") or {}).get("name")
    if raw["kind"] in (CONNECTOR.kind, ROLLOUT.kind):
        return (spec.get("tenantRef") or {}).get("name")
    return (raw["metadata"].get("labels") or {}).get(names.LABEL_TENANT)


def _version(meta: Json) -> int:
    """Kubernetes compares resource versions as integers since 1.35."""
    return int(meta.get("resourceVersion") or 0)


def _load(entry: _Entry) -> Json:
    loaded: Json = orjson.loads(entry.body)
    return loaded


def _lean(raw: Json) -> Json:
    """The object without what no decision reads."""
    if raw["kind"] == POD.kind:
        return _lean_pod(raw)
    meta = {key: value for key, value in raw["metadata"].items() if key != "managedFields"}
    annotations = meta.get("annotations") or {}
    applied = "kubectl.kubernetes.io/last-applied-configuration"
    if applied in annotations:
        meta["annotations"] = {key: value for key, value in annotations.items() if key != applied}
    return {**raw, "metadata": meta}


def _lean_pod(raw: Json) -> Json:
    meta, status = raw["metadata"], raw.get("status") or {}
    kept = ("name", "namespace", "uid", "labels", "resourceVersion", "deletionTimestamp", "ownerReferences")
    return {
        "kind": POD.kind,
        "metadata": {key: meta[key] for key in kept if key in meta},
        "status": {
            "phase": status.get("phase"),
            "podIP": status.get("podIP"),
            "conditions": [c for c in status.get("conditions") or [] if c.get("type") == "Ready"],
        },
    }
