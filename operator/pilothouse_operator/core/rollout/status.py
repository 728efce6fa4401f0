"""A Rollout's conditions while no controller governs it."""

from __future__ import annotations

from datetime import datetime

from pilothouse_api import Rollout
from pilothouse_operator.core import conditions as c
from pilothouse_operator.core.refs import Problem, parse
from pilothouse_operator.core.resources import Json
from pilothouse_operator.core.rollout import NOT_GOVERNED, NOT_GOVERNED_MESSAGE


def decide(raw: Json, tenant_found: bool, route_found: bool, now: datetime) -> Json | None:
    """The status to apply, None where it says all of it already."""
    rollout = parse(Rollout, raw)
    if isinstance(rollout, Problem):
        accepted = c.failed(c.ACCEPTED, rollout.reason, rollout.message)
        resolved = c.Finding(c.RESOLVED_REFS, False, rollout.reason, "Not looked at: not valid.", unknown=True)
        return c.status_object(raw, (accepted, resolved, c.failed(c.READY, rollout.reason, rollout.message)), now)
    tenant, route = rollout.spec.tenant_ref.name, rollout.spec.template.model_route_ref.name
    resolved = c.passed(c.RESOLVED_REFS, c.RESOLVED_REFS, "Everything that the Rollout refers to is there.")
    accepted = c.passed(c.ACCEPTED, c.ACCEPTED, "The Rollout is valid.")
    if not route_found:
        resolved = c.failed(c.RESOLVED_REFS, "ModelRouteNotFound", f'ModelRoute "{route}" is not in this namespace.')
    if not tenant_found:
        accepted = c.failed(c.ACCEPTED, "TenantNotFound", f'Tenant "{tenant}" is not in this namespace. Create it.')
    return c.status_object(raw, (accepted, resolved, c.failed(c.READY, NOT_GOVERNED, NOT_GOVERNED_MESSAGE)), now)
