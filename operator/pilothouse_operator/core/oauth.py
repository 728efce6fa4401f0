"""Where a Connector's OAuth endpoints are: as it says itself, else at the vendor's own paths.

Paths as in the vendors' documentation: Atlassian's "OAuth 2.0 (3LO) apps" (one server for all of its cloud, without
revocation), ServiceNow's "OAuth 2.0" endpoints, Salesforce's "OAuth endpoints", Okta's "org authorization server".
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from pilothouse_api.connector import ConnectorSpec, ConnectorType

ATLASSIAN_SERVER = "https://auth.atlassian.com"
_PATHS: dict[ConnectorType, tuple[str, str, str]] = {
    "jira": ("/authorize", "/oauth/token", ""),
    "servicenow": ("/oauth_auth.do", "/oauth_token.do", "/oauth_revoke_token.do"),
    "salesforce": ("/services/oauth2/authorize", "/services/oauth2/token", "/services/oauth2/revoke"),
    "okta": ("/oauth2/v1/authorize", "/oauth2/v1/token", "/oauth2/v1/revoke"),
}


@dataclass(frozen=True)
class Endpoints:
    """Addresses of an authorization server; empty where it has none."""

    authorization: str = ""
    token: str = ""
    revocation: str = ""


def endpoints(spec: ConnectorSpec) -> Endpoints:
    """Where users link their accounts; all empty where they can't do so themselves."""
    oauth = spec.auth.oauth
    if oauth is None or oauth.client_secret_ref is None:
        return Endpoints()
    if oauth.authorization_url is not None:
        return Endpoints(oauth.authorization_url, oauth.token_url or "", oauth.revocation_url or "")
    if spec.type not in _PATHS:
        return Endpoints()
    server = ATLASSIAN_SERVER if spec.type == "jira" and _is_atlassian_cloud(spec.url) else spec.url.rstrip("/")
    authorization, token, revocation = (server + path if path else "" for path in _PATHS[spec.type])
    return Endpoints(authorization, token, oauth.revocation_url or revocation)


def _is_atlassian_cloud(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host == "api.atlassian.com" or host.endswith(".atlassian.net")


def called_urls(spec: ConnectorSpec) -> dict[str, str]:
    """Each address that a connector makes the workers, or a user's browser, call, by the field that it comes from."""
    linking = endpoints(spec)
    found = {
        "spec.url": spec.url,
        "auth.oauth.authorizationURL": linking.authorization,
        "auth.oauth.tokenURL": linking.token,
        "auth.oauth.revocationURL": linking.revocation,
        "auth.tokenExchange.tokenURL": spec.auth.token_exchange.token_url if spec.auth.token_exchange else "",
        "auth.jwtBearer.tokenURL": spec.auth.jwt_bearer.token_url if spec.auth.jwt_bearer else "",
        "openapi.document.url": (spec.openapi.document.url or "") if spec.openapi else "",
    }
    return {field: url for field, url in found.items() if url}
