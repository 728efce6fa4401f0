"""Jira's REST v3 over JSON: paths, its error dialect ``{errorMessages, errors}``, and what each status means.

Source: https://developer.atlassian.com/cloud/jira/platform/rest/v3/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilothouse_dataplane.connectors.base import AccountNotLinked, Refused, SystemUnavailable
from pilothouse_dataplane.connectors.http import JsonClient, JsonResponse


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

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self._http = JsonClient("Jira", url, timeout_seconds)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def call(
        self,
        method: str,
        path: str,
        token: str | None,
        *,
        needs: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        """The response's JSON. ``needs`` names the Jira permission that the call takes. Raises ConnectorError."""
        response = await self._http.request(method, f"/rest/api/3{path}", token=token, body=body, query=query)
        if 200 <= response.status < 300:
            return response.body
        raise self._error(response, needs)

    def _error(self, response: JsonResponse, needs: str) -> Exception:
        said = sentence(response.body).rstrip(". ")
        quoted = f": “{said}”" if said else ""
        if response.status == 401:
            return AccountNotLinked(
                f"Jira no longer accepts your linked account{quoted}. Nothing was done. Link your Jira account again."
            )
        if response.status == 403:
            return Refused(f"Jira refused this{quoted}. It takes the permission “{needs}”; ask a Jira administrator.")
        if response.status == 404:
            return Refused(
                f"Jira found nothing that you may see{quoted}. If it exists, you lack the permission “{needs}”."
            )
        if response.status == 429:
            message = "Jira gets too many requests at the moment."
            return SystemUnavailable(message, may_have_acted=False, retry_after=response.retry_after)
        if response.status in (408, 425):
            message = f"Jira did not take the request ({response.status})."
            return SystemUnavailable(message, may_have_acted=False, retry_after=response.retry_after)
        if response.status >= 500:
            message = f"Jira failed ({response.status}){quoted}."
            return SystemUnavailable(message, may_have_acted=True, retry_after=response.retry_after)
        return Refused(f"Jira did not accept this{quoted or f' ({response.status})'}.")
