"""Decides the Connectors' conditions: what is wrong with each, and what the workers have said of it.

::

    Accepted      valid, no other's copy, and the platform's egress rule lets its addresses be called
    ResolvedRefs  what it refers to is there: the operator looks at Secrets and ConfigMaps, the workers at Vault
    Reachable     a worker reached the system when it last tried; nothing else depends on it, breakers act on their own
    Ready         every worker has loaded it and can use it
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from pilothouse_api import Connector
from pilothouse_api.egress import EgressRule, refused_url
from pilothouse_operator.core import conditions as c
from pilothouse_operator.core.config import Given
from pilothouse_operator.core.oauth import called_urls
from pilothouse_operator.core.readiness import WorkerReport
from pilothouse_operator.core.refs import Problem, SecretNeed, connector_needs, document_need, missing, parse
from pilothouse_operator.core.resources import Json

INVALID = "Invalid"
DUPLICATE = "Duplicate"
EGRESS_DENIED = "EgressDenied"
DOCUMENT_TOO_LARGE = "DocumentTooLarge"
NOT_USABLE = "NotUsable"
NOT_REPORTED = "NotReported"

DOCUMENTS_LIMIT = 768 * 1024
"""Bytes of all documents in one Tenant's configuration: it is one Secret, which may hold 1 MiB."""


@dataclass(frozen=True)
class Attached:
    """A Connector with what is wrong with it."""

    raw: Json
    connector: Connector | None
    refused: Problem | None = None
    """Why it is not accepted."""
    unresolved: Problem | None = None
    """What it refers to and is not there."""

    @property
    def name(self) -> str:
        return str(self.raw["metadata"]["name"])

    @property
    def problem(self) -> Problem | None:
        return self.refused or self.unresolved

    @property
    def usable(self) -> Connector | None:
        return self.connector if self.problem is None else None


@dataclass(frozen=True)
class Observed:
    """What a Tenant's workers say of one connector together."""

    tools: int
    reachable: bool | None
    message: str
    problem: str


def attach(raws: Iterable[Json], given: Given, egress: EgressRule, *, vault: bool) -> tuple[Attached, ...]:
    """Each Connector with its first problem; ``vault``: credentials lie in Vault, where only the workers look."""
    first: dict[str, str] = {}
    attached = []
    for raw in sorted(raws, key=_age):
        connector = parse(Connector, raw)
        if isinstance(connector, Problem):
            attached.append(Attached(raw, None, refused=connector))
            continue
        twin = first.setdefault(_identity(connector), connector.metadata.name)
        refused = _denied(connector, egress)
        if twin != connector.metadata.name:
            refused = Problem(
                DUPLICATE,
                f'Connector "{twin}" has the same type, url, auth and tools, so this one would only show the agent '
                "each tool twice. Delete one of the two.",
            )
        attached.append(Attached(raw, connector, refused, _unresolved(connector, given, vault=vault)))
    return _within_limit(sorted(attached, key=lambda one: one.name), given)


def observe(reports: Iterable[WorkerReport]) -> Mapping[str, Observed]:
    """By connector: one worker that reaches it is enough, one that can't use it is too many."""
    found: dict[str, Observed] = {}
    for report in reports:
        for said in report.connectors:
            now = Observed(said.tools, said.reachable, said.message, said.problem)
            before = found.get(said.name)
            found[said.name] = now if before is None else _together(before, now)
    return found


def _together(one: Observed, other: Observed) -> Observed:
    reaches = next((o for o in (one, other) if o.reachable), None)
    fails = next((o for o in (one, other) if o.reachable is False), one)
    probe = reaches or fails
    return Observed(max(one.tools, other.tools), probe.reachable, probe.message, one.problem or other.problem)


def statuses(
    attached: Iterable[Attached],
    observed: Mapping[str, Observed],
    now: datetime,
    *,
    vault: bool = False,
    refused: Problem | None = None,
    blocked: Problem | None = None,
) -> tuple[Json, ...]:
    """Statuses to write: ``refused`` speaks against accepting any Connector, ``blocked`` against any being Ready."""
    written = []
    for one in attached:
        if one.refused is None and refused is not None:
            one = replace(one, refused=refused)
        seen = observed.get(one.name)
        findings = (
            _accepted(one),
            _resolved(one, seen, vault=vault),
            _reachable(one, seen),
            _ready(one, seen, blocked),
        )
        tools = None if one.problem else (one.raw.get("status") or {}).get("tools") if seen is None else seen.tools
        written.append(c.status_object(one.raw, findings, now, tools=tools))
    return tuple(status for status in written if status is not None)


def _accepted(one: Attached) -> c.Finding:
    if one.refused is not None:
        return c.failed(c.ACCEPTED, one.refused.reason, one.refused.message)
    return c.passed(c.ACCEPTED, c.ACCEPTED, "The Connector is valid and its Tenant is there.")


def _resolved(one: Attached, seen: Observed | None, *, vault: bool) -> c.Finding:
    if one.connector is None:
        return c.unknown(c.RESOLVED_REFS, INVALID, "Not looked at: not valid.")
    if one.unresolved is not None:
        return c.failed(c.RESOLVED_REFS, one.unresolved.reason, one.unresolved.message)
    if not vault:
        return c.passed(c.RESOLVED_REFS, c.RESOLVED_REFS, "Everything that the Connector refers to is there.")
    if seen is None:
        unsaid = "No worker has said yet whether it finds in Vault what the Connector refers to."
        return c.kept(one.raw, c.RESOLVED_REFS) or c.unknown(c.RESOLVED_REFS, NOT_REPORTED, unsaid)
    if seen.problem:
        return c.failed(c.RESOLVED_REFS, NOT_USABLE, seen.problem)
    return c.passed(c.RESOLVED_REFS, c.RESOLVED_REFS, "The workers find in Vault what the Connector refers to.")


def _reachable(one: Attached, seen: Observed | None) -> c.Finding:
    if one.problem is not None:
        return c.unknown(c.REACHABLE, one.problem.reason, "Not tried: no worker has loaded the Connector.")
    if seen is None or seen.reachable is None:
        unsaid = "No worker has tried yet whether it reaches the system."
        return c.kept(one.raw, c.REACHABLE) or c.unknown(c.REACHABLE, NOT_REPORTED, unsaid)
    if seen.reachable:
        return c.passed(c.REACHABLE, c.REACHABLE, "A worker reached the system when it last tried.")
    said = seen.message or "No worker reached the system when it last tried. Look at spec.url and at the network."
    return c.failed(c.REACHABLE, "Unreachable", said)


def _ready(one: Attached, seen: Observed | None, blocked: Problem | None) -> c.Finding:
    against = one.problem or blocked
    if against is None and seen is not None and seen.problem:
        against = Problem(NOT_USABLE, seen.problem)
    if against is not None:
        return c.failed(c.READY, against.reason, against.message)
    return c.passed(c.READY, c.AS_SPECIFIED, "Every worker has loaded it.")


def _age(raw: Json) -> tuple[str, str]:
    """Oldest first: a copy that is made later never takes the place of what runs."""
    return str(raw["metadata"].get("creationTimestamp") or ""), str(raw["metadata"]["name"])


def _identity(connector: Connector) -> str:
    spec = connector.spec
    alike = spec.model_copy(update={"url": spec.url.rstrip("/")})
    return alike.model_dump_json(include={"type", "url", "auth", "tools", "openapi"})


def _denied(connector: Connector, egress: EgressRule) -> Problem | None:
    for place, url in called_urls(connector.spec).items():
        why = refused_url(url, egress)
        if why is not None:
            return Problem(
                EGRESS_DENIED,
                f"{place} is not an address that connectors may call: {why}. Nothing was configured. Use a public "
                "address or a Service of this namespace, or ask the platform's operator to allow it (the chart's "
                "egress.allowHosts and egress.allowNetworks).",
            )
    return None


def _unresolved(connector: Connector, given: Given, *, vault: bool) -> Problem | None:
    needs: tuple[SecretNeed, ...] = () if vault else connector_needs(connector)
    document = document_need(connector)
    return missing(needs + (() if document is None else (document,)), given.secrets, given.config_maps)


def _within_limit(attached: Iterable[Attached], given: Given) -> tuple[Attached, ...]:
    """Documents that would make the workers' Secret too large for the API keep only their own Connectors out."""
    kept, total = [], 0
    for one in attached:
        need = document_need(one.connector) if one.connector is not None and one.problem is None else None
        if need is not None:
            size = len((given.secrets if need.kind == "Secret" else given.config_maps)[need.secret][need.key])
            if total + size > DOCUMENTS_LIMIT:
                one = replace(
                    one,
                    unresolved=Problem(
                        DOCUMENT_TOO_LARGE,
                        f"The OpenAPI document has {size // 1024} KiB; the documents of one Tenant's ConfigMaps and "
                        f"Secrets may have {DOCUMENTS_LIMIT // 1024} KiB together. Set openapi.document.url instead, "
                        "or leave out what no operation needs.",
                    ),
                )
            else:
                total += size
        kept.append(one)
    return tuple(kept)
