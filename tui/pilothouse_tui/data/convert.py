"""From JSON (Kubernetes objects, the chat's frames, protobuf messages as JSON) to the model.

Pure; an object that lacks a field is shown with what it has, and a value that a newer sender knows as "unknown".
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TypeVar

from pilothouse_tui.model import (
    Approval,
    Approver,
    Condition,
    DeadLetter,
    DeadLetterState,
    DecideOutcome,
    Decision,
    KubeObject,
    Origin,
    TimeSplit,
    Tool,
)

E = TypeVar("E", bound=Enum)
_LATEST = 253_402_300_800
"""Unix seconds of the year 10000, which ``datetime`` can't hold."""


def timestamp(value: object) -> datetime | None:
    """An RFC 3339 time, or ``{"seconds", "nanos"}`` as the chat's frames have it; ``None`` where there is none."""
    if isinstance(value, Mapping):
        seconds = whole(value.get("seconds")) + whole(value.get("nanos")) / 1e9
        return datetime.fromtimestamp(seconds, UTC) if 0 < seconds < _LATEST else None
    if not isinstance(value, str) or not value:
        return None
    try:
        parsed = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def whole(value: object) -> int:
    """A whole number; proto3's JSON writes 64-bit ones as strings."""
    try:
        return int(value or 0)  # type: ignore[call-overload,no-any-return]
    except (TypeError, ValueError):
        return 0


def named(kind: type[E], value: object, prefix: str, otherwise: E) -> E:
    """A member out of its proto enum name, for example ``APPROVER_USER``."""
    try:
        return kind(str(value).removeprefix(prefix).lower())
    except ValueError:
        return otherwise


def approval(raw: Mapping[str, Any]) -> Approval:
    """An approval out of ``PendingApproval``'s JSON."""
    request = _object(raw, "request")
    return Approval(
        tenant=_text(raw, "tenant"),
        approval_id=_text(request, "approval_id"),
        session_id=_text(raw, "session_id"),
        run_id=_text(raw, "run_id"),
        step_id=_text(request, "step_id"),
        user=_text(raw, "user"),
        created=timestamp(raw.get("created")),
        tool=_text(request, "tool"),
        summary=_text(request, "summary"),
        arguments=_text(request, "arguments_json"),
        by=named(Approver, request.get("by"), "APPROVER_", Approver.UNKNOWN),
        approver=_text(request, "approver"),
        expires=timestamp(request.get("expires")),
        reason=_text(request, "reason"),
        origins=tuple(
            Origin(_text(o, "path"), _text(o, "value"), _text(o, "source")) for o in request.get("origins") or ()
        ),
    )


def decision(raw: Mapping[str, Any]) -> Decision:
    """What became of an answer, out of ``DecideResponse``'s JSON or a ``decision_result`` frame."""
    outcome = named(DecideOutcome, raw.get("outcome"), "DECIDE_OUTCOME_", DecideOutcome.UNKNOWN)
    return Decision(outcome, _text(raw, "message"))


def dead_letter(raw: Mapping[str, Any]) -> DeadLetter:
    """A dead letter out of its JSON."""
    return DeadLetter(
        id=_text(raw, "id"),
        tenant=_text(raw, "tenant"),
        session_id=_text(raw, "session_id"),
        run_id=_text(raw, "run_id"),
        step_id=_text(raw, "step_id"),
        user=_text(raw, "user"),
        tool=_text(raw, "tool"),
        arguments=_text(raw, "arguments_json"),
        idempotency_key=_text(raw, "idempotency_key"),
        error=_text(raw, "error"),
        attempts=whole(raw.get("attempts")),
        breaker_state=_text(raw, "breaker_state"),
        created=timestamp(raw.get("created")),
        state=named(DeadLetterState, raw.get("state"), "DEAD_LETTER_STATE_", DeadLetterState.UNKNOWN),
        resolved=timestamp(raw.get("resolved")),
        resolved_by=_text(raw, "resolved_by"),
        resolution=_text(raw, "resolution"),
        in_doubt=bool(raw.get("in_doubt")),
    )


def time_split(raw: object) -> TimeSplit:
    """A run's time by cause out of ``TimeSplit``'s JSON; zeros where there is none."""
    given = raw if isinstance(raw, Mapping) else {}
    return TimeSplit(*(whole(given.get(f"{part}_ms")) for part in ("model", "tools", "approval", "pilothouse")))


def _object(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = raw.get(key)
    return value if isinstance(value, Mapping) else {}


def _text(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key)
    return "" if value is None else str(value)


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


def tool(raw: Mapping[str, Any]) -> Tool:
    """A ``ToolDescription``."""
    by = str(raw.get("approver", "")).removeprefix("APPROVER_").lower()
    approval = f"group {raw.get('group', '')}" if by == "group" else by.replace("unspecified", "")
    return Tool(
        name=str(raw.get("name", "")),
        connector=str(raw.get("connector", "")),
        description=str(raw.get("description", "")),
        effect=str(raw.get("effect", "")).removeprefix("EFFECT_").lower() or "unspecified",
        idempotent=bool(raw.get("idempotent")),
        approval=approval,
        key_by=str(raw.get("key_by", "")),
        parameters=str(raw.get("parameters_json", "")),
    )
