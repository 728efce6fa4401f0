"""Conditions as ``meta/v1`` has them: one per type, with a transition time that moves only when the status does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from pilothouse_operator.core.resources import Json

ACCEPTED = "Accepted"
RESOLVED_REFS = "ResolvedRefs"
REACHABLE = "Reachable"
CREDENTIALS_READY = "CredentialsReady"
READY = "Ready"

AS_SPECIFIED = "AsSpecified"
MESSAGE_LIMIT = 1024
"""Characters of a message; the API allows 32,768, a person reads less."""


@dataclass(frozen=True)
class Finding:
    """What a rule found: a condition without its times."""

    type: str
    ok: bool
    reason: str
    message: str
    unknown: bool = False

    @property
    def status(self) -> str:
        """``True``, ``False`` or ``Unknown``."""
        return "Unknown" if self.unknown else str(self.ok)


def passed(type_: str, reason: str, message: str) -> Finding:
    """A condition that holds."""
    return Finding(type_, True, reason, message)


def failed(type_: str, reason: str, message: str) -> Finding:
    """A condition that does not hold, with what happened and what to do."""
    return Finding(type_, False, reason, message)


def unknown(type_: str, reason: str, message: str) -> Finding:
    """A condition of which nobody can say whether it holds."""
    return Finding(type_, False, reason, message, unknown=True)


def kept(raw: Json, type_: str) -> Finding | None:
    """What the object's status says already, where it was said of this very generation."""
    for condition in (raw.get("status") or {}).get("conditions") or []:
        if condition.get("type") != type_:
            continue
        if condition.get("observedGeneration") != raw["metadata"].get("generation"):
            return None
        status = condition.get("status")
        return Finding(type_, status == "True", condition["reason"], condition["message"], unknown=status == "Unknown")
    return None


def timestamp(now: datetime) -> str:
    """RFC 3339 in whole seconds, as the API writes times."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def merge(live: Iterable[Json], findings: Iterable[Finding], generation: int, now: datetime) -> list[Json]:
    """The conditions to write; a status that did not change keeps its transition time."""
    before = {condition.get("type"): condition for condition in live}
    merged: list[Json] = []
    for finding in findings:
        old = before.get(finding.type)
        unmoved = old is not None and old.get("status") == finding.status and old.get("lastTransitionTime")
        merged.append(
            {
                "type": finding.type,
                "status": finding.status,
                "reason": finding.reason,
                "message": finding.message[:MESSAGE_LIMIT],
                "observedGeneration": generation,
                "lastTransitionTime": old["lastTransitionTime"] if old is not None and unmoved else timestamp(now),
            }
        )
    return merged


def status_object(raw: Json, findings: Iterable[Finding], now: datetime, **fields: object) -> Json | None:
    """The server-side apply body of an object's status, None where the live status says all of it already."""
    meta, live = raw["metadata"], raw.get("status") or {}
    generation = int(meta.get("generation") or 0)
    status: Json = {
        "observedGeneration": generation,
        "conditions": merge(live.get("conditions") or [], findings, generation, now),
        **{name: value for name, value in fields.items() if value is not None},
    }
    if status == live:
        return None
    return {
        "apiVersion": raw["apiVersion"],
        "kind": raw["kind"],
        "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
        "status": status,
    }
