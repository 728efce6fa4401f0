"""What each vendor's authorization server wants beside RFC 6749. Pure; a new vendor is a new row."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Vendor:
    """How to ask for the user's consent."""

    authorize: Mapping[str, str] = field(default_factory=dict)
    """Parameters of the authorization request."""
    scopes: tuple[str, ...] = ()
    """Asked for beside the Connector's own, as without them there is no refresh token."""
    userinfo: str = ""
    """Path, from the token endpoint's host, that tells the user's ``email``; "" where there is none. “auth.” at the
    host's beginning becomes “api.”, as at Atlassian."""
    userinfo_scopes: tuple[str, ...] = ()
    """One of these must have been granted."""


_VENDORS: Mapping[str, Vendor] = {
    # https://developer.atlassian.com/cloud/jira/platform/oauth-2-3lo-apps/ : audience and prompt are required;
    # offline_access gives a refresh token, which rotates. It does not speak of PKCE; what it does not know it ignores.
    # api.atlassian.com/me tells the e-mail where the Connector asks for read:me.
    "jira": Vendor({"audience": "api.atlassian.com", "prompt": "consent"}, ("offline_access",), "/me", ("read:me",)),
    # https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_web_server_flow.htm : the scope
    # refresh_token; prompt=consent asks even one who has agreed before, and so shows as whom she is signed in.
    "salesforce": Vendor(
        {"prompt": "consent"}, ("refresh_token",), "/services/oauth2/userinfo", ("openid", "id", "profile", "full")
    ),
    # https://developer.okta.com/docs/guides/refresh-tokens/main/ : the scope offline_access
    # its ID token, with the scopes openid and email, tells the e-mail; userinfo of the org's server does as well.
    "okta": Vendor({}, ("offline_access",), "/oauth2/v1/userinfo", ("openid",)),
    # https://www.servicenow.com/docs/ , “OAuth authorization code grant flow”: a refresh token without being asked for
    "servicenow": Vendor(),
    # the specification of the system's own document or server says the scopes, so the Connector must
    "openapi": Vendor(),
    "mcp": Vendor(),
}


def userinfo_url(vendor: Vendor, token_url: str, scopes: Collection[str]) -> str:
    """Where the granted token's user is told; "" where nowhere."""
    if not vendor.userinfo or not set(vendor.userinfo_scopes) & set(scopes):
        return ""
    parts = urlsplit(token_url)
    host = f"api.{parts.netloc[5:]}" if parts.netloc.startswith("auth.") else parts.netloc
    return f"{parts.scheme}://{host}{vendor.userinfo}"


def vendor_of(connector_type: str) -> Vendor:
    """The row of a connector's type."""
    return _VENDORS.get(connector_type, Vendor())
