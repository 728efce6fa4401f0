"""Where a user's calls go: to the connector's URL, or to the instance that Salesforce named with her token. Pure.

A token response says with ``instance_url`` where its token is good. The token is not sent there on its word alone: it
must be the connector's own address, an address of Salesforce, or one that the cluster's operator allows by name.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from urllib.parse import SplitResult, urlsplit

from pilothouse_api.egress import EgressRule
from pilothouse_dataplane.connectors.base import Refused

_SALESFORCE = (".salesforce.com", ".salesforce.mil", ".sfcrmproducts.cn")
"""Production and sandboxes, the US government's and China's."""


def _allowed(there: SplitResult, own: SplitResult, rule: EgressRule) -> bool:
    host = there.hostname or ""
    if there.username is not None or there.path not in ("", "/") or there.query or there.fragment:
        return False
    if (there.scheme, host, there.port) == (own.scheme, own.hostname, own.port):
        return True
    if there.scheme == "https" and there.port in (None, 443) and host.endswith(_SALESFORCE):
        return True
    named = any(fnmatchcase(host, glob.casefold()) for glob in rule.allow_hosts)
    return there.scheme in ("http", "https") and named


def instance(instance_url: str, url: str, rule: EgressRule) -> str:
    """The base address for a call. Raises Refused: the token was not sent."""
    if not instance_url:
        return url
    try:
        there = urlsplit(instance_url)
        allowed = _allowed(there, urlsplit(url), rule)
    except ValueError:
        allowed = False
    if not allowed:
        raise Refused(
            "Your Salesforce account is said to be at an address that is not Salesforce's, so nothing was asked. Link "
            "your Salesforce account again; else a platform operator must correct the connector's URLs.",
            asked=False,
        )
    return f"{there.scheme}://{there.netloc}"
