"""What the kinds refer to in Secrets and ConfigMaps, and whether it is there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from pydantic import ValidationError

from pilothouse_api import Connector, ModelRoute, Tenant, names
from pilothouse_api.meta import Kind, LocalRef
from pilothouse_operator.core.resources import Json

KindT = TypeVar("KindT", bound=Kind)

ACCOUNTS_KEY = "accounts.json"
TOKEN_KEY = "token"  # noqa: S105 - the name of a key
API_KEY = "api-key"
CLIENT_ID, CLIENT_SECRET = "client-id", "client-secret"
CLIENT_KEYS = (CLIENT_ID, CLIENT_SECRET)
PRIVATE_KEY = "private-key"
CA_KEY = "ca.crt"

CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound"
SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason
SECRET_INVALID = "SecretInvalid"  # noqa: S105 - a reason

Secrets = Mapping[str, Mapping[str, bytes]]
"""Secrets (or ConfigMaps) of one namespace by name, each its content by key; one that is not there is left out."""


@dataclass(frozen=True)
class Problem:
    """Why a reference can't be used, and what to do."""

    reason: str
    message: str


@dataclass(frozen=True, order=True)
class SecretNeed:
    """One key of one Secret, or of one ConfigMap, in the object's own namespace."""

    secret: str
    key: str
    kind: Literal["Secret", "ConfigMap"] = "Secret"


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


def connector_needs(connector: Connector) -> tuple[SecretNeed, ...]:
    """The keys without which the connector can't act as anybody: in Secrets, or in the tenant's Vault."""
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


def document_need(connector: Connector) -> SecretNeed | None:
    """Where the connector's OpenAPI document lies, unless it has none or the workers fetch it."""
    if connector.spec.openapi is None:
        return None
    document = connector.spec.openapi.document
    if document.config_map_key_ref is not None:
        return SecretNeed(document.config_map_key_ref.name, document.config_map_key_ref.key, "ConfigMap")
    if document.secret_key_ref is not None:
        return SecretNeed(document.secret_key_ref.name, document.secret_key_ref.key)
    return None


def route_needs(route: ModelRoute) -> tuple[SecretNeed, ...]:
    """The providers' keys."""
    return tuple(need for provider in route.spec.providers for need in _needs(provider.credentials_secret_ref, API_KEY))


def examples_need(route: ModelRoute) -> SecretNeed | None:
    """Where the route's labelled examples lie; None: those that Pilothouse brings along count, or none do."""
    if route.spec.routing.examples is None:
        return None
    ref = route.spec.routing.examples.config_map_key_ref
    return SecretNeed(ref.name, ref.key, "ConfigMap")


def broken_keys(route: ModelRoute, secrets: Secrets) -> dict[str, str]:
    """Providers whose key is there and can't be one, by name, with what is wrong and what to do."""
    found = {}
    for provider in route.spec.providers:
        for need in _needs(provider.credentials_secret_ref, API_KEY):
            why = broken_key(secrets.get(need.secret, {}).get(need.key, b"-"))
            if why is not None:
                found[provider.name] = (
                    f'Key "{need.key}" of Secret "{need.secret}" {why}. Provider {provider.name} is left out. '
                    f"Write the key anew: kubectl create secret generic {need.secret} --from-literal={need.key}=…"
                )
    return found


def broken_key(content: bytes) -> str | None:
    """What is wrong with an API key, a few words; None where nothing is. One line's end after it is forgiven: editors
    write it. A key is sent in a header, which can hold neither a line break nor what is not ASCII."""
    key = content.decode("latin-1").removesuffix("\n").removesuffix("\r")
    if not key.strip():
        return "is empty"
    if "\n" in key or "\r" in key:
        return "has a line break in it"
    if any(not 33 <= ord(character) <= 126 for character in key.strip()):
        return "has a character that no key has (a blank, a control character, or one that is not ASCII)"
    return None


def tenant_needs(tenant: Tenant) -> tuple[SecretNeed, ...]:
    """What the tenant's own channels need."""
    slack, teams = tenant.spec.identity.slack, tenant.spec.identity.teams
    needs: tuple[SecretNeed, ...] = ()
    if slack is not None:
        needs += _needs(slack.credentials_secret_ref, "signing-secret", "bot-token")
    if teams is not None:
        needs += _needs(teams.credentials_secret_ref, "client-secret")
    if tenant.spec.credentials.vault is not None:
        needs += _needs(tenant.spec.credentials.vault.ca_secret_ref, CA_KEY)
    return needs


def needs_of(raw: Json) -> tuple[SecretNeed, ...]:
    """What is read for an object of any kind; nothing where it is not valid."""
    if raw["kind"] == "Connector":
        connector = parse(Connector, raw)
        if isinstance(connector, Problem):
            return ()
        document = document_need(connector)
        return connector_needs(connector) + (() if document is None else (document,))
    if raw["kind"] == "ModelRoute":
        route = parse(ModelRoute, raw)
        if isinstance(route, Problem):
            return ()
        labelled = examples_need(route)
        return route_needs(route) + (() if labelled is None else (labelled,))
    if raw["kind"] == "Tenant":
        tenant = parse(Tenant, raw)
        if isinstance(tenant, Problem):
            return ()
        # Which keys are in it is a person's choice; that it is looked at is what counts here.
        own_keys = (SecretNeed(names.account_keys(tenant.metadata.name), ""),)
        return tenant_needs(tenant) + (own_keys if tenant.spec.credentials.backend == "Kubernetes" else ())
    return ()


def missing(needs: Iterable[SecretNeed], secrets: Secrets, config_maps: Secrets | None = None) -> Problem | None:
    """The first need that is not met."""
    for need in needs:
        reason = SECRET_NOT_FOUND if need.kind == "Secret" else CONFIG_MAP_NOT_FOUND
        content = (secrets if need.kind == "Secret" else config_maps or {}).get(need.secret)
        if content is None:
            message = f'{need.kind} "{need.secret}" with key "{need.key}" is not there. Create it in this namespace.'
            return Problem(reason, message)
        if need.key not in content:
            return Problem(reason, f'{need.kind} "{need.secret}" has no key "{need.key}". Add the key.')
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
