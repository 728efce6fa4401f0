"""Builds the files of a worker's Secret from the kinds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from pilothouse_api import Connector, ModelRoute, Tenant, names, parse_duration
from pilothouse_api.connector import Breaker
from pilothouse_api.tenant import AgentTemplate
from pilothouse_api.workerconfig import (
    AgentConfig,
    ApprovalRule,
    BreakerConfig,
    ConnectorConfig,
    ProviderConfig,
    RouteConfig,
    TargetConfig,
    WorkerConfig,
    digest,
)
from pilothouse_operator.core.refs import (
    ACCOUNTS_KEY,
    API_KEY,
    TOKEN_KEY,
    SecretNeed,
    Secrets,
    route_needs,
)

CONFIG_FILE = "config.json"
REDIS_FILE = "redis-url"
DATABASE_FILE = "database-url"
MICROS_PER_USD = 1_000_000


@dataclass(frozen=True)
class Stores:
    """Addresses of the stores that a worker uses, passwords included."""

    redis_url: str
    database_url: str
    """PostgreSQL, as the role to which row-level security applies."""

    @property
    def urls(self) -> tuple[str, ...]:
        """Where a worker must be able to connect to."""
        return (self.redis_url, self.database_url)


@dataclass(frozen=True)
class Built:
    """One tenant's configuration."""

    config: WorkerConfig
    files: dict[str, bytes]

    @property
    def hash(self) -> str:
        """What a worker reports once it has loaded these files."""
        return digest(self.files)


def revision_of(tenant: Tenant, image: str) -> str:
    """Name of the agent's revision: it changes with what makes the agent another one, and with nothing else."""
    agent = json.dumps({**tenant.spec.agent.to_api(), "image": image}, sort_keys=True)
    return f"{tenant.metadata.name}-{hashlib.sha256(agent.encode()).hexdigest()[:8]}"


def build(
    tenant: Tenant, route: ModelRoute, connectors: Iterable[Connector], secrets: Secrets, stores: Stores, image: str
) -> Built:
    """The configuration; every Secret that the route and the connectors need must be in ``secrets``."""
    chosen = sorted(connectors, key=lambda connector: connector.metadata.name)
    config = WorkerConfig(
        tenant=tenant.metadata.name,
        namespace=tenant.metadata.namespace,
        display_name=tenant.spec.display_name,
        revision=revision_of(tenant, image),
        agent=_agent(tenant.spec.agent),
        route=_route(route),
        connectors=tuple(_connector(connector) for connector in chosen),
        short_term_ttl_seconds=int(parse_duration(tenant.spec.memory.short_term_ttl)),
        concurrent_runs=tenant.spec.limits.concurrent_runs,
    )
    files = {
        CONFIG_FILE: config.model_dump_json().encode(),
        REDIS_FILE: stores.redis_url.encode(),
        DATABASE_FILE: stores.database_url.encode(),
    }
    for need in (*route_needs(route), *_file_needs(chosen)):
        files[names.secret_file(need.secret, need.key)] = secrets[need.secret][need.key]
    return Built(config, files)


def _file_needs(connectors: Sequence[Connector]) -> list[SecretNeed]:
    """Only what the configuration names: an OAuth app's own secret is no business of a worker."""
    needs = []
    for connector in connectors:
        auth = connector.spec.auth
        if auth.oauth is not None and auth.oauth.linked_accounts_secret_ref is not None:
            needs.append(SecretNeed(auth.oauth.linked_accounts_secret_ref.name, ACCOUNTS_KEY))
        if auth.service_account is not None:
            needs.append(SecretNeed(auth.service_account.token_secret_ref.name, TOKEN_KEY))
    return needs


def _agent(template: AgentTemplate) -> AgentConfig:
    budget = template.budget_usd
    return AgentConfig(
        instructions=template.instructions,
        max_steps=template.max_steps,
        deadline_seconds=parse_duration(template.deadline),
        # Up, so that a budget below a micro-dollar does not become none at all.
        run_budget_micros=None if budget is None else _micros(budget),
        approval_seconds=parse_duration(template.approval_for),
    )


def _micros(usd: Decimal) -> int:
    return int((usd * MICROS_PER_USD).to_integral_value(ROUND_CEILING))


def _route(route: ModelRoute) -> RouteConfig:
    spec = route.spec
    return RouteConfig(
        providers=tuple(
            ProviderConfig(
                name=provider.name,
                type=provider.type,
                base_url=provider.base_url,
                api_key_file=names.secret_file(provider.credentials_secret_ref.name, API_KEY)
                if provider.credentials_secret_ref is not None
                else None,
            )
            for provider in spec.providers
        ),
        tiers={
            tier: tuple(
                TargetConfig(
                    provider=target.provider,
                    model=target.model,
                    input_price_per_1k=target.price_per_1k.input,
                    output_price_per_1k=target.price_per_1k.output,
                )
                for target in targets
            )
            for tier, targets in spec.tiers.declared().items()
        },
        default_tier=spec.routing.default,
        fallback=spec.fallback,
    )


def _connector(connector: Connector) -> ConnectorConfig:
    spec, auth = connector.spec, connector.spec.auth
    accounts = auth.oauth.linked_accounts_secret_ref if auth.oauth is not None else None
    account = auth.service_account
    return ConnectorConfig(
        name=connector.metadata.name,
        type=spec.type,
        url=spec.url,
        auth_mode=auth.mode,
        accounts_file=names.secret_file(accounts.name, ACCOUNTS_KEY) if accounts is not None else None,
        token_file=names.secret_file(account.token_secret_ref.name, TOKEN_KEY) if account is not None else None,
        writes_allowed=account is None or account.writes == "Allow",
        allow=spec.tools.allow,
        approvals=tuple(
            ApprovalRule(match=approval.match, by=approval.by, group=approval.group or "")
            for approval in spec.tools.approvals
        ),
        timeout_seconds=parse_duration(spec.resilience.timeout),
        attempts=spec.resilience.retry.attempts,
        breaker=_breaker(spec.resilience.breaker),
    )


def _breaker(breaker: Breaker) -> BreakerConfig:
    return BreakerConfig(
        window_type=breaker.window_type,
        window=breaker.window,
        minimum_calls=breaker.minimum_calls,
        failure_rate_percent=breaker.failure_rate_percent,
        slow_call_seconds=parse_duration(breaker.slow_call_after) if breaker.slow_call_after is not None else 0,
        slow_call_rate_percent=breaker.slow_call_rate_percent,
        open_seconds=parse_duration(breaker.open_for),
        half_open_calls=breaker.half_open_calls,
        half_open_seconds=parse_duration(breaker.half_open_for),
    )
