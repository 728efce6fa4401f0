"""How an update from a source changes what is shown: pure but for the ``Fleet`` that it is given; ``now`` comes in.

A source that is lost changes its link only, so the last data stays on the screen and is marked as stale::

    connecting ──Connected──▶ up ──Lost──▶ stale ──Connected──▶ up
         └────────Lost──────▶ down (never had data)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from pilothouse_tui.model import (
    FLEET,
    KUBERNETES,
    Approval,
    ApprovalGone,
    Breaker,
    Connected,
    Fleet,
    FleetSnapshot,
    KubeObject,
    Link,
    Lost,
    ObjectDeleted,
    ObjectsListed,
    Session,
    TenantCost,
    Update,
)


def apply(fleet: Fleet, updates: Iterable[Update], now: datetime) -> None:
    """Take a batch of updates into ``fleet``, in order."""
    for update in updates:
        _apply_one(fleet, update, now)


def link_after(link: Link, update: Connected | Lost, now: datetime) -> Link:
    """The link's state after its source said that it is connected or lost."""
    if isinstance(update, Connected):
        return replace(link, up=True, where=update.where or link.where, message="", to_do="", retry_at=None)
    retry_at = now + timedelta(seconds=update.retry_in)
    return replace(link, up=False, message=update.message, to_do=update.to_do, retry_at=retry_at)


def _apply_one(fleet: Fleet, update: Update, now: datetime) -> None:
    match update:
        case Connected() | Lost():
            fleet.links[update.source] = link_after(fleet.links.get(update.source, Link(update.source)), update, now)
            return
        case FleetSnapshot():
            fleet.sessions = {s.key: s for s in update.sessions}
            fleet.breakers = {b.key: b for b in update.breakers}
            fleet.costs = {c.tenant: c for c in update.costs}
            fleet.approvals = {a.key: a for a in update.approvals}
        case Session():
            fleet.sessions[update.key] = update
        case Breaker():
            fleet.breakers[update.key] = update
        case TenantCost():
            fleet.costs[update.tenant] = update
        case Approval():
            fleet.approvals[update.key] = update
        case ApprovalGone():
            fleet.approvals.pop((update.tenant, update.approval_id), None)
        case ObjectsListed():
            kept = {key: value for key, value in fleet.objects.items() if value.kind != update.kind}
            fleet.objects = kept | {o.key: o for o in update.objects}
        case KubeObject():
            fleet.objects[update.key] = update
        case ObjectDeleted():
            fleet.objects.pop(update.key, None)
    source = KUBERNETES if isinstance(update, (ObjectsListed, KubeObject, ObjectDeleted)) else FLEET
    fleet.links[source] = replace(fleet.links[source], last_data=now)
