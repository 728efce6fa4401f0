"""Builds the files of a worker's Secret from the kinds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import Literal

from pilothouse_api import Connector, ModelRoute, Tenant, names, parse_duration
from pilothouse_api.connector import Breaker, ConnectorSpec
from pilothouse_api.egress import EgressRule
from pilothouse_api.meta import LocalRef, parse_percent
from pilothouse_api.modelroute import Provider, Target
from pilothouse_api.tenant import AgentTemplate, Limits
from pilothouse_api.workerconfig import (
    AgentConfig,
    ApprovalRule,
    BreakerConfig,
    ConnectorConfig,
    CredentialsConfig,
    EffectRule,
    HedgeConfig,
    JWTBearerConfig,
    LimitsConfig,
    ModelTimeoutsConfig,
    OAuthConfig,
    OpenAPIConfig,
    ProviderConfig,
    RouteConfig,
    RoutingRule,
    SecretValue,
    ServiceAccountConfig,
    TargetConfig,
    TokenExchangeConfig,
    VaultConfig,
    WorkerConfig,
    digest,
)
from pilothouse_operator.core.oauth import endpoints
from pilothouse_operator.core.refs import (
    ACCOUNTS_KEY,
    API_KEY,
    CA_KEY,
    CLIENT_ID,
    CLIENT_SECRET,
    PRIVATE_KEY,
    TOKEN_KEY,
    SecretNeed,
    Secrets,
    broken_keys,
    connector_needs,
    document_need,
    examples_need,
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
class Platform:
    """What is the same for all tenants; from the operator's own settings."""

    image: str
    pull_policy: str
    stores: Stores
    system_namespace: str = names.SYSTEM_NAMESPACE
    egress: EgressRule = field(default_factory=EgressRule)
    """What connectors may reach beyond the public internet; each tenant's own namespace is added."""
    public_url: str = ""
    """Where people reach the gateway, without a slash at its end."""
    vault_addresses: tuple[str, ...] = ()
    """Vault servers at which the operator writes policies and roles. It shows its own token to no other: a Tenant
    could name a server that keeps it."""

    def egress_of(self, namespace: str) -> EgressRule:
        """The rule for a tenant in that namespace."""
        return self.egress.model_copy(update={"namespace": namespace})


@dataclass(frozen=True)
class Given:
    """Content that the kinds refer to, of one namespace."""

    secrets: Secrets = field(default_factory=dict)
    config_maps: Secrets = field(default_factory=dict)
    account_keys: Mapping[str, bytes] = field(default_factory=dict)
    """``key.N`` → content, of the keys that seal linked accounts; only those that can be used."""


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
    tenant: Tenant, route: ModelRoute, connectors: Iterable[Connector], given: Given, platform: Platform
) -> Built:
    """The configuration; all that the route and the connectors need must be in ``given``."""
    chosen = sorted(connectors, key=lambda connector: connector.metadata.name)
    image = tenant.spec.agent.image or platform.image
    broken = broken_keys(route, given.secrets)
    config = WorkerConfig(
        tenant=tenant.metadata.name,
        namespace=tenant.metadata.namespace,
        display_name=tenant.spec.display_name,
        revision=revision_of(tenant, image),
        agent=_agent(tenant.spec.agent),
        route=_route(route, broken),
        connectors=tuple(_connector(connector) for connector in chosen),
        credentials=_credentials(tenant, given),
        egress=platform.egress_of(tenant.metadata.namespace),
        public_url=platform.public_url,
        short_term_ttl_seconds=int(parse_duration(tenant.spec.memory.short_term_ttl)),
        limits=_limits(tenant.spec.limits, tenant.spec.workers.max_replicas),
        concurrent_runs=tenant.spec.limits.concurrent_runs,
    )
    files = {
        CONFIG_FILE: config.model_dump_json().encode(),
        REDIS_FILE: platform.stores.redis_url.encode(),
        DATABASE_FILE: platform.stores.database_url.encode(),
    }
    authority = _authority(tenant, given)
    needs = (*route_needs(route), *_file_needs(tenant, chosen), *((authority,) if authority else ()))
    of_broken = {
        names.secret_file(provider.credentials_secret_ref.name, API_KEY)
        for provider in route.spec.providers
        if provider.name in broken and provider.credentials_secret_ref is not None
    }
    for need in needs:
        if names.secret_file(need.secret, need.key) in of_broken:
            continue
        files[names.secret_file(need.secret, need.key)] = given.secrets[need.secret][need.key]
    for connector in chosen:
        document = document_need(connector)
        if document is not None:
            place = given.secrets if document.kind == "Secret" else given.config_maps
            files[names.document_file(connector.metadata.name)] = place[document.secret][document.key]
    labelled = examples_need(route)
    if labelled is not None:
        files[names.ROUTING_EXAMPLES_FILE] = given.config_maps[labelled.secret][labelled.key]
    for key, content in given.account_keys.items():
        files[names.secret_file(names.account_keys(tenant.metadata.name), key)] = content
    return Built(config, files)


def _file_needs(tenant: Tenant, connectors: Sequence[Connector]) -> list[SecretNeed]:
    """Secrets of this namespace that connectors read; with backend Vault the workers fetch them there."""
    if tenant.spec.credentials.vault is not None:
        return []
    return [need for connector in connectors for need in connector_needs(connector)]


def _authority(tenant: Tenant, given: Given) -> SecretNeed | None:
    """Where Vault's own authority is, once it is there: without it the workers trust only whom their image does."""
    vault = tenant.spec.credentials.vault
    if vault is None or vault.ca_secret_ref is None or CA_KEY not in given.secrets.get(vault.ca_secret_ref.name, {}):
        return None
    return SecretNeed(vault.ca_secret_ref.name, CA_KEY)


def _credentials(tenant: Tenant, given: Given) -> CredentialsConfig:
    vault, meta = tenant.spec.credentials.vault, tenant.metadata
    authority = _authority(tenant, given)
    if vault is None:
        return CredentialsConfig(keys_secret=names.account_keys(meta.name) if given.account_keys else "")
    return CredentialsConfig(
        backend="Vault",
        vault=VaultConfig(
            address=vault.address.rstrip("/"),
            mount=vault.mount,
            prefix=f"{meta.namespace}/{meta.name}",
            auth_mount=vault.auth_mount,
            role=vault.role,
            token_file=names.VAULT_TOKEN_FILE,
            ca_file="" if authority is None else names.secret_file(authority.secret, authority.key),
        ),
    )


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


def _limits(limits: Limits, max_workers: int) -> LimitsConfig:
    budget = limits.daily_budget_usd
    return LimitsConfig(
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        concurrent_runs=limits.concurrent_runs,
        daily_budget_micros=None if budget is None else _micros(budget),
        soft_budget_percent=limits.soft_budget_percent,
        user_requests_per_minute=limits.per_user.requests_per_minute or 0,
        user_tokens_per_minute=limits.per_user.tokens_per_minute or 0,
        max_workers=max_workers,
    )


def _route(route: ModelRoute, broken: Collection[str]) -> RouteConfig:
    """Without the providers that are ``broken``; a tier that loses all of its targets stays, so that the tiers which
    are tried after it keep their order."""
    spec = route.spec
    routing, hedge = spec.routing, spec.hedge
    return RouteConfig(
        providers=tuple(_provider(provider) for provider in spec.providers if provider.name not in broken),
        tiers={
            tier: tuple(_target(target) for target in targets if target.provider not in broken)
            for tier, targets in spec.tiers.declared().items()
        },
        default_tier=routing.default,
        fallback=spec.fallback,
        strategy=routing.strategy,
        rules=tuple(RoutingRule(when=rule.when, tier=rule.tier) for rule in routing.conditions),
        examples_file="" if examples_need(route) is None else names.ROUTING_EXAMPLES_FILE,
        escalate=routing.escalate,
        cache_seconds=0 if spec.cache is None else parse_duration(spec.cache.ttl),
        hedge=None
        if hedge is None
        else HedgeConfig(after_seconds=parse_duration(hedge.after), budget_percent=100 * parse_percent(hedge.budget)),
    )


def _provider(provider: Provider) -> ProviderConfig:
    ref, bounds = provider.credentials_secret_ref, provider.timeouts
    return ProviderConfig(
        name=provider.name,
        type=provider.type,
        protocol=provider.protocol,
        base_url=provider.base_url,
        api_key_file=None if ref is None else names.secret_file(ref.name, API_KEY),
        timeouts=ModelTimeoutsConfig(
            connect=parse_duration(bounds.connect),
            first_token=parse_duration(bounds.first_token),
            between_tokens=parse_duration(bounds.between_tokens),
            whole=parse_duration(bounds.whole),
        ),
        breaker=_breaker(provider.breaker),
    )


_REASONING: Mapping[str | None, Literal["", "low", "medium", "high"]] = {
    None: "",
    "Low": "low",
    "Medium": "medium",
    "High": "high",
}


def _target(target: Target) -> TargetConfig:
    price = target.price_per_1k
    return TargetConfig(
        provider=target.provider,
        model=target.model,
        input_price_per_1k=price.input,
        output_price_per_1k=price.output,
        cached_input_price_per_1k=price.cached_input,
        priority=target.priority,
        weight=target.weight,
        context_tokens=target.context_tokens or 0,
        max_output_tokens=target.max_output_tokens,
        reasoning=_REASONING[target.reasoning],
    )


def _connector(connector: Connector) -> ConnectorConfig:
    spec, auth = connector.spec, connector.spec.auth
    limit, openapi = spec.resilience.rate_limit, spec.openapi
    return ConnectorConfig(
        name=connector.metadata.name,
        type=spec.type,
        url=spec.url,
        auth_mode=auth.mode,
        oauth=_oauth(spec),
        token_exchange=_token_exchange(spec),
        jwt_bearer=_jwt_bearer(spec),
        service_account=_service_account(spec),
        openapi=None
        if openapi is None
        else OpenAPIConfig(
            document_url=openapi.document.url or "",
            document_file="" if openapi.document.url else names.document_file(connector.metadata.name),
            operations=openapi.operations,
        ),
        api_version=spec.api_version or "",
        allow=spec.tools.allow,
        deny=spec.tools.deny,
        approvals=tuple(
            ApprovalRule(match=approval.match, by=approval.by, group=approval.group or "")
            for approval in spec.tools.approvals
        ),
        effects=tuple(EffectRule(match=effect.match, effect=effect.effect) for effect in spec.tools.effects),
        timeout_seconds=parse_duration(spec.resilience.timeout),
        attempts=spec.resilience.retry.attempts,
        requests_per_minute=0 if limit is None else limit.requests_per_minute,
        cache_seconds=0 if spec.cache is None else parse_duration(spec.cache.ttl),
        breaker=_breaker(spec.resilience.breaker),
    )


def _value(ref: LocalRef, key: str) -> SecretValue:
    return SecretValue(secret=ref.name, key=key)


def _oauth(spec: ConnectorSpec) -> OAuthConfig | None:
    oauth = spec.auth.oauth
    if oauth is None:
        return None
    app, accounts, server = oauth.client_secret_ref, oauth.linked_accounts_secret_ref, endpoints(spec)
    return OAuthConfig(
        authorization_url=server.authorization,
        token_url=server.token,
        revocation_url=server.revocation,
        client_id=None if app is None else _value(app, CLIENT_ID),
        client_secret=None if app is None else _value(app, CLIENT_SECRET),
        scopes=oauth.scopes,
        accounts=None if accounts is None else _value(accounts, ACCOUNTS_KEY),
    )


def _token_exchange(spec: ConnectorSpec) -> TokenExchangeConfig | None:
    exchange = spec.auth.token_exchange
    if exchange is None:
        return None
    return TokenExchangeConfig(
        token_url=exchange.token_url,
        audience=exchange.audience,
        grant=exchange.grant,
        client_id=_value(exchange.client_secret_ref, CLIENT_ID),
        client_secret=_value(exchange.client_secret_ref, CLIENT_SECRET),
        scopes=exchange.scopes,
    )


def _jwt_bearer(spec: ConnectorSpec) -> JWTBearerConfig | None:
    bearer = spec.auth.jwt_bearer
    if bearer is None:
        return None
    return JWTBearerConfig(
        token_url=bearer.token_url,
        issuer=bearer.issuer,
        audience=bearer.audience,
        private_key=_value(bearer.private_key_secret_ref, PRIVATE_KEY),
    )


def _service_account(spec: ConnectorSpec) -> ServiceAccountConfig | None:
    account = spec.auth.service_account
    if account is None:
        return None
    return ServiceAccountConfig(
        token=_value(account.token_secret_ref, TOKEN_KEY), writes_allowed=account.writes == "Allow"
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
