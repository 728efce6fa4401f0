"""What differs between the vendors' authorization servers: paths, scopes, lifetimes, rotation, words. Pure data.

Sources: Atlassian "OAuth 2.0 (3LO) apps" and "Implementing the Refresh Token Flow"; Okta "OpenID Connect & OAuth 2.0
API" and "Refresh access tokens"; ServiceNow "OAuth 2.0 authorization code grant"; Salesforce "Authorize Apps with
OAuth"; Entra "OAuth 2.0 On-Behalf-Of flow". Harder than some of them in one
point: PKCE with S256 is required everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Words = tuple[int, str, str]
"""(HTTP status, ``error``, ``error_description``)."""

COMMON_WORDS: Mapping[str, Words] = {
    "client": (401, "invalid_client", "The client credentials are invalid."),
    "code": (400, "invalid_grant", "The authorization code is invalid or has expired."),
    "redirect_uri": (400, "invalid_grant", "The redirect URI is not the one of the authorization request."),
    "verifier": (400, "invalid_grant", "PKCE verification failed."),
    "refresh": (400, "invalid_grant", "The refresh token is invalid or expired."),
    "grant_type": (400, "unsupported_grant_type", "The grant type is not supported here."),
    "scope": (400, "invalid_scope", "One or more scopes are not configured for the authorization server."),
    "assertion": (400, "invalid_grant", "The assertion is invalid."),
    "assertion_signature": (400, "invalid_grant", "The assertion's signature is invalid."),
    "assertion_audience": (400, "invalid_grant", "The assertion's audience is invalid."),
    "assertion_expired": (400, "invalid_grant", "The assertion has expired."),
    "assertion_user": (400, "invalid_grant", "The assertion names nobody whom this system knows."),
}


@dataclass(frozen=True)
class App:
    """A registered OAuth app. ``public_key``: PEM of a public key or certificate, for JWT bearer; "": none."""

    client_id: str
    client_secret: str
    name: str = "Pilothouse"
    public_key: str = ""
    approved: frozenset[str] = frozenset()
    """JWT bearer: e-mails of the users for whom an administrator has approved the app beforehand."""


@dataclass(frozen=True)
class Profile:
    """One vendor's habits."""

    system: str
    """Short name: ``jira``; the app's secret is ``pilothouse-<system>-secret``."""
    title: str
    authorize: str
    token: str
    revoke: str = ""
    """"" where the vendor has no revocation endpoint."""
    userinfo: str = ""
    userinfo_scope: str = ""
    keys: str = ""
    """Where the keys of its ID tokens are (JWKS); with it, the scope ``openid`` gives an ID token."""
    scopes: Mapping[str, str] = field(default_factory=dict)
    """Known scopes → what the consent page says of each; ``scope_required`` False: none asked for means all."""
    scope_required: bool = True
    refresh_scopes: frozenset[str] = frozenset()
    """A refresh token is given only with one of them; empty: always."""
    rotates: bool = False
    """Each refresh gives a new refresh token, and the old one serves only for the grace time."""
    access_token_seconds: int = 3600
    refresh_grace_seconds: int = 30
    tells_expiry: bool = True
    """Salesforce's answer has no ``expires_in``."""
    json_body: bool = False
    """Whether the token endpoint takes JSON as well as a form."""
    authorize_needs: Mapping[str, str] = field(default_factory=dict)
    """Parameters that the authorization request must carry, with their value."""
    token_prefix: str = ""
    jwt_bearer: bool = False
    jwt_audiences: frozenset[str] = frozenset()
    """JWT bearer: what ``aud`` may be, besides this server's own address."""
    words: Mapping[str, Words] = field(default_factory=dict)

    def say(self, reason: str) -> Words:
        """The vendor's words for a refusal."""
        return self.words.get(reason) or COMMON_WORDS[reason]


JIRA = Profile(
    system="jira",
    title="Atlassian",
    authorize="/authorize",
    token="/oauth/token",  # noqa: S106 - a path
    userinfo="/me",
    userinfo_scope="read:me",
    scopes={
        "read:jira-work": "View Jira issue data",
        "write:jira-work": "Create and manage issues",
        "read:jira-user": "View user profiles",
        "manage:jira-project": "Manage project settings",
        "manage:jira-configuration": "Manage Jira global settings",
        "read:me": "View your profile",
        "offline_access": "Act while you are away",
    },
    refresh_scopes=frozenset({"offline_access"}),
    rotates=True,
    refresh_grace_seconds=600,
    json_body=True,
    authorize_needs={"audience": "api.atlassian.com", "prompt": "consent"},
    words={
        "client": (401, "access_denied", "Unauthorized"),
        "code": (403, "invalid_grant", "Invalid authorization code"),
        "redirect_uri": (403, "invalid_grant", "Invalid redirect_uri"),
        "verifier": (403, "invalid_grant", "Failed to verify code verifier"),
        "refresh": (403, "invalid_grant", "Unknown or invalid refresh token."),
    },
)

OKTA = Profile(
    system="okta",
    title="Okta",
    authorize="/oauth2/v1/authorize",
    token="/oauth2/v1/token",  # noqa: S106 - a path
    revoke="/oauth2/v1/revoke",
    userinfo="/oauth2/v1/userinfo",
    keys="/oauth2/v1/keys",
    userinfo_scope="openid",
    scopes={
        "openid": "Sign you in",
        "profile": "View your profile",
        "email": "View your e-mail address",
        "offline_access": "Act while you are away",
        "okta.users.read": "View users",
        "okta.users.manage": "Manage users and their factors",
        "okta.users.read.self": "View your own user",
        "okta.users.manage.self": "Manage your own user",
        "okta.factors.read": "View authenticators",
        "okta.factors.manage": "Manage authenticators",
        "okta.groups.read": "View groups",
        "okta.groups.manage": "Manage groups",
        "okta.apps.read": "View applications",
        "okta.apps.manage": "Manage applications",
        "okta.logs.read": "View the system log",
    },
    refresh_scopes=frozenset({"offline_access"}),
    rotates=True,
    refresh_grace_seconds=30,
    words={"client": (401, "invalid_client", "The client secret supplied for a confidential client is invalid.")},
)

SERVICENOW = Profile(
    system="servicenow",
    title="ServiceNow",
    authorize="/oauth_auth.do",
    token="/oauth_token.do",  # noqa: S106 - a path
    revoke="/oauth_revoke_token.do",
    scopes={"useraccount": "Everything that you may do"},
    scope_required=False,
    access_token_seconds=1800,
    # An instance says no more than this, whatever it refuses.
    words={
        "client": (401, "server_error", "access_denied"),
        "code": (401, "server_error", "access_denied"),
        "redirect_uri": (401, "server_error", "access_denied"),
        "verifier": (401, "server_error", "access_denied"),
        "refresh": (401, "server_error", "access_denied"),
    },
)

SALESFORCE = Profile(
    system="salesforce",
    title="Salesforce",
    authorize="/services/oauth2/authorize",
    token="/services/oauth2/token",  # noqa: S106 - a path
    revoke="/services/oauth2/revoke",
    userinfo="/services/oauth2/userinfo",
    keys="/id/keys",
    scopes={
        "api": "Manage user data via APIs",
        "id": "Access the identity URL service",
        "openid": "Access unique user identifiers",
        "profile": "View your profile",
        "email": "View your e-mail address",
        "web": "Manage user data via web browsers",
        "full": "Full access",
        "refresh_token": "Perform requests at any time",
        "offline_access": "Perform requests at any time",
    },
    scope_required=False,
    refresh_scopes=frozenset({"refresh_token", "offline_access"}),
    access_token_seconds=7200,
    tells_expiry=False,
    token_prefix="00D5g00000SimOrg!",  # noqa: S106 - the organization's id, as in the vendor's tokens
    jwt_bearer=True,
    jwt_audiences=frozenset(
        {
            "https://login.salesforce.com",
            "https://test.salesforce.com",
            "http://salesforce.pilothouse-sim.svc:8080",
        }
    ),
    words={
        "client": (400, "invalid_client", "invalid client credentials"),
        "code": (400, "invalid_grant", "expired authorization code"),
        "redirect_uri": (400, "redirect_uri_mismatch", "redirect_uri must match configuration"),
        "verifier": (400, "invalid_grant", "invalid code verifier"),
        "refresh": (400, "invalid_grant", "expired access/refresh token"),
        "grant_type": (400, "unsupported_grant_type", "grant type not supported"),
        "assertion": (400, "invalid_grant", "invalid assertion"),
        "assertion_signature": (400, "invalid_grant", "invalid assertion"),
        "assertion_audience": (400, "invalid_grant", "audience is invalid"),
        "assertion_expired": (400, "invalid_grant", "expired assertion"),
        "assertion_user": (400, "invalid_grant", "user hasn't approved this consumer"),
    },
)
