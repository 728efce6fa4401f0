"""Tenant: one customer, with its agent, workers, limits and identity providers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pilothouse_api.meta import (
    AGE,
    HTTPSURL,
    HTTPURL,
    UUID,
    Column,
    Duration,
    Int,
    Kind,
    LocalRef,
    Model,
    Money,
    Status,
    about,
    condition_column,
)
from pilothouse_api.rules import Rule, matches


class OIDC(Model):
    """Sign-in by OpenID Connect, for the WebSocket page."""

    issuer_url: Annotated[
        HTTPSURL,
        about("The issuer, as in its tokens' iss claim; keys are found from it.", "https://login.acme.example"),
    ]
    audience: Annotated[
        str, about("The aud claim that a token must carry.", "pilothouse", min_length=1, max_length=253)
    ] = "pilothouse"
    user_claim: Annotated[
        str, about("The claim that names the user; connectors know users by it.", "email", min_length=1, max_length=63)
    ] = "email"


class Slack(Model):
    """The Slack workspace whose members are this tenant's users."""

    team_id: Annotated[
        str,
        about("The workspace's id.", "T0ACME", max_length=24),
        matches("[TE][A-Z0-9]{2,20}", "must be a Slack workspace id, such as T0ACME (Slack shows it in the address)"),
    ]
    credentials_secret_ref: Annotated[
        LocalRef, about("Secret with the app's keys signing-secret and bot-token.", {"name": "acme-slack"})
    ]


class Teams(Model):
    """The Microsoft 365 tenant whose members are this tenant's users."""

    tenant_id: Annotated[UUID, about("Directory (tenant) id in Entra.", "7f1c0b7e-5d0a-4c43-9d51-0a8f6c1f2b11")]
    app_id: Annotated[UUID, about("Application (client) id of the bot.", "3b2a4d0e-98a5-4f0c-8f35-1f1f4a1f6f22")]
    credentials_secret_ref: Annotated[
        LocalRef, about("Secret with the app's key client-secret.", {"name": "acme-teams"})
    ]


class Identity(Model):
    """Where this tenant's users come from. Each part is optional; a channel without its part refuses everybody."""

    oidc: Annotated[OIDC | None, about("Sign-in by OpenID Connect, for the WebSocket page.")] = None
    slack: Annotated[Slack | None, about("The Slack workspace whose members are this tenant's users.")] = None
    teams: Annotated[Teams | None, about("The Microsoft 365 tenant whose members are this tenant's users.")] = None


class AgentTemplate(Model):
    """What an agent revision is made of."""

    model_route_ref: Annotated[
        LocalRef, about("The ModelRoute that says which models plan and answer.", {"name": "standard"})
    ]
    instructions: Annotated[
        str,
        about(
            "What the agent is told about its task, before each request.",
            "You help Acme's employees with IT, HR and sales requests.",
            max_length=16384,
        ),
    ] = "You help this company's employees with their requests."
    max_steps: Annotated[
        Int,
        about("Most rounds of plan, act and observe in one request; then it answers with what it has.", 8, ge=1, le=64),
    ] = 8
    deadline: Annotated[Duration, about("Longest time for one request, waiting for approvals aside.", "30s")] = "30s"
    budget_usd: Annotated[
        Money | None,
        about(
            "Most USD that the model calls of one request may cost, as a string; then it answers with what it has. "
            "Unset: no limit.",
            "0.25",
        ),
        Rule(
            cel="self.matches('[1-9]')",
            message="must be above zero, else no request could be answered: raise budgetUSD, or remove it",
            holds=lambda amount: amount > 0,
        ),
    ] = None
    approval_for: Annotated[
        Duration, about("How long a write waits for a person's yes; then it counts as refused.", "1h")
    ] = "1h"
    image: Annotated[
        str | None,
        about(
            "The worker's image. Unset: the operator's own.",
            "registry.example/pilothouse:0.1.0",
            min_length=1,
            max_length=512,
        ),
        matches("[^ ]+", "must be an image reference without spaces, such as registry.example/pilothouse:0.1.0"),
    ] = None


class Workers(Model):
    """How many workers run; between the two bounds the load decides."""

    min_replicas: Annotated[Int, about("Fewest workers.", 1, ge=1, le=1000)] = 1
    max_replicas: Annotated[Int, about("Most workers.", 4, ge=1, le=1000)] = 4

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.minReplicas <= self.maxReplicas",
            message="minReplicas is above maxReplicas (4 where it is not set): raise maxReplicas or lower minReplicas",
            holds=lambda workers: workers.min_replicas <= workers.max_replicas,
        ),
    )


class Memory(Model):
    """How long the agent remembers."""

    short_term_ttl: Annotated[
        Duration, about("How long a conversation's messages are kept after the last of them.", "24h")
    ] = "24h"
    working_ttl: Annotated[Duration, about("How long a request's scratch data is kept.", "1h")] = "1h"
    long_term_ttl: Annotated[Duration, about("How long preferences and summaries are kept.", "180d")] = "180d"
    context_tokens: Annotated[
        Int, about("Most tokens of memory given to a model in one call.", 32000, ge=1000, le=2_000_000)
    ] = 32000


class UserLimits(Model):
    """What one user may use, so that nobody takes all that the tenant may."""

    requests_per_minute: Annotated[
        Int | None, about("Most requests a minute. Unset: only the tenant's limit.", 20, ge=1, le=1_000_000)
    ] = None
    tokens_per_minute: Annotated[
        Int | None,
        about("Most model tokens a minute. Unset: only the tenant's limit.", 40_000, ge=1, le=1_000_000_000),
    ] = None


class Limits(Model):
    """What a tenant may use; above it users are told to wait."""

    requests_per_minute: Annotated[Int, about("Most requests a minute, of all users.", 600, ge=1, le=1_000_000)] = 600
    tokens_per_minute: Annotated[
        Int, about("Most model tokens a minute, input and output.", 400_000, ge=1, le=1_000_000_000)
    ] = 400_000
    concurrent_runs: Annotated[Int, about("Most requests in work at a time, of all workers.", 64, ge=1, le=100_000)] = (
        64
    )
    daily_budget_usd: Annotated[
        Money | None, about("Most USD a day (UTC) for models, as a string. Unset: no limit.", "250")
    ] = None
    soft_budget_percent: Annotated[
        Int,
        about(
            "Of dailyBudgetUSD: above it the cheapest tier serves what it can, and operators are told.",
            80,
            ge=1,
            le=100,
        ),
    ] = 80
    per_user: Annotated[
        UserLimits, about("What one user may use. Unset: only the tenant's limits.", {"requestsPerMinute": 20})
    ] = UserLimits()

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.perUser.requestsPerMinute) || self.perUser.requestsPerMinute <= self.requestsPerMinute",
            message="perUser.requestsPerMinute is above requestsPerMinute (600 where it is not set) of all users: "
            "lower it or raise the other",
            holds=lambda limits: (
                limits.per_user.requests_per_minute is None
                or limits.per_user.requests_per_minute <= limits.requests_per_minute
            ),
        ),
        Rule(
            cel="!has(self.perUser.tokensPerMinute) || self.perUser.tokensPerMinute <= self.tokensPerMinute",
            message="perUser.tokensPerMinute is above tokensPerMinute (400000 where it is not set) of all users: "
            "lower it or raise the other",
            holds=lambda limits: (
                limits.per_user.tokens_per_minute is None
                or limits.per_user.tokens_per_minute <= limits.tokens_per_minute
            ),
        ),
    )


MountPath = Annotated[
    str,
    Field(max_length=128),
    matches(
        "[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*",
        "must be a mount's path of letters, digits, '-' and '_' without a '/' at its ends, such as kv or teams/kv",
    ),
]


class Vault(Model):
    """A Vault (or OpenBao) server that holds the tenant's credentials."""

    address: Annotated[HTTPURL, about("Address of the server.", "https://vault.acme.example:8200")]
    mount: Annotated[MountPath, about("Path of the KV v2 engine.", "kv")] = "kv"
    auth_mount: Annotated[MountPath, about("Path of the Kubernetes auth method.", "kubernetes")] = "kubernetes"
    role: Annotated[
        str,
        about(
            "Role for Kubernetes authentication. The operator makes it, for this Tenant's workers alone: no two "
            "Tenants may share one.",
            "acme",
            max_length=128,
        ),
        matches(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?", "must be a role's name, such as acme"),
    ]
    ca_secret_ref: Annotated[
        LocalRef | None,
        about(
            "Secret whose key ca.crt holds the authority that signed the server's certificate (PEM). Unset: one that "
            "the image trusts.",
            {"name": "acme-vault-ca"},
        ),
    ] = None


class Credentials(Model):
    """Where the users' and the connectors' credentials are kept."""

    backend: Annotated[
        Literal["Kubernetes", "Vault"],
        about(
            "Kubernetes: Secrets in this namespace; accounts that users link are sealed in the database. Vault: the "
            "server below, for both.",
            "Vault",
        ),
    ] = "Kubernetes"
    vault: Annotated[Vault | None, about("The Vault server; with backend Vault, and only then.")] = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="(self.backend == 'Vault') == has(self.vault)",
            message="backend Vault needs vault, and backend Kubernetes has none: set both or neither",
            holds=lambda credentials: (credentials.backend == "Vault") == (credentials.vault is not None),
        ),
    )


class TenantSpec(Model):
    """What the tenant shall be."""

    display_name: Annotated[str, about("The name that people read.", "Acme", min_length=1, max_length=100)]
    identity: Annotated[
        Identity,
        about(
            "Where this tenant's users come from: oidc, slack, teams, or several. "
            "A channel without its part refuses everybody.",
            {"oidc": {"issuerURL": "https://login.acme.example"}},
        ),
    ] = Identity()
    agent: Annotated[AgentTemplate, about("The agent where no Rollout governs it.")]
    workers: Annotated[Workers, about("How many workers run.")] = Workers()
    memory: Annotated[Memory, about("How long the agent remembers.")] = Memory()
    limits: Annotated[Limits, about("What the tenant may use; above it users are told to wait.")] = Limits()
    credentials: Annotated[Credentials, about("Where the users' and the connectors' credentials are kept.")] = (
        Credentials()
    )


class TenantStatus(Status):
    """What the tenant is."""

    workers: Annotated[Int | None, about("Workers that shall run.", 2, ge=0)] = None
    ready_workers: Annotated[
        Int | None, about("Workers that run exactly the configuration of configHash.", 2, ge=0)
    ] = None
    config_hash: Annotated[
        str | None,
        about("Digest of the configuration that the workers shall load.", "sha256:0a1b2c3d4e5f6071", max_length=128),
    ] = None
    revision: Annotated[str | None, about("The agent revision that new sessions get.", "acme-7c9f", max_length=253)] = (
        None
    )


class Tenant(Kind):
    """A customer: its agent, its workers, its users and its limits. One Tenant per namespace is recommended."""

    plural: ClassVar[str] = "tenants"
    short_names: ClassVar[tuple[str, ...]] = ("tn",)
    name_limit: ClassVar[int] = 40
    columns: ClassVar[tuple[Column, ...]] = (
        condition_column("Ready", "Ready", "status", "True: every worker runs this configuration."),
        condition_column("Reason", "Ready", "reason", "Why it is ready or not."),
        Column(
            name="Up", path=".status.readyWorkers", type="integer", description="Workers that run the configuration."
        ),
        Column(name="Workers", path=".status.workers", type="integer", description="Workers that shall run."),
        Column(name="Revision", path=".status.revision", description="The agent revision that new sessions get."),
        Column(name="Route", path=".spec.agent.modelRouteRef.name", description="The agent's ModelRoute.", wide=True),
        condition_column(
            "Credentials", "CredentialsReady", "status", "True: the workers can read and keep credentials.", wide=True
        ),
        Column(name="Config", path=".status.configHash", description="Digest of the configuration.", wide=True),
        condition_column("Message", "Ready", "message", "What to do.", wide=True),
        AGE,
    )

    kind: Literal["Tenant"] = "Tenant"
    spec: Annotated[TenantSpec, about("What the tenant shall be.")]
    status: Annotated[TenantStatus, about("What the tenant is; the operator writes it.")] = TenantStatus()
