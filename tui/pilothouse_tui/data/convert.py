"""From Kubernetes objects (as JSON) to the model. Pure; an object that lacks a field is shown with what it has."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pilothouse_tui.model import Condition, KubeObject


def timestamp(value: object) -> datetime | None:
    """An RFC 3339 time of the Kubernetes API, or ``None``."""
    if not isinstance(value, str) or not value:
        return None
    try:
        parsed = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def kube_object(kind: str, raw: Mapping[str, Any]) -> KubeObject:
    """A Tenant, Connector or ModelRoute out of the API's JSON."""
    meta, spec, status = raw.get("metadata") or {}, raw.get("spec") or {}, raw.get("status") or {}
    name = str(meta.get("name", ""))
    return KubeObject(
        kind=kind,
        namespace=str(meta.get("namespace", "")),
        name=name,
        title=str(spec.get("displayName") or name),
        tenant=name if kind == "Tenant" else str((spec.get("tenantRef") or {}).get("name", "")),
        detail=_detail(kind, spec),
        generation=int(meta.get("generation") or 0),
        observed_generation=int(status.get("observedGeneration") or 0),
        conditions=tuple(
            Condition(
                type=str(c.get("type", "")),
                status=str(c.get("status", "Unknown")),
                reason=str(c.get("reason") or ""),
                message=str(c.get("message") or ""),
                since=timestamp(c.get("lastTransitionTime")),
            )
            for c in status.get("conditions") or ()
        ),
    )


def _detail(kind: str, spec: Mapping[str, Any]) -> str:
    if kind == "Connector":
        return " · ".join(str(spec[k]) for k in ("type", "url") if spec.get(k))
    if kind == "ModelRoute":
        return ", ".join(str(p.get("name", "")) for p in spec.get("providers") or ())
    return ""
