"""Decides what a Tenant, its Connectors and its workers shall be: ``decide`` is a pure function of a view and ``now``.

::

    tenant gone ───────────────► its Connectors: TenantNotFound (owner references remove the children)
    tenant invalid ────────────► conditions only; what runs goes on
    route missing or broken ───► conditions only; what runs goes on
    a connector broken ────────► left out of the configuration; ResolvedRefs=False names it, the rest is Ready
    no account keys yet ───────► they are created first, alone: what is sealed under a key must never lose it
    else ──────────────────────► children; Ready once every worker reports the configuration's digest
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pilothouse_api import ModelRoute, Tenant, names
from pilothouse_operator.core import conditions as c
from pilothouse_operator.core import connectors, credentials, routes
from pilothouse_operator.core.config import Built, Given, Platform, build, revision_of
from pilothouse_operator.core.connectors import Attached, Observed
from pilothouse_operator.core.diff import is_current, stamped
from pilothouse_operator.core.oauth import called_urls
from pilothouse_operator.core.readiness import Fleet, Worker, WorkerReport, unmet
from pilothouse_operator.core.refs import CA_KEY, Problem, Secrets, missing, parse, tenant_needs
from pilothouse_operator.core.resources import DEPLOYMENT, Json, Key
from pilothouse_operator.manifests import keys, network, vault, worker
from pilothouse_operator.manifests.common import Owner
from pilothouse_operator.manifests.vault import VaultAccess

TENANT_NOT_FOUND = "TenantNotFound"
ROUTE_NOT_FOUND = "ModelRouteNotFound"
ROUTE_INVALID = "ModelRouteInvalid"
CONNECTOR_NOT_READY = "ConnectorNotReady"
WORKERS_NOT_READY = "WorkersNotReady"
WITHOUT_CONNECTORS = "WithoutConnectors"


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
    config_maps: Secrets = field(default_factory=dict)
    children: Mapping[str, Json] = field(default_factory=dict)
    """Live children by kind; all have the same name."""
    workers: tuple[Worker, ...] = ()
    reports: dict[str, WorkerReport] = field(default_factory=dict)
    vault: credentials.VaultState | None = None
    """What came of the last try to write the Tenant's policy; None: not tried, or not the operator's to write."""


@dataclass(frozen=True)
class Decision:
    """What to write, in this order, and whether to look again soon."""

    creates: tuple[Json, ...] = ()
    """Objects that are created if they are not there, never changed. With any, decide again once they are there."""
    children: tuple[Json, ...] = ()
    statuses: tuple[Json, ...] = ()
    settled: bool = True
    """False: the workers have not confirmed the configuration yet."""
    worth_asking: bool = False
    """True: a worker is up that has not confirmed, so that asking it again soon tells more."""
    watched: bool = False
    """True: the workers know what no event tells (whether systems and Vault are reached), so ask them now and then."""
    access: VaultAccess | None = None
    """What shall be in Vault for the Tenant; None: nothing."""
    keeps_access: bool = False
    """True: what is in Vault is left as it is, whatever ``access`` says."""


def decide(view: TenantView, now: datetime, random_bytes: Callable[[int], bytes]) -> Decision:
    """What the Tenant's children and conditions shall be; ``random_bytes`` gives key material for a new Tenant."""
    if view.tenant is None:
        attached = _attach(view, None)
        absent = Problem(
            TENANT_NOT_FOUND, f'Tenant "{view.key.name}" is not in this namespace. Create it, or delete the Connector.'
        )
        return Decision(statuses=connectors.statuses(attached, {}, now, refused=absent, blocked=absent))
    tenant = parse(Tenant, view.tenant)
    attached = _attach(view, None if isinstance(tenant, Problem) else tenant)
    if isinstance(tenant, Problem):
        findings = (
            c.failed(c.ACCEPTED, tenant.reason, tenant.message),
            c.unknown(c.RESOLVED_REFS, tenant.reason, "Not looked at: the Tenant is not valid."),
            c.failed(c.READY, tenant.reason, tenant.message),
        )
        status = c.status_object(view.tenant, findings, now, **_kept_fields(view.tenant))
        waiting = Problem("TenantNotReady", f'Tenant "{view.key.name}" is not valid: {tenant.message}')
        return Decision(
            statuses=_present(status) + connectors.statuses(attached, {}, now, blocked=waiting), keeps_access=True
        )
    route = usable_route(tenant, view)
    if isinstance(route, Problem):
        findings = (
            c.passed(c.ACCEPTED, c.ACCEPTED, "The Tenant is valid."),
            c.failed(c.RESOLVED_REFS, route.reason, route.message),
            c.failed(c.READY, route.reason, f"{route.message} What runs already goes on unchanged."),
        )
        status = c.status_object(view.tenant, findings, now, **_kept_fields(view.tenant))
        waiting = Problem("TenantNotReady", f'Tenant "{view.key.name}": {route.message}')
        in_vault = tenant.spec.credentials.vault is not None
        return Decision(
            statuses=_present(status) + connectors.statuses(attached, {}, now, vault=in_vault, blocked=waiting),
            access=_access(view, tenant),
        )
    if _lacks_keys(view, tenant):
        return Decision(creates=(keys.account_keys(_owner(tenant), random_bytes(keys.KEY_BYTES)),), settled=False)
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
    return _build(view, tenant, route, _attach(view, tenant))


def usable_route(tenant: Tenant, view: TenantView) -> ModelRoute | Problem:
    """The agent's ModelRoute, or what keeps it from being used."""
    name = tenant.spec.agent.model_route_ref.name
    if view.route is None:
        return Problem(ROUTE_NOT_FOUND, f'ModelRoute "{name}" is not in this namespace. Create it.')
    route = parse(ModelRoute, view.route)
    if isinstance(route, Problem):
        return Problem(ROUTE_INVALID, f'ModelRoute "{name}": {route.message}')
    problem = routes.unusable(route, view.secrets, view.config_maps)
    if problem is not None:
        return Problem(problem.reason, f'ModelRoute "{name}": {problem.message}')
    return route


def _attach(view: TenantView, tenant: Tenant | None) -> tuple[Attached, ...]:
    in_vault = tenant is not None and tenant.spec.credentials.vault is not None
    egress = view.platform.egress_of(view.key.namespace)
    return connectors.attach(view.connectors, _given(view), egress, vault=in_vault)


def _given(view: TenantView, tenant: Tenant | None = None) -> Given:
    found = {} if tenant is None else credentials.usable_keys(_key_secret(view, tenant) or {})
    return Given(view.secrets, view.config_maps, found)


def _key_secret(view: TenantView, tenant: Tenant) -> Mapping[str, bytes] | None:
    """Content of the account-keys Secret, None where it is not there or no business of this backend."""
    if tenant.spec.credentials.backend != "Kubernetes":
        return None
    return view.secrets.get(names.account_keys(tenant.metadata.name))


def _lacks_keys(view: TenantView, tenant: Tenant) -> bool:
    return tenant.spec.credentials.backend == "Kubernetes" and _key_secret(view, tenant) is None


def _access(view: TenantView, tenant: Tenant) -> VaultAccess | None:
    """What the operator writes in the Tenant's Vault; nothing in one that it may not show its token to."""
    spec = tenant.spec.credentials.vault
    if spec is None or spec.address.rstrip("/") not in view.platform.vault_addresses:
        return None
    authority = spec.ca_secret_ref and view.secrets.get(spec.ca_secret_ref.name, {}).get(CA_KEY)
    return vault.access(tenant, (authority or b"").decode(errors="replace"))


def _build(view: TenantView, tenant: Tenant, route: ModelRoute, attached: tuple[Attached, ...]) -> Built:
    usable = [one.usable for one in attached if one.usable is not None]
    return build(tenant, route, usable, _given(view, tenant), view.platform)


def _decide_running(
    view: TenantView, tenant: Tenant, route: ModelRoute, attached: tuple[Attached, ...], now: datetime
) -> Decision:
    raw = view.tenant or {}
    built = _build(view, tenant, route, attached)
    desired = _children(view, tenant, built, attached)
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
    waiting, access = unmet(fleet), _access(view, tenant)
    reports = fleet.current_reports
    observed = connectors.observe(reports)
    in_vault = tenant.spec.credentials.vault is not None
    problems = _problems(attached, observed)
    findings = (
        c.passed(c.ACCEPTED, c.ACCEPTED, "The Tenant is valid."),
        _resolved(tenant, problems, view.secrets),
        credentials.finding(
            raw, tenant, _key_secret(view, tenant) or {}, view.vault, reports, managed=access is not None
        ),
        _ready(fleet, waiting, [name for name, _ in problems]),
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
    return Decision(
        children=changed,
        statuses=_present(status) + connectors.statuses(attached, observed, now, vault=in_vault, blocked=blocked),
        settled=waiting is None,
        worth_asking=fleet.worth_asking,
        watched=in_vault or bool(built.config.connectors or built.config.route.providers),
        access=access,
    )


def _owner(tenant: Tenant) -> Owner:
    return Owner(tenant.metadata.name, tenant.metadata.namespace, tenant.metadata.uid)


def _children(view: TenantView, tenant: Tenant, built: Built, attached: tuple[Attached, ...]) -> tuple[Json, ...]:
    owner = _owner(tenant)
    image = tenant.spec.agent.image or view.platform.image
    server = tenant.spec.credentials.vault
    spec = worker.WorkerSpec(
        image,
        view.platform.pull_policy,
        tenant.spec.workers.min_replicas,
        revision_of(tenant, image),
        uses_vault=server is not None,
    )
    urls = [*view.platform.stores.urls, *([] if server is None else [server.address])]
    urls += [provider.base_url or network.VENDORS for provider in built.config.route.providers]
    for one in attached:
        urls += [] if one.usable is None else called_urls(one.usable.spec).values()
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


def _problems(attached: tuple[Attached, ...], observed: Mapping[str, Observed]) -> list[tuple[str, Problem]]:
    """Connectors that can't be used, as the operator sees or the workers say, with why."""
    found = []
    for one in attached:
        seen = observed.get(one.name)
        if one.problem is not None:
            refused = one.problem is one.refused
            found.append((one.name, Problem(CONNECTOR_NOT_READY, one.problem.message) if refused else one.problem))
        elif seen is not None and seen.problem:
            found.append((one.name, Problem(CONNECTOR_NOT_READY, seen.problem)))
    return found


def _resolved(tenant: Tenant, problems: list[tuple[str, Problem]], secrets: Secrets) -> c.Finding:
    lacking = missing(tenant_needs(tenant), secrets)
    if lacking is not None:
        return c.failed(c.RESOLVED_REFS, lacking.reason, lacking.message)
    for name, problem in problems:
        return c.failed(c.RESOLVED_REFS, problem.reason, f'Connector "{name}": {problem.message}')
    return c.passed(c.RESOLVED_REFS, c.RESOLVED_REFS, "Everything that the Tenant refers to is there.")


def _ready(fleet: Fleet, waiting: str | None, left_out: list[str]) -> c.Finding:
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


def _kept_fields(raw: Json) -> dict[str, object]:
    """What the status says of the configuration that still runs."""
    status = raw.get("status") or {}
    return {name: status.get(name) for name in ("workers", "readyWorkers", "configHash", "revision")}


def _present(status: Json | None) -> tuple[Json, ...]:
    return () if status is None else (status,)
