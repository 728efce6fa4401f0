"""Jira's REST v3 over JSON: paths, its error dialect ``{errorMessages, errors}``, and what each status means.

Source: https://developer.atlassian.com/cloud/jira/platform/rest/v3/, …/platform/rate-limiting/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from time import time
from typing import Any
from urllib.parse import urlsplit

from pilothouse_dataplane.connectors.base import CallContext, Refused, SystemUnavailable
from pilothouse_dataplane.connectors.dialect import error_of
from pilothouse_dataplane.connectors.http import JsonClient
from pilothouse_dataplane.connectors.limits import note_limit

_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}-[0-9]{1,12}", re.ASCII)
_PROJECT = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}", re.ASCII)
_GRANTS = "a Jira administrator"


def issue_key(value: object) -> str:
    """The key in capitals, checked: it becomes a part of an address. Raises Refused."""
    if not isinstance(value, str) or not _KEY.fullmatch(value):
        raise Refused(f"“{str(value)[:64]}” is not the key of a Jira issue.", asked=False)
    return value.upper()


def project_key(value: object) -> str:
    """The key in capitals, checked: it becomes a part of an address. Raises Refused."""
    if not isinstance(value, str) or not _PROJECT.fullmatch(value):
        raise Refused(f"“{str(value)[:64]}” is not the key of a Jira project.", asked=False)
    return value.upper()


def objects(page: object, name: str) -> list[dict[str, Any]]:
    """The list of objects of that name in a page. Raises SystemUnavailable where there is none: a page that can't be
    read must not look like an empty one."""
    return listed(page.get(name) if isinstance(page, dict) else None)


def listed(items: object) -> list[dict[str, Any]]:
    """A list's objects. Raises SystemUnavailable where it is no list."""
    if not isinstance(items, list):
        raise unreadable()
    return [item for item in items if isinstance(item, dict)]


def mapping(value: object) -> dict[str, Any]:
    """The object, or an empty one: no field of Jira's is trusted to have its type."""
    return value if isinstance(value, dict) else {}


def text(value: object, limit: int = 255) -> str:
    """The text, or "" for what is none."""
    return value[:limit] if isinstance(value, str) else ""


def name(value: object) -> str:
    """Display name of one of Jira's nested objects."""
    return text(mapping(value).get("displayName")) or text(mapping(value).get("name"))


def unreadable(*, may_have_acted: bool = False) -> SystemUnavailable:
    """Jira's JSON has another shape than Jira's."""
    return SystemUnavailable("Jira sent an answer that can't be read.", may_have_acted=may_have_acted)


def sentence(body: object) -> str:
    """Jira's own words for an error, at most 500 characters; "" where it said nothing."""
    if not isinstance(body, dict):
        return ""
    messages = body.get("errorMessages")
    parts = [str(m) for m in messages] if isinstance(messages, list) else []
    errors = body.get("errors")
    if isinstance(errors, dict):
        parts.extend(f"{field}: {why}" for field, why in errors.items())
    if not parts:  # Atlassian's API gateway has a dialect of its own
        parts = [text(body.get("message"), 300)]
    return " ".join(parts)[:500]


class JiraClient:
    """Calls as one user a time: the context of each holds the token."""

    def __init__(self, http: JsonClient) -> None:
        self._http = http
        self.base_url = http.base_url

    async def aclose(self) -> None:
        await self._http.aclose()

    async def call(
        self,
        method: str,
        path: str,
        context: CallContext,
        *,
        needs: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        """The response's JSON. ``needs`` names the Jira permission that the call takes. Raises ConnectorError."""
        response = await self._http.request(method, f"/rest/api/3{path}", token=context.token, body=body, query=query)
        note_limit(response.headers, context, time())
        if 200 <= response.status < 300:
            return response.body
        raise error_of(response, "Jira", said=sentence(response.body), needs=needs, grants=_GRANTS)

    async def there(self) -> None:
        """Asks without a credential: any answer of Jira's shows that it is there. Raises SystemUnavailable."""
        response = await self._http.request("GET", "/rest/api/3/serverInfo", token=None)
        if response.status >= 500 or response.status == 429:
            raise error_of(response, "Jira", said=sentence(response.body))


def site_of(base_url: str) -> str | None:
    """Where people find the site, if the connector's URL says so. Atlassian's API gateway
    (``https://api.atlassian.com/ex/jira/<cloud id>``) does not: None."""
    parts = urlsplit(base_url)
    return None if parts.path.startswith("/ex/jira/") else base_url


def site_in(info: object) -> str | None:
    """The site in the answer to ``serverInfo``; None where it holds no address that a link may lead to."""
    try:
        parts = urlsplit(text(mapping(info).get("baseUrl"), 500))
        host = parts.hostname
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or not parts.netloc.isascii():
        return None
    return f"{parts.scheme}://{parts.netloc}"
