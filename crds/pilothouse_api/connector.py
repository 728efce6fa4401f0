"""Connector: one enterprise system that a tenant's agent may act in, as the asking user."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pilothouse_api.meta import (
    AGE,
    HTTPURL,
    Column,
    Duration,
    Int,
    KeyRef,
    Kind,
    LocalRef,
    Model,
    Status,
    about,
    condition_column,
)
from pilothouse_api.rules import ListOf, Rule, Transition, immutable, matches

ConnectorType = Literal["servicenow", "jira", "salesforce", "okta", "openapi", "mcp"]
AuthMode = Literal["UserOAuth", "TokenExchange", "JWTBearer", "ServiceAccount"]

Scope = Annotated[
    str, Field(max_length=253), matches("[!#-~]+", "must be an OAuth scope without spaces, such as read:jira-work")
]
ToolGlob = Annotated[
    str,
    Field(max_length=128),
    matches(r"[A-Za-z0-9_.*?/-]+", "must be a tool's name or a glob over names, such as issue.* or issue.delete"),
]


class OAuth(Model):
    """Each user links her own account; the agent then acts with her token."""

    client_secret_ref: Annotated[
        LocalRef | None,
        about(
            "Secret with the OAuth app's keys client-id and client-secret; with it users link accounts themselves.",
            {"name": "acme-jira-oauth"},
        ),
    ] = None
    authorization_url: Annotated[
        HTTPURL | None,
        about(
            "Where users grant access. Unset: the vendor's own path under spec.url; openapi and mcp have none.",
            "https://auth.atlassian.com/authorize",
        ),
    ] = None
    token_url: Annotated[
        HTTPURL | None,
        about(
            "Where codes and refresh tokens become access tokens. Unset: as with authorizationURL.",
            "https://auth.atlassian.com/oauth/token",
        ),
    ] = None
    revocation_url: Annotated[
        HTTPURL | None,
        about(
            "Where tokens are revoked when a user unlinks her account (RFC 7009). Unset: the vendor's own path, and "
            "none beside an authorizationURL that is set.",
            "https://acme.okta.example/oauth2/v1/revoke",
        ),
    ] = None
    scopes: Annotated[
        tuple[Scope, ...],
        about("What users are asked to grant.", ["read:jira-work", "write:jira-work"], max_length=64),
        ListOf(),
    ] = ()
    linked_accounts_secret_ref: Annotated[
        LocalRef | None,
        about(
            "Secret whose key accounts.json maps a user's e-mail to her access token: accounts that an administrator "
            "has linked.",
            {"name": "acme-jira-accounts"},
        ),
    ] = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.clientSecretRef) || has(self.linkedAccountsSecretRef)",
            message="no user could link an account: set clientSecretRef, linkedAccountsSecretRef, or both",
            holds=lambda oauth: bool(oauth.client_secret_ref or oauth.linked_accounts_secret_ref),
        ),
        Rule(
            cel="has(self.authorizationURL) == has(self.tokenURL)",
            message="authorizationURL and tokenURL are one server's: set both, or neither for the vendor's own",
            holds=lambda oauth: (oauth.authorization_url is None) == (oauth.token_url is None),
        ),
    )


class TokenExchange(Model):
    """The user's sign-in token is exchanged for one of the external system (RFC 8693, or Entra's on-behalf-of)."""

    grant: Annotated[
        Literal["RFC8693", "EntraOnBehalfOf"],
        about(
            "What the authorization server speaks: token exchange, or Microsoft Entra's on-behalf-of.",
            "RFC8693",
        ),
    ] = "RFC8693"

    token_url: Annotated[
        HTTPURL, about("Token endpoint of the authorization server.", "https://login.acme.example/oauth2/token")
    ]
    audience: Annotated[
        str,
        about(
            "The external system, as the authorization server names it.",
            "https://acme.example/jira",
            min_length=1,
            max_length=2048,
        ),
    ]
    client_secret_ref: Annotated[
        LocalRef, about("Secret with the exchanging app's keys client-id and client-secret.", {"name": "acme-exchange"})
    ]
    scopes: Annotated[
        tuple[Scope, ...], about("What the exchanged token may do.", ["read:jira-work"], max_length=64), ListOf()
    ] = ()


class JWTBearer(Model):
    """A signed assertion names the user and is exchanged for her token (RFC 7523), as Salesforce does."""

    token_url: Annotated[
        HTTPURL, about("Token endpoint of the external system.", "https://login.salesforce.com/services/oauth2/token")
    ]
    issuer: Annotated[
        str, about("The assertion's iss: the connected app's consumer key.", "3MVG9acme", min_length=1, max_length=512)
    ]
    audience: Annotated[
        str, about("The assertion's aud.", "https://login.salesforce.com", min_length=1, max_length=2048)
    ]
    private_key_secret_ref: Annotated[
        LocalRef, about("Secret whose key private-key signs assertions (PEM).", {"name": "acme-salesforce-jwt"})
    ]


class ServiceAccount(Model):
    """One account for all users: only where the system knows no users. Reads only, unless writes says Allow."""

    token_secret_ref: Annotated[
        LocalRef, about("Secret whose key token is sent as a bearer token.", {"name": "acme-kb-token"})
    ]
    writes: Annotated[
        Literal["Deny", "Allow"], about("Allow: tools that change something may be called, too.", "Deny")
    ] = "Deny"


def _only_with(mode: AuthMode, field: str, attribute: str) -> Rule:
    return Rule(
        cel=f"(self.mode == '{mode}') == has(self.{field})",
        message=f"{field} goes with mode {mode} and with no other: set {field} and mode {mode}, or remove {field}",
        holds=lambda auth: (auth.mode == mode) == (getattr(auth, attribute) is not None),
    )


class Auth(Model):
    """As whom the agent acts. Exactly the one object of the mode is set."""

    mode: Annotated[
        AuthMode,
        about(
            "UserOAuth: the user's own linked account. TokenExchange: her sign-in token, exchanged. JWTBearer: a "
            "signed assertion about her. ServiceAccount: one account for all, reads only unless it says otherwise.",
            "UserOAuth",
        ),
    ]
    oauth: Annotated[
        OAuth | None,
        about(
            "With mode UserOAuth: how accounts are linked.", {"linkedAccountsSecretRef": {"name": "acme-jira-accounts"}}
        ),
    ] = None
    token_exchange: Annotated[TokenExchange | None, about("With mode TokenExchange: where tokens are exchanged.")] = (
        None
    )
    jwt_bearer: Annotated[JWTBearer | None, about("With mode JWTBearer: who signs, and where it is sent.")] = None
    service_account: Annotated[ServiceAccount | None, about("With mode ServiceAccount: the one account.")] = None

    rules: ClassVar[tuple[Rule, ...]] = (
        _only_with("UserOAuth", "oauth", "oauth"),
        _only_with("TokenExchange", "tokenExchange", "token_exchange"),
        _only_with("JWTBearer", "jwtBearer", "jwt_bearer"),
        _only_with("ServiceAccount", "serviceAccount", "service_account"),
    )


class Approval(Model):
    """Tools that wait for a person's yes, or that do not although they destroy."""

    match: Annotated[ToolGlob, about("Tools, by name or glob.", "issue.delete")]
    by: Annotated[
        Literal["User", "Manager", "Group", "Nobody"],
        about(
            "Who decides: the asking user, her manager, or anybody of group. Nobody: what matches is done without "
            "asking, even what destroys.",
            "User",
        ),
    ] = "User"
    group: Annotated[
        str | None,
        about(
            "With by Group: the group, as the users' sign-in tokens name it.",
            "it-approvers",
            min_length=1,
            max_length=256,
        ),
    ] = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="(self.by == 'Group') == has(self.group)",
            message="group goes with by Group and with no other: set group and by: Group, or remove group",
            holds=lambda approval: (approval.by == "Group") == (approval.group is not None),
        ),
    )


class EffectOverride(Model):
    """What tools do, where the connector's own word is not to be taken."""

    match: Annotated[ToolGlob, about("Tools, by name or glob.", "reports.run")]
    effect: Annotated[
        Literal["Read", "Write", "Destructive"],
        about(
            "Read: changes nothing, so it is repeated and kept freely. Write: is sent once. Destructive: waits for a "
            "person's yes, unless an approval says otherwise.",
            "Read",
        ),
    ]


class Tools(Model):
    """What the agent may call. Names are without the connector's own prefix."""

    allow: Annotated[
        tuple[ToolGlob, ...],
        about(
            "Tools that the agent may call, by name or glob; the external system's permissions apply on top.",
            ["issue.*"],
            max_length=128,
        ),
        ListOf(),
    ] = ("*",)
    deny: Annotated[
        tuple[ToolGlob, ...],
        about(
            "Tools that the agent may not call, by name or glob, even where allow names them.",
            ["issue.delete"],
            max_length=128,
        ),
        ListOf(),
    ] = ()
    approvals: Annotated[
        tuple[Approval, ...],
        about(
            "Tools that wait for a person's yes; the first entry that matches a tool says whose. What destroys and "
            "matches none waits for the asking user.",
            [{"match": "issue.delete", "by": "User"}],
            max_length=128,
        ),
        ListOf("match"),
    ] = ()
    effects: Annotated[
        tuple[EffectOverride, ...],
        about(
            "What tools do, where the connector's own word (for openapi, the HTTP method's) is not to be taken; the "
            "first entry that matches counts.",
            [{"match": "reports.run", "effect": "Read"}],
            max_length=128,
        ),
        ListOf("match"),
    ] = ()


class Retry(Model):
    """Tries of a call that is safe to repeat. A write is never tried again blindly."""

    attempts: Annotated[Int, about("Tries in all, the first one included.", 3, ge=1, le=10)] = 3


class Breaker(Model):
    """When to stop calling a system that fails or is slow, with resilience4j's semantics."""

    window_type: Annotated[
        Literal["Count", "Time"],
        about("What window counts. Count: the last calls. Time: the calls of the last seconds.", "Count"),
    ] = "Count"
    window: Annotated[
        Int, about("The sliding window: calls, or seconds with windowType Time.", 20, ge=1, le=10_000)
    ] = 20
    minimum_calls: Annotated[
        Int,
        about("Calls in the window before its rates count; at most window with windowType Count.", 10, ge=1, le=10_000),
    ] = 10
    failure_rate_percent: Annotated[Int, about("Failed calls of 100 that open the breaker.", 50, ge=1, le=100)] = 50
    slow_call_after: Annotated[
        Duration | None,
        about("A call that takes longer is slow; below resilience.timeout. Unset: no call is slow.", "1500ms"),
    ] = None
    slow_call_rate_percent: Annotated[
        Int, about("Slow calls of 100 that open the breaker, whether they succeed or fail.", 80, ge=1, le=100)
    ] = 100
    open_for: Annotated[Duration, about("How long calls fail at once before some are tried again.", "30s")] = "30s"
    half_open_calls: Annotated[
        Int, about("Calls that are tried then; their rates close the breaker or open it again.", 3, ge=1, le=1000)
    ] = 3
    half_open_for: Annotated[
        Duration,
        about(
            "How long their verdict may take; then those that came back decide, and one still away counts as failed "
            "and slow.",
            "30s",
        ),
    ] = "30s"

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.windowType != 'Count' || self.minimumCalls <= self.window",
            message="minimumCalls (10 where it is not set) is above window, so the breaker could never open: "
            "lower minimumCalls or raise window",
            holds=lambda breaker: breaker.window_type != "Count" or breaker.minimum_calls <= breaker.window,
        ),
        Rule(
            cel="has(self.slowCallAfter) || self.slowCallRatePercent == 100",
            message="slowCallRatePercent says nothing without slowCallAfter, since no call is slow then: "
            "set slowCallAfter, or remove slowCallRatePercent",
            holds=lambda breaker: breaker.slow_call_after is not None or breaker.slow_call_rate_percent == 100,
        ),
    )


class RateLimit(Model):
    """A bound below the system's own, so that people and other programs have their share of it."""

    requests_per_minute: Annotated[
        Int, about("Most calls a minute of one worker; more of them wait.", 120, ge=1, le=1_000_000)
    ]


class Resilience(Model):
    """What happens when the external system is slow or fails."""

    timeout: Annotated[Duration, about("Longest time for one call.", "2s")] = "5s"
    retry: Annotated[Retry, about("Tries of a call that is safe to repeat.")] = Retry()
    breaker: Annotated[Breaker, about("When to stop calling a system that fails or is slow.")] = Breaker()
    rate_limit: Annotated[
        RateLimit | None,
        about("Most calls a minute. Unset: only the system's own limits count.", {"requestsPerMinute": 120}),
    ] = None


class ReadCache(Model):
    """Results of reads that serve the same user again."""

    ttl: Annotated[
        Duration, about("How long; what changes in the system meanwhile is not seen, so a short one is best.", "15s")
    ]


_ONE_DOCUMENT = "has(self.{}) ? 1 : 0"


class Document(Model):
    """An OpenAPI document, version 3, in JSON or YAML. Exactly one of the three says where it is."""

    url: Annotated[
        HTTPURL | None,
        about(
            "Address from which the workers fetch it, without a credential.", "https://api.acme.example/openapi.json"
        ),
    ] = None
    config_map_key_ref: Annotated[
        KeyRef | None, about("Key of a ConfigMap that holds it.", {"name": "acme-kb-api", "key": "openapi.json"})
    ] = None
    secret_key_ref: Annotated[
        KeyRef | None, about("Key of a Secret that holds it.", {"name": "acme-kb-api", "key": "openapi.json"})
    ] = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=" + ".join(f"({_ONE_DOCUMENT.format(name)})" for name in ("url", "configMapKeyRef", "secretKeyRef"))
            + " == 1",
            message="the document is in one place: set exactly one of url, configMapKeyRef and secretKeyRef",
            holds=lambda document: (
                sum(part is not None for part in (document.url, document.config_map_key_ref, document.secret_key_ref))
                == 1
            ),
        ),
    )


OperationGlob = Annotated[
    str,
    Field(max_length=128),
    matches("[!-~]+", "must be an operation's id or a glob over ids without spaces, such as get* or listArticles"),
]


class OpenAPI(Model):
    """An API that an OpenAPI document describes; each operation is a tool."""

    document: Annotated[
        Document,
        about("Where the document is.", {"configMapKeyRef": {"name": "acme-kb-api", "key": "openapi.json"}}),
    ]
    operations: Annotated[
        tuple[OperationGlob, ...],
        about("Operations that become tools, by id or glob.", ["get*", "listArticles"], max_length=256, min_length=1),
        ListOf(),
    ] = ("*",)


_LINKING_CEL = "has(self.auth.oauth) && has(self.auth.oauth.clientSecretRef)"


def _links_without_address(spec: ConnectorSpec) -> bool:
    oauth = spec.auth.oauth
    return (
        spec.type in ("openapi", "mcp")
        and oauth is not None
        and oauth.client_secret_ref is not None
        and oauth.authorization_url is None
    )


class ConnectorSpec(Model):
    """What the connector shall be."""

    tenant_ref: Annotated[LocalRef, about("The Tenant whose agent uses it. Cannot change.", {"name": "acme"})]
    type: Annotated[ConnectorType, about("The external system's kind. Cannot change.", "jira")]
    url: Annotated[
        HTTPURL,
        about(
            "Address of the system; for openapi, the base address of the API; for mcp, of the server's endpoint.",
            "https://acme.example/jira",
        ),
    ]
    auth: Annotated[
        Auth,
        about(
            "As whom the agent acts: a mode, and the object of that mode.",
            {"mode": "UserOAuth", "oauth": {"linkedAccountsSecretRef": {"name": "acme-jira-accounts"}}},
        ),
    ]
    tools: Annotated[Tools, about("What the agent may call, and what waits for a person's yes.")] = Tools()
    resilience: Annotated[Resilience, about("Timeout, retries, circuit breaker and rate limit.")] = Resilience()
    cache: Annotated[
        ReadCache | None,
        about("Use a read's result again for the same user. Unset: each read asks the system.", {"ttl": "15s"}),
    ] = None
    openapi: Annotated[
        OpenAPI | None,
        about(
            "With type openapi, and only then: the document, and what of it is used.",
            {"document": {"configMapKeyRef": {"name": "acme-kb-api", "key": "openapi.json"}}},
        ),
    ] = None
    api_version: Annotated[
        str | None,
        about(
            "With type salesforce: the API's version. Unset: the one that this release knows.", "v66.0", max_length=8
        ),
        matches(r"v[0-9]{2,3}\.0", "must be a version of Salesforce's API, such as v66.0"),
    ] = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="(self.type == 'openapi') == has(self.openapi)",
            message="openapi goes with type openapi and with no other: set openapi.document, or remove openapi",
            holds=lambda spec: (spec.type == "openapi") == (spec.openapi is not None),
        ),
        Rule(
            cel="self.type == 'salesforce' || !has(self.apiVersion)",
            message="apiVersion goes with type salesforce and with no other: remove it",
            holds=lambda spec: spec.type == "salesforce" or spec.api_version is None,
        ),
        Rule(
            cel=f"!(self.type in ['openapi', 'mcp'] && {_LINKING_CEL} && !has(self.auth.oauth.authorizationURL))",
            message="openapi and mcp have no authorization server of their own: "
            "set auth.oauth.authorizationURL and tokenURL",
            holds=lambda spec: not _links_without_address(spec),
        ),
    )
    transitions: ClassVar[tuple[Transition, ...]] = (
        immutable("tenantRef", "tenant_ref", "delete this Connector and create one for the other tenant"),
        immutable("type", "type", "delete this Connector and create one of the other type under another name"),
    )


class ConnectorStatus(Status):
    """What the connector is."""

    tools: Annotated[
        Int | None, about("Tools that the agent may call, as a worker that has loaded it counts them.", 12, ge=0)
    ] = None


class Connector(Kind):
    """An external system that a tenant's agent may act in, as the asking user and with her permissions."""

    plural: ClassVar[str] = "connectors"
    short_names: ClassVar[tuple[str, ...]] = ("conn",)
    selectable: ClassVar[tuple[str, ...]] = (".spec.tenantRef.name", ".spec.type")
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="Tenant", path=".spec.tenantRef.name", description="The Tenant whose agent uses it."),
        Column(name="Type", path=".spec.type", description="The external system's kind."),
        Column(name="Auth", path=".spec.auth.mode", description="As whom the agent acts."),
        condition_column("Ready", "Ready", "status", "True: every worker has loaded it and can use it."),
        condition_column("Reachable", "Reachable", "status", "True: a worker reached the system when it last tried."),
        Column(name="Tools", path=".status.tools", type="integer", description="Tools that the agent may call."),
        condition_column("Reason", "Ready", "reason", "Why it is ready or not."),
        Column(name="URL", path=".spec.url", description="Address of the system.", wide=True),
        condition_column("Message", "Ready", "message", "What to do.", wide=True),
        AGE,
    )

    kind: Literal["Connector"] = "Connector"
    spec: Annotated[ConnectorSpec, about("What the connector shall be.")]
    status: Annotated[ConnectorStatus, about("What the connector is; the operator writes it.")] = ConnectorStatus()
