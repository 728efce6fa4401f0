"""The tenant of the bench: 20 connectors, four of their own kind and sixteen behind OpenAPI documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from pilothouse_api.workerconfig import (
    AgentConfig,
    ConnectorConfig,
    ConnectorTypeName,
    OAuthConfig,
    OpenAPIConfig,
    ProviderConfig,
    RouteConfig,
    SecretValue,
    TargetConfig,
    WorkerConfig,
)
from pilothouse_dataplane.connectors.factory import make_connector
from pilothouse_dataplane.connectors.toolset import Toolset
from pilothouse_dataplane.core.guard import GuardRegistry

DATA = Path(__file__).resolve().parent.parent / "data"
DOCUMENTS = DATA / "catalogs"
OWN_KIND = ("servicenow", "jira", "salesforce", "okta")


def documents() -> list[Path]:
    return sorted(path for path in DOCUMENTS.iterdir() if path.suffix in (".json", ".yaml"))


def files() -> dict[str, bytes]:
    """The documents, as the operator puts them beside the configuration."""
    return {f"openapi.{path.name}": path.read_bytes() for path in documents()}


def connectors() -> tuple[ConnectorConfig, ...]:
    """All 20, each with the asking user's own account, all wrappers on."""
    own = [_connector(name) for name in OWN_KIND]
    return (*own, *(_connector(path.stem, f"openapi.{path.name}") for path in documents()))


def _connector(name: str, document: str = "") -> ConnectorConfig:
    url = f"https://{name}.example"
    return ConnectorConfig(
        name=name,
        type="openapi" if document else cast(ConnectorTypeName, name),
        url=url,
        auth_mode="UserOAuth",
        oauth=OAuthConfig(
            authorization_url=f"{url}/authorize",
            token_url=f"{url}/token",
            client_id=SecretValue(secret=name, key="client-id"),
            client_secret=SecretValue(secret=name, key="client-secret"),
        ),
        openapi=OpenAPIConfig(document_file=document) if document else None,
        cache_seconds=30,
        requests_per_minute=600,
    )


def worker_config(wanted: Sequence[str]) -> WorkerConfig:
    """A worker's configuration with these connectors."""
    return WorkerConfig(
        tenant="acme",
        namespace="acme",
        display_name="Acme",
        revision="bench",
        agent=AgentConfig(instructions="You help Acme's employees."),
        route=RouteConfig(
            providers=(ProviderConfig(name="local", type="OpenAI", base_url="http://127.0.0.1:9/v1"),),
            tiers={"fast": (TargetConfig(provider="local", model="bench"),)},
            default_tier="fast",
        ),
        connectors=tuple(each for each in connectors() if each.name in wanted),
    )


def toolset() -> Toolset:
    """All 20 in their wrappers, without credentials: to ask what it has, not to call it."""
    config, held = worker_config([each.name for each in connectors()]), files()
    return Toolset(
        {each.name: (each, make_connector(each, held, config.egress)) for each in config.connectors},
        GuardRegistry(lambda: 0.0),
        clock=lambda: 0.0,
        random=lambda: 0.5,
        tenant=config.tenant,
        instructions=config.agent.instructions,
    )
