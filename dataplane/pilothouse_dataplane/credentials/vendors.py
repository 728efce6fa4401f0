"""What each vendor's authorization server wants beside RFC 6749. Pure; a new vendor is a new row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Vendor:
    """How to ask for the user's consent."""

    authorize: Mapping[str, str] = field(default_factory=dict)
    """Parameters of the authorization request."""
    scopes: tuple[str, ...] = ()
    """Asked for beside the Connector's own, as without them there is no refresh token."""


_VENDORS: Mapping[str, Vendor] = {
    # https://developer.atlassian.com/cloud/jira/platform/oauth-2-3lo-apps/ : audience and prompt are required;
    # offline_access gives a refresh token, which rotates. It does not speak of PKCE; what it does not know it ignores.
    "jira": Vendor({"audience": "api.atlassian.com", "prompt": "consent"}, ("offline_access",)),
    # https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_web_server_flow.htm : the scope
    # refresh_token; prompt=consent asks even one who has agreed before, and so shows as whom she is signed in.
    "salesforce": Vendor({"prompt": "consent"}, ("refresh_token",)),
    # https://developer.okta.com/docs/guides/refresh-tokens/main/ : the scope offline_access
    "okta": Vendor({}, ("offline_access",)),
    # https://www.servicenow.com/docs/ , “OAuth authorization code grant flow”: a refresh token without being asked for
    "servicenow": Vendor(),
    # the specification of the system's own document or server says the scopes, so the Connector must
    "openapi": Vendor(),
    "mcp": Vendor(),
}


def vendor_of(connector_type: str) -> Vendor:
    """The row of a connector's type."""
    return _VENDORS.get(connector_type, Vendor())
