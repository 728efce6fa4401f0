"""Decides a ModelRoute's conditions. It is Ready when every worker of every Tenant that uses it has loaded it.

::

    Accepted       the kind's rules hold, and each condition of routing.rules can be read
    ResolvedRefs   keys and examples are there; a provider whose key can't be one is named, and left out
    Reachable      what the workers report of the providers: a key refused, usage that can't be true, …
    Ready          loaded by every worker
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from pilothouse_api import ModelRoute
from pilothouse_operator.core import conditions as c
from pilothouse_operator.core import routes
from pilothouse_operator.core.refs import Problem, Secrets, parse
from pilothouse_operator.core.resources import Json

NOT_REPORTED = "NotReported"
PROVIDER_PROBLEM = "ProviderProblem"
WITHOUT_PROVIDERS = "WithoutProviders"


@dataclass(frozen=True)
class User:
    """A Tenant that uses the route."""

    tenant: Json
    expected_hash: str | None
    """Digest of what its workers shall load now; None where no configuration can be built."""
    said: tuple[str, ...] | None = None
    """What its workers reported of the route's providers, a sentence each; None: nobody was asked yet."""

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
    config_maps: Secrets = field(default_factory=dict)
    users: tuple[User, ...] = ()


def decide(view: RouteView, now: datetime) -> Json | None:
    """The status to apply, None where it says all of it already."""
    route = parse(ModelRoute, view.route)
    if isinstance(route, Problem):
        invalid = (
            c.failed(c.ACCEPTED, route.reason, route.message),
            c.unknown(c.RESOLVED_REFS, route.reason, "Not looked at: not valid."),
            c.unknown(c.REACHABLE, route.reason, "Not tried: not valid."),
            c.failed(c.READY, route.reason, route.message),
        )
        return c.status_object(view.route, invalid, now, tenants=len(view.users))
    findings = (_accepted(route), _resolved(route, view), _reachable(view), _ready(route, view))
    return c.status_object(view.route, findings, now, tiers=routes.summary(route), tenants=len(view.users))


def _accepted(route: ModelRoute) -> c.Finding:
    broken = routes.broken_rule(route)
    if broken is not None:
        return c.failed(c.ACCEPTED, broken.reason, broken.message)
    return c.passed(c.ACCEPTED, c.ACCEPTED, "The ModelRoute is valid.")


def _resolved(route: ModelRoute, view: RouteView) -> c.Finding:
    problem = routes.unresolved(route, view.secrets, view.config_maps) or routes.parts(route, view.secrets)
    if problem is not None:
        return c.failed(c.RESOLVED_REFS, problem.reason, problem.message)
    return c.passed(c.RESOLVED_REFS, c.RESOLVED_REFS, "Everything that the ModelRoute refers to is there.")


def _reachable(view: RouteView) -> c.Finding:
    asked = [user for user in view.users if user.said is not None]
    if not asked:
        unsaid = "No worker has said yet how it gets on with the providers."
        return c.kept(view.route, c.REACHABLE) or c.unknown(c.REACHABLE, NOT_REPORTED, unsaid)
    said = list(dict.fromkeys(sentence for user in asked for sentence in user.said or ()))
    if said:
        more = f" And {len(said) - 3} more." if len(said) > 3 else ""
        return c.failed(c.REACHABLE, PROVIDER_PROBLEM, " ".join(said[:3]) + more)
    return c.passed(c.REACHABLE, c.REACHABLE, "No worker reports a problem with a provider.")


def _ready(route: ModelRoute, view: RouteView) -> c.Finding:
    against = routes.unusable(route, view.secrets, view.config_maps)
    if against is not None:
        return c.failed(c.READY, against.reason, against.message)
    waiting = [user.name for user in view.users if not user.runs_it()]
    if waiting:
        return c.failed(c.READY, "WorkersNotReady", f"Not loaded yet by: {', '.join(waiting[:10])}")
    remarks = [] if view.users else ["No Tenant uses it."]
    left_out = routes.parts(route, view.secrets)
    if left_out is not None:
        remarks.append(left_out.message)
    remarks += routes.remarks(route)
    reason = WITHOUT_PROVIDERS if left_out is not None else c.AS_SPECIFIED
    return c.passed(c.READY, reason, " ".join(remarks) or "Every worker that uses it has loaded it.")
