"""Decides what a Tenant, its Connectors and its workers shall be: ``decide`` is a pure function of a view and ``now``.

::

    tenant gone ───────────────► its Connectors: TenantNotFound (owner references remove the children)
    tenant invalid ────────────► conditions only; what runs goes on
    route missing or broken ───► conditions only; what runs goes on
    a connector broken ────────► left out of the configuration; ResolvedRefs=False names it, the rest is Ready
    else ──────────────────────► children; Ready once every worker reports the configuration's digest
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pilothouse_api import Connector, ModelRoute, Tenant, names
from pilothouse_operator.core import conditions as c
from pilothouse_operator.core.config import Built, Stores, build, revision_of
from pilothouse_operator.core.diff import is_current, stamped
from pilothouse_operator.core.readiness import Fleet, Worker, WorkerReport, unmet
from pilothouse_operator.core.refs import (
    Problem,
    Secrets,
    connector_needs,
    missing,
    parse,
    route_needs,
    tenant_needs,
    unserved,
)
from pilothouse_operator.core.resources import DEPLOYMENT, Json, Key
from pilothouse_operator.manifests import network, worker
from pilothouse_operator.manifests.common import Owner

TENANT_NOT_FOUND = "TenantNotFound"
ROUTE_NOT_FOUND = "ModelRouteNotFound"
ROUTE_INVALID = "ModelRouteInvalid"
CONNECTOR_NOT_READY = "ConnectorNotReady"
WORKERS_NOT_READY = "WorkersNotReady"
WITHOUT_CONNECTORS = "WithoutConnectors"


@dataclass(frozen=True)
class Platform:
    """What is the same for all tenants; from the operator's own settings."""

    image: str
    pull_policy: str
    stores: Stores
    system_namespace: str = names.SYSTEM_NAMESPACE


@dataclass(frozen=True)
class TenantView:
    """All that was read for one Tenant; raw objects as the API gave them."""

    key: Key
    platform: Platform
    tenant: Json | None
    connectors: tuple[Json, ...] = ()
    """Those whose tenantRef names this Tenant."""
    route: Json | None = None
    secrets: Secrets = field(default_factory=dict)
    children: Mapping[str, Json] = field(default_factory=dict)
    """Live children by kind; all have the same name."""
    workers: tuple[Worker, ...] = ()
    reports: dict[str, WorkerReport] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What to write, in this order, and whether to look again soon."""

    children: tuple[Json, ...] = ()
    statuses: tuple[Json, ...] = ()
    settled: bool = True
    """False: the workers have not confirmed the configuration yet."""
    worth_asking: bool = False
    """True: a worker is up that has not confirmed, so that asking it again soon tells more."""


@dataclass(frozen=True)
class _Attached:
    """A Connector with what is wrong with it."""

    raw: Json
    connector: Connector | None
    invalid: Problem | None
    unresolved: Problem | None

    @property
    def name(self) -> str:
        return str(self.raw["metadata"]["name"])

    @property
    def problem(self) -> Problem | None:
        return self.invalid or self.unresolved


def decide(view: TenantView, now: datetime) -> Decision:
    """What the Tenant's children and conditions shall be."""
    attached = tuple(_attach(raw, view.secrets) for raw in view.connectors)
    if view.tenant is None:
        absent = Problem(
            TENANT_NOT_FOUND, f'Tenant "{view.key.name}" is not in this namespace. Create it, or delete the Connector.'
        )
        return Decision(statuses=_connector_statuses(attached, absent, absent, now))
    tenant = parse(Tenant, view.tenant)
    if isinstance(tenant, Problem):
        findings = (
            c.failed(c.ACCEPTED, tenant.reason, tenant.message),
            c.Finding(c.RESOLVED_REFS, False, tenant.reason, "Not looked at: the Tenant is not valid.", unknown=True),
            c.failed(c.READY, tenant.reason, tenant.message),
        )
        status = c.status_object(view.tenant, findings, now, **_kept_fields(view.tenant))
        waiting = Problem("TenantNotReady", f'Tenant "{view.key.name}" is not valid: {tenant.message}')
        return Decision(statuses=_present(status) + _connector_statuses(attached, None, waiting, now))
    route = usable_route(tenant, view)
    if isinstance(route, Problem):
        findings = (
            c.passed(c.ACCEPTED, c.ACCEPTED, "The Tenant is valid."),
            c.failed(c.RESOLVED_REFS, route.reason, route.message),
            c.failed(c.READY, route.reason, f"{route.message} What runs already goes on unchanged."),
        )
        status = c.status_object(view.tenant, findings, now, **_kept_fields(view.tenant))
        waiting = Problem("TenantNotReady", f'Tenant "{view.key.name}": {route.message}')
        return Decision(statuses=_present(status) + _connector_statuses(attached, None, waiting, now))
    return _decide_running(view, tenant, route, attached, now)


def configuration(view: TenantView) -> Built | Problem:
    """The configuration that the Tenant's workers shall load, or why there is none."""
    if view.tenant is None:
        return Problem(TENANT_NOT_FOUND, "The Tenant is not there.")
    tenant = parse(Tenant, view.tenant)
    if isinstance(tenant, Problem):
        return tenant
    route = usable_route(tenant, view)
    if isinstance(route, Problem):
        return route
    attached = tuple(_attach(raw, view.secrets) for raw in view.connectors)
    return _build(view, tenant, route, attached)


def usable_route(tenant: Tenant, view: TenantView) -> ModelRoute | Problem:
    """The agent's ModelRoute, or what keeps it from being used."""
    name = tenant.spec.agent.model_route_ref.name
    if view.route is None:
        return Problem(ROUTE_NOT_FOUND, f'ModelRoute "{name}" is not in this namespace. Create it.')
    route = parse(ModelRoute, view.route)
    if isinstance(route, Problem):
        return Problem(ROUTE_INVALID, f'ModelRoute "{name}": {route.message}')
    lacking = missing(route_needs(route), view.secrets)
    if lacking is not None:
        return Problem(lacking.reason, f'ModelRoute "{name}": {lacking.message}')
    return route


def _build(view: TenantView, tenant: Tenant, route: ModelRoute, attached: tuple[_Attached, ...]) -> Built:
    usable = [one.connector for one in attached if one.problem is None and one.connector is not None]
    image = tenant.spec.agent.image or view.platform.image
    return build(tenant, route, usable, view.secrets, view.platform.stores, image)


def _decide_running(
    view: TenantView, tenant: Tenant, route: ModelRoute, attached: tuple[_Attached, ...], now: datetime
) -> Decision:
    raw = view.tenant or {}
    built = _build(view, tenant, route, attached)
    desired = _children(view, tenant, built)
    changed = tuple(child for child in desired if not is_current(child, view.children.get(child["kind"])))
    fleet = Fleet(
        tenant=tenant.metadata.name,
        desired=tenant.spec.workers.min_replicas,
        config_hash=built.hash,
        revision=built.config.revision,
        deployment=view.children.get(DEPLOYMENT.kind),
        deployment_current=all(child["kind"] != DEPLOYMENT.kind for child in changed),
        workers=view.workers,
        reports=view.reports,
    )
    waiting = unmet(fleet)
    findings = (
        c.passed(c.ACCEPTED, c.ACCEPTED, "The Tenant is valid."),
        _resolved(tenant, attached, view.secrets),
        _ready(fleet, waiting, attached),
    )
    status = c.status_object(
        raw,
        findings,
        now,
        workers=fleet.desired,
        readyWorkers=fleet.confirmed,
        configHash=built.hash,
        revision=built.config.revision,
    )
    blocked = None if waiting is None else Problem(WORKERS_NOT_READY, waiting)
    statuses = _present(status) + _connector_statuses(attached, None, blocked, now)
    return Decision(changed, statuses, settled=waiting is None, worth_asking=fleet.worth_asking)


def _children(view: TenantView, tenant: Tenant, built: Built) -> tuple[Json, ...]:
    owner = Owner(tenant.metadata.name, tenant.metadata.namespace, tenant.metadata.uid)
    image = tenant.spec.agent.image or view.platform.image
    spec = worker.WorkerSpec(
        image, view.platform.pull_policy, tenant.spec.workers.min_replicas, revision_of(tenant, image)
    )
    urls = [*view.platform.stores.urls]
    urls += [provider.base_url or network.VENDORS for provider in built.config.route.providers]
    urls += [connector.url for connector in built.config.connectors]
    return tuple(
        stamped(manifest)
        for manifest in (
            worker.service_account(owner),
            worker.config_secret(owner, built.files, built.hash),
            worker.service(owner),
            network.network_policy(owner, urls, view.platform.system_namespace),
            worker.disruption_budget(owner),
            worker.deployment(owner, spec),
        )
    )


def _attach(raw: Json, secrets: Secrets) -> _Attached:
    connector = parse(Connector, raw)
    if isinstance(connector, Problem):
        return _Attached(raw, None, connector, None)
    not_served = unserved(connector)
    if not_served is not None:
        return _Attached(raw, None, not_served, None)
    return _Attached(raw, connector, None, missing(connector_needs(connector), secrets))


def _resolved(tenant: Tenant, attached: tuple[_Attached, ...], secrets: Secrets) -> c.Finding:
    lacking = missing(tenant_needs(tenant), secrets)
    if lacking is not None:
        return c.failed(c.RESOLVED_REFS, lacking.reason, lacking.message)
    for one in attached:
        if one.problem is not None:
            reason = one.problem.reason if one.invalid is None else CONNECTOR_NOT_READY
            return c.failed(c.RESOLVED_REFS, reason, f'Connector "{one.name}": {one.problem.message}')
    return c.passed(c.RESOLVED_REFS, c.RESOLVED_REFS, "Everything that the Tenant refers to is there.")


def _ready(fleet: Fleet, waiting: str | None, attached: tuple[_Attached, ...]) -> c.Finding:
    left_out = [one.name for one in attached if one.problem is not None]
    if waiting is not None:
        return c.failed(c.READY, WORKERS_NOT_READY, waiting)
    said = f"{fleet.confirmed} of {fleet.desired} workers run configuration {fleet.config_hash}"
    if left_out:
        return c.passed(
            c.READY, WITHOUT_CONNECTORS, f"{said}, without connectors that are not usable: {_list(left_out)}"
        )
    return c.passed(c.READY, c.AS_SPECIFIED, said)


def _list(items: list[str]) -> str:
    return ", ".join(items[:10]) + (f" and {len(items) - 10} more" if len(items) > 10 else "")


def _connector_statuses(
    attached: tuple[_Attached, ...], refused: Problem | None, blocked: Problem | None, now: datetime
) -> tuple[Json, ...]:
    """Statuses of the Connectors: ``refused`` speaks against accepting any, ``blocked`` against any being Ready."""
    statuses: tuple[Json, ...] = ()
    for one in attached:
        not_accepted = one.invalid or refused
        if one.invalid is not None:
            resolved = c.Finding(c.RESOLVED_REFS, False, "Invalid", "Not looked at: not valid.", unknown=True)
        elif one.unresolved is not None:
            resolved = c.failed(c.RESOLVED_REFS, one.unresolved.reason, one.unresolved.message)
        else:
            resolved = c.passed(c.RESOLVED_REFS, c.RESOLVED_REFS, "Everything that the Connector refers to is there.")
        not_ready = not_accepted or one.unresolved or blocked
        findings = (
            c.passed(c.ACCEPTED, c.ACCEPTED, "The Connector is valid and its Tenant is there.")
            if not_accepted is None
            else c.failed(c.ACCEPTED, not_accepted.reason, not_accepted.message),
            resolved,
            c.passed(c.READY, c.AS_SPECIFIED, "Every worker has loaded it.")
            if not_ready is None
            else c.failed(c.READY, not_ready.reason, not_ready.message),
        )
        statuses += _present(c.status_object(one.raw, findings, now))
    return statuses


def _kept_fields(raw: Json) -> dict[str, object]:
    """What the status says of the configuration that still runs."""
    status = raw.get("status") or {}
    return {name: status.get(name) for name in ("workers", "readyWorkers", "configHash", "revision")}


def _present(status: Json | None) -> tuple[Json, ...]:
    return () if status is None else (status,)
