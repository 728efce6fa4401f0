"""Metadata that all of a tenant's children share."""

from __future__ import annotations

from dataclasses import dataclass

from pilothouse_api import names
from pilothouse_operator.core.resources import Json, Resource


@dataclass(frozen=True)
class Owner:
    """The Tenant that owns the children; deleting it deletes them (garbage collection by owner reference)."""

    name: str
    namespace: str
    uid: str

    @property
    def child(self) -> str:
        """Name of every child."""
        return names.worker_name(self.name)


def labels(owner: Owner) -> dict[str, str]:
    """Labels of every child."""
    return {
        **selector(owner),
        "app.kubernetes.io/name": "pilothouse",
        "app.kubernetes.io/part-of": "pilothouse",
        names.LABEL_MANAGED_BY: names.FIELD_MANAGER,
    }


def selector(owner: Owner) -> dict[str, str]:
    """What chooses a tenant's worker Pods, whatever their revision."""
    return {names.LABEL_COMPONENT: names.COMPONENT_WORKER, names.LABEL_TENANT: owner.name}


def child(resource: Resource, owner: Owner, *, annotations: dict[str, str] | None = None) -> Json:
    """A child without its spec."""
    meta: Json = {
        "name": owner.child,
        "namespace": owner.namespace,
        "labels": labels(owner),
        "ownerReferences": [
            {
                "apiVersion": names.API_VERSION,
                "kind": "Tenant",
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }
    if annotations:
        meta["annotations"] = annotations
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta}
