"""The versioned configuration that the operator writes and a worker loads.

It stands in one Secret (``config.json`` plus one file per referenced credential), so that a worker sees a change of
either as one atomic update. ``digest`` covers all of it: the worker reports the digest of what it has loaded, and a
Tenant is ``Ready`` only when every worker reports the digest that the operator wrote.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pilothouse_api.egress import EgressRule

Tier = Literal["fast", "mid", "power"]

ConnectorTypeName = Literal["servicenow", "jira", "salesforce", "okta", "openapi", "mcp"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BreakerConfig(_Frozen):
    window_type: Literal["Count", "Time"] = "Count"
    window: int = 20
    """Calls, or seconds where ``window_type`` is Time, in the sliding window."""
    minimum_calls: int = 10
    failure_rate_percent: float = 50
    slow_call_seconds: float = 0
    """A call that took longer is slow; 0: none is."""
    slow_call_rate_percent: float = 100
    open_seconds: float = 30
    half_open_calls: int = 3
    half_open_seconds: float = 30
    """Half-open without a verdict goes back to open after this long."""


class ModelTimeoutsConfig(_Frozen):
    """Bounds of one streaming call, seconds."""

    connect: float = 2.0
    first_token: float = 15.0
    between_tokens: float = 10.0
    whole: float = 120.0


class ProviderConfig(_Frozen):
    name: str
    type: Literal["OpenAI", "Anthropic"]
    protocol: Literal["ChatCompletions", "Responses", "Messages"] | None = None
    """None: ChatCompletions for OpenAI, Messages for Anthropic."""
    base_url: str | None = None
    """None: the vendor's own address."""
    api_key_file: str | None = None
    """File under ``CONFIG_DIR``; None: the endpoint wants no key."""
    timeouts: ModelTimeoutsConfig = ModelTimeoutsConfig()
    breaker: BreakerConfig = BreakerConfig(window=20, minimum_calls=5, open_seconds=15)


class TargetConfig(_Frozen):
    provider: str
    model: str
    input_price_per_1k: Decimal = Decimal(0)
    """USD per 1,000 tokens."""
    output_price_per_1k: Decimal = Decimal(0)
    cached_input_price_per_1k: Decimal | None = None
    """Of input tokens that the provider served from its prompt cache; None: the input price."""
    priority: int = 0
    """Lower is tried first; within one priority targets are dealt by ``weight``."""
    weight: int = 1
    context_tokens: int = 0
    """The model's window, input and output; 0: not known."""
    max_output_tokens: int = 4096
    reasoning: Literal["", "low", "medium", "high"] = ""
    """How much the model thinks before it answers; "": its own default, or none."""


class RoutingRule(_Frozen):
    """An operator's own word, before the strategy's: the first rule that matches decides."""

    when: str
    """A condition in a small subset of CEL, see ``core/routing_rules.py``: ``systems >= 3 || "finance" in groups``."""
    tier: Tier


class HedgeConfig(_Frozen):
    """A second target is asked beside the first where that is slow."""

    after_seconds: float
    """Without a first token."""
    budget_percent: float = 5
    """Of a worker's calls that may be hedged."""


class RouteConfig(_Frozen):
    providers: tuple[ProviderConfig, ...]
    tiers: dict[Tier, tuple[TargetConfig, ...]]
    default_tier: Tier
    fallback: tuple[Tier, ...] = ()
    strategy: Literal["Complexity", "Embedding", "Fixed"] = "Complexity"
    rules: tuple[RoutingRule, ...] = ()
    examples_file: str = ""
    """With strategy Embedding: file under ``CONFIG_DIR`` with labelled examples, JSON lines {"text", "tier"}."""
    escalate: bool = True
    """A plan that can't be carried out (unknown tools, wrong arguments) is made again, once, by the next tier."""
    cache_seconds: float = 0
    """How long the answer to an equal call may be used again; 0: never."""
    hedge: HedgeConfig | None = None


class LimitsConfig(_Frozen):
    """What a tenant may use, of all its workers; 0 or None: no limit."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    concurrent_runs: int = 64
    daily_budget_micros: int | None = None
    """Micro-dollars a day (UTC); above it nothing is begun."""
    soft_budget_percent: int = 80
    """Of the daily budget: above it the cheapest tier serves what it can, and operators are told."""
    user_requests_per_minute: int = 0
    """Of one user."""
    user_tokens_per_minute: int = 0
    max_workers: int = 4
    """How many workers the tenant may have: what one takes as its share while nobody can tell how many live."""


class ApprovalRule(_Frozen):
    match: str
    """Glob over tool names without the connector's prefix."""
    by: Literal["User", "Manager", "Group", "Nobody"] = "User"
    """Nobody: tools that match are called without asking, even destructive ones."""
    group: str = ""
    """With by Group: its name, as the identity provider's token has it."""


class EffectRule(_Frozen):
    match: str
    """Glob over tool names without the connector's prefix."""
    effect: Literal["Read", "Write", "Destructive"]


class SecretValue(_Frozen):
    """One key of a Secret that a connector refers to; where it lies is the credentials backend's business."""

    secret: str
    key: str


class OAuthConfig(_Frozen):
    """Mode UserOAuth: RFC 6749 authorization code with PKCE (RFC 7636)."""

    authorization_url: str = ""
    """"" with all three: no user can link an account herself, only ``accounts`` count."""
    token_url: str = ""
    revocation_url: str = ""
    """RFC 7009; "" where the system has none."""
    client_id: SecretValue | None = None
    client_secret: SecretValue | None = None
    scopes: tuple[str, ...] = ()
    accounts: SecretValue | None = None
    """JSON {user e-mail: access token}: accounts that an administrator has linked."""


class TokenExchangeConfig(_Frozen):
    """Mode TokenExchange."""

    token_url: str
    audience: str
    grant: Literal["RFC8693", "EntraOnBehalfOf"] = "RFC8693"
    client_id: SecretValue
    client_secret: SecretValue
    scopes: tuple[str, ...] = ()


class JWTBearerConfig(_Frozen):
    """Mode JWTBearer (RFC 7523)."""

    token_url: str
    issuer: str
    audience: str
    private_key: SecretValue
    """PEM, RSA; signs RS256."""


class ServiceAccountConfig(_Frozen):
    """Mode ServiceAccount."""

    token: SecretValue
    writes_allowed: bool = False
    name: str = ""
    """How the run's record names it; "" : the connector's name."""


class OpenAPIConfig(_Frozen):
    """Type openapi."""

    document_url: str = ""
    """Fetched by the worker; "" where ``document_file`` holds it."""
    document_file: str = ""
    """File under ``CONFIG_DIR`` with the document, JSON or YAML."""
    operations: tuple[str, ...] = ("*",)
    """Globs over operation ids."""


class ConnectorConfig(_Frozen):
    name: str
    type: ConnectorTypeName
    url: str
    auth_mode: Literal["UserOAuth", "TokenExchange", "JWTBearer", "ServiceAccount"]
    """Exactly the one of the next four that goes with it is set."""
    oauth: OAuthConfig | None = None
    token_exchange: TokenExchangeConfig | None = None
    jwt_bearer: JWTBearerConfig | None = None
    service_account: ServiceAccountConfig | None = None
    openapi: OpenAPIConfig | None = None
    """With type openapi."""
    api_version: str = ""
    """Salesforce: for example v66.0; "": the connector's own."""
    allow: tuple[str, ...] = ("*",)
    """Globs over tool names without the connector's prefix, e.g. ``issue.*``."""
    deny: tuple[str, ...] = ()
    """Likewise; what matches is not there, even where ``allow`` names it."""
    approvals: tuple[ApprovalRule, ...] = ()
    """The first rule that matches a tool counts. Where none does, a destructive tool waits for the asking user."""
    effects: tuple[EffectRule, ...] = ()
    """What a tool does where the connector's own word is not to be taken; the first that matches counts."""
    timeout_seconds: float = 5
    attempts: int = 3
    """Tries of a safe call, the first one included."""
    concurrent_calls: int = 32
    """Calls at a time of one worker; more of them wait."""
    requests_per_minute: int = 0
    """Calls a minute of one worker; 0: only the system's own limits count."""
    cache_seconds: float = 0
    """How long a read's result serves the same user again; 0: not at all."""
    breaker: BreakerConfig = BreakerConfig()

    @property
    def writes_allowed(self) -> bool:
        """False for a service account that may only read."""
        return self.service_account is None or self.service_account.writes_allowed


class VaultConfig(_Frozen):
    """Where and as whom a worker finds its tenant's credentials in Vault (or OpenBao)."""

    address: str
    mount: str
    """Of the KV v2 engine."""
    prefix: str
    """Under the mount, ``<namespace>/<tenant>``: ``<prefix>/secrets`` (one entry, fields ``<secret>.<key>``) holds what
    Secrets hold elsewhere, ``<prefix>/users/<user>/<connector>`` one linked account."""
    auth_mount: str = "kubernetes"
    role: str
    token_file: str
    """The Pod's ServiceAccount token for this Vault, renewed by the kubelet."""
    ca_file: str = ""
    """File under ``CONFIG_DIR`` with the authority of the server's certificate; "": those that the image trusts."""


class CredentialsConfig(_Frozen):
    """Where the tenant's credentials are. Backend Kubernetes: ``SecretValue`` is the file ``secret.<secret>.<key>``
    under ``CONFIG_DIR``, and linked accounts lie in PostgreSQL, sealed under the keys in ``secret.<keys_secret>.*``."""

    backend: Literal["Kubernetes", "Vault"] = "Kubernetes"
    vault: VaultConfig | None = None
    keys_secret: str = ""
    """Backend Kubernetes: the Secret with keys ``key.1``, ``key.2``, …: 32 random bytes each, base64; the highest
    seals, all open. ``""``: none, so no user can link an account herself."""


class AgentConfig(_Frozen):
    instructions: str
    max_steps: int = 8
    deadline_seconds: float = 30
    """Without the time that a run waits for approvals."""
    run_budget_micros: int | None = None
    """Micro-dollars that the model calls of one run may cost; None: no bound."""
    parallel_calls: int = 8
    """Tool calls at a time of one run."""
    approval_seconds: float = 3600
    """An approval that nobody has decided after this long counts as refused."""


class WorkerConfig(_Frozen):
    schema_version: Literal[1] = 1
    tenant: str
    namespace: str
    display_name: str
    revision: str
    agent: AgentConfig
    route: RouteConfig
    connectors: tuple[ConnectorConfig, ...] = ()
    credentials: CredentialsConfig = CredentialsConfig()
    egress: EgressRule = EgressRule()
    public_url: str = ""
    """Where people reach the gateway, without a slash at its end; "": links to it can't be given."""
    short_term_ttl_seconds: int = 86400
    limits: LimitsConfig = LimitsConfig()
    concurrent_runs: int = 64
    """Of one worker: its own bound, beside ``limits.concurrent_runs`` of all."""


def digest(files: Mapping[str, bytes]) -> str:
    """``sha256:`` and 16 hex digits over the Secret's files (name → content), the same for operator and worker."""
    sha = hashlib.sha256()
    for name in sorted(files):
        content = files[name]
        sha.update(f"{len(name)}:{name}:{len(content)}:".encode())
        sha.update(content)
    return f"sha256:{sha.hexdigest()[:16]}"
