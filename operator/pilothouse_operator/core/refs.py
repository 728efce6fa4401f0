"""What the kinds refer to in Secrets, and whether it is there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from pilothouse_api import Connector, ModelRoute, Tenant
from pilothouse_api.meta import Kind, LocalRef
from pilothouse_api.workerconfig import SERVED_AUTH_MODES, SERVED_CONNECTOR_TYPES
from pilothouse_operator.core.resources import Json

KindT = TypeVar("KindT", bound=Kind)

ACCOUNTS_KEY = "accounts.json"
TOKEN_KEY = "token"  # noqa: S105 - the name of a key
API_KEY = "api-key"
CLIENT_KEYS = ("client-id", "client-secret")
PRIVATE_KEY = "private-key"

NOT_SERVED = "NotServed"
SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason
SECRET_INVALID = "SecretInvalid"  # noqa: S105 - a reason

Secrets = Mapping[str, Mapping[str, bytes]]
"""Secrets of one namespace by name, each its content by key; a Secret that is not there is left out."""


@dataclass(frozen=True)
class Problem:
    """Why a reference can't be used, and what to do."""

    reason: str
    message: str


@dataclass(frozen=True, order=True)
class SecretNeed:
    """One key of one Secret in the object's own namespace."""

    secret: str
    key: str


def parse(kind: type[KindT], raw: Json) -> KindT | Problem:
    """The typed object, or why it is not valid (an object from before a rule of the CRD was added)."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the object"
        return Problem("Invalid", f"{where}: {first['msg']}. Correct it with kubectl apply.")


def _needs(ref: LocalRef | None, *keys: str) -> tuple[SecretNeed, ...]:
    return () if ref is None else tuple(SecretNeed(ref.name, key) for key in keys)


def unserved(connector: Connector) -> Problem | None:
    """Why the workers of this release can't run the connector: they would refuse the whole configuration with it."""
    spec = connector.spec
    if spec.type not in SERVED_CONNECTOR_TYPES:
        what, served = f"type {spec.type}", SERVED_CONNECTOR_TYPES
    elif spec.auth.mode not in SERVED_AUTH_MODES:
        what, served = f"auth.mode {spec.auth.mode}", SERVED_AUTH_MODES
    else:
        return None
    return Problem(
        NOT_SERVED,
        f"{what} is not served by this release, so the connector is left out of the workers' configuration. "
        f"Use one of {', '.join(sorted(served))}, or upgrade Pilothouse.",
    )


def connector_needs(connector: Connector) -> tuple[SecretNeed, ...]:
    """The keys without which the connector can't act as anybody."""
    auth = connector.spec.auth
    needs: tuple[SecretNeed, ...] = ()
    if auth.oauth is not None:
        needs += _needs(auth.oauth.linked_accounts_secret_ref, ACCOUNTS_KEY)
        needs += _needs(auth.oauth.client_secret_ref, *CLIENT_KEYS)
    if auth.token_exchange is not None:
        needs += _needs(auth.token_exchange.client_secret_ref, *CLIENT_KEYS)
    if auth.jwt_bearer is not None:
        needs += _needs(auth.jwt_bearer.private_key_secret_ref, PRIVATE_KEY)
    if auth.service_account is not None:
        needs += _needs(auth.service_account.token_secret_ref, TOKEN_KEY)
    return needs


def route_needs(route: ModelRoute) -> tuple[SecretNeed, ...]:
    """The providers' keys."""
    return tuple(need for provider in route.spec.providers for need in _needs(provider.credentials_secret_ref, API_KEY))


def tenant_needs(tenant: Tenant) -> tuple[SecretNeed, ...]:
    """What the tenant's own channels need."""
    slack, teams = tenant.spec.identity.slack, tenant.spec.identity.teams
    needs: tuple[SecretNeed, ...] = ()
    if slack is not None:
        needs += _needs(slack.credentials_secret_ref, "signing-secret", "bot-token")
    if teams is not None:
        needs += _needs(teams.credentials_secret_ref, "client-secret")
    return needs


def needs_of(raw: Json) -> tuple[SecretNeed, ...]:
    """What an object of any kind needs; nothing where it is not valid."""
    if raw["kind"] == "Connector":
        connector = parse(Connector, raw)
        return () if isinstance(connector, Problem) else connector_needs(connector)
    if raw["kind"] == "ModelRoute":
        route = parse(ModelRoute, raw)
        return () if isinstance(route, Problem) else route_needs(route)
    if raw["kind"] == "Tenant":
        tenant = parse(Tenant, raw)
        return () if isinstance(tenant, Problem) else tenant_needs(tenant)
    return ()


def missing(needs: Iterable[SecretNeed], secrets: Secrets) -> Problem | None:
    """The first need that is not met."""
    for need in needs:
        content = secrets.get(need.secret)
        if content is None:
            message = f'Secret "{need.secret}" with key "{need.key}" is not there. Create it in this namespace.'
            return Problem(SECRET_NOT_FOUND, message)
        if need.key not in content:
            message = f'Secret "{need.secret}" has no key "{need.key}". Add the key.'
            return Problem(SECRET_NOT_FOUND, message)
        if need.key == ACCOUNTS_KEY and not _is_account_map(content[need.key]):
            message = (
                f'Key "{need.key}" of Secret "{need.secret}" is not a JSON object of e-mail addresses to access '
                "tokens. Correct its content."
            )
            return Problem(SECRET_INVALID, message)
    return None


def _is_account_map(content: bytes) -> bool:
    try:
        accounts = json.loads(content)
    except ValueError:
        return False
    return isinstance(accounts, dict) and all(isinstance(token, str) for token in accounts.values())
