"""Jira's REST v3 over JSON: paths, its error dialect ``{errorMessages, errors}``, and what each status means.

Source: https://developer.atlassian.com/cloud/jira/platform/rest/v3/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilothouse_dataplane.connectors.base import SecretText
from pilothouse_dataplane.connectors.dialect import error_of
from pilothouse_dataplane.connectors.http import JsonClient


def sentence(body: object) -> str:
    """Jira's own words for an error, at most 500 characters; "" where it said nothing."""
    if not isinstance(body, dict):
        return ""
    messages = body.get("errorMessages")
    parts = [str(m) for m in messages] if isinstance(messages, list) else []
    errors = body.get("errors")
    if isinstance(errors, dict):
        parts.extend(f"{field}: {text}" for field, text in errors.items())
    return " ".join(parts)[:500]


class JiraClient:
    """Calls as one user a time: the token is an argument of each."""

    def __init__(self, http: JsonClient) -> None:
        self._http = http

    async def aclose(self) -> None:
        await self._http.aclose()

    async def call(
        self,
        method: str,
        path: str,
        token: SecretText | None,
        *,
        needs: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        """The response's JSON. ``needs`` names the Jira permission that the call takes. Raises ConnectorError."""
        response = await self._http.request(method, f"/rest/api/3{path}", token=token, body=body, query=query)
        if 200 <= response.status < 300:
            return response.body
        said = sentence(response.body)
        raise error_of(response, "Jira", said=said, needs=needs, grants="a Jira administrator")
