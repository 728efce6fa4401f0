"""Decides a ModelRoute's conditions. It is Ready when every worker of every Tenant that uses it has loaded it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from pilothouse_api import ModelRoute
from pilothouse_operator.core import conditions as c
from pilothouse_operator.core.refs import Problem, Secrets, missing, parse, route_needs
from pilothouse_operator.core.resources import Json


@dataclass(frozen=True)
class User:
    """A Tenant that uses the route."""

    tenant: Json
    expected_hash: str | None
    """Digest of what its workers shall load now; None where no configuration can be built."""

    @property
    def name(self) -> str:
        """The Tenant's name."""
        return str(self.tenant["metadata"]["name"])

    def runs_it(self) -> bool:
        """Its status says that all workers run exactly what is expected now (not what was expected before)."""
        status = self.tenant.get("status") or {}
        ready = any(x.get("type") == c.READY and x.get("status") == "True" for x in status.get("conditions") or [])
        return ready and self.expected_hash is not None and status.get("configHash") == self.expected_hash


@dataclass(frozen=True)
class RouteView:
    """All that was read for one ModelRoute."""

    route: Json
    secrets: Secrets = field(default_factory=dict)
    users: tuple[User, ...] = ()


def decide(view: RouteView, now: datetime) -> Json | None:
    """The status to apply, None where it says all of it already."""
    return c.status_object(view.route, _findings(view), now)


def _findings(view: RouteView) -> tuple[c.Finding, ...]:
    route = parse(ModelRoute, view.route)
    if isinstance(route, Problem):
        return (
            c.failed(c.ACCEPTED, route.reason, route.message),
            c.Finding(c.RESOLVED_REFS, False, route.reason, "Not looked at: not valid.", unknown=True),
            c.failed(c.READY, route.reason, route.message),
        )
    accepted = c.passed(c.ACCEPTED, c.ACCEPTED, "The ModelRoute is valid.")
    lacking = missing(route_needs(route), view.secrets)
    if lacking is not None:
        return (
            accepted,
            c.failed(c.RESOLVED_REFS, lacking.reason, lacking.message),
            c.failed(c.READY, lacking.reason, lacking.message),
        )
    resolved = c.passed(c.RESOLVED_REFS, c.RESOLVED_REFS, "Everything that the ModelRoute refers to is there.")
    waiting = [user.name for user in view.users if not user.runs_it()]
    if waiting:
        return accepted, resolved, c.failed(c.READY, "WorkersNotReady", f"Not loaded yet by: {', '.join(waiting[:10])}")
    said = "Every worker that uses it has loaded it." if view.users else "No Tenant uses it."
    return accepted, resolved, c.passed(c.READY, c.AS_SPECIFIED, said)
