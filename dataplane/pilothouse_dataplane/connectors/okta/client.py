"""Okta's API over JSON: paths, paging by ``Link``, rate-limit headers and the error dialect.

An error is ``{errorCode, errorSummary, errorLink, errorId, errorCauses: [{errorSummary}]}``. A list's next page is the
header ``Link: <…?after=…>; rel="next"``. ``X-Rate-Limit-Remaining`` and ``-Reset`` (Unix seconds) come with each one.

Sources: https://developer.okta.com/docs/reference/error-codes/, …/core-okta-api/#pagination, …/rl-best-practices/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pilothouse_dataplane.connectors.base import CallContext, RateLimit, Refused, SystemUnavailable
from pilothouse_dataplane.connectors.dialect import error_of
from pilothouse_dataplane.connectors.http import JsonClient, JsonResponse
from pilothouse_dataplane.connectors.limits import parse_rate_limit
from pilothouse_dataplane.connectors.shape import mapping, mappings, objects, text

API = "/api/v1"
_MAX_PAGES = 10
_LINK = re.compile(r"<([^<>]*)>([^<]*)")
_NEXT = re.compile(r";\s*rel\s*=\s*\"?next\"?\s*(?:;|,|$)")


def sentence(body: object) -> str:
    """Okta's own words for an error with the code that its support asks for; "" where it said nothing."""
    error = mapping(body)
    parts = [text(error.get("errorSummary"))]
    parts += [text(cause.get("errorSummary")) for cause in mappings(error.get("errorCauses"))[:5]]
    said = " ".join(dict.fromkeys(part.strip() for part in parts if part.strip()))
    code = text(error.get("errorCode"), 20)
    return f"{said} ({code})" if said and code else said


def rate_limit(headers: Mapping[str, str], now: float) -> RateLimit | None:
    """What the headers say. ``now``: Unix seconds, used where the answer has no Date of its own, which is the clock
    that Okta's reset is told by."""
    with suppress(KeyError, ValueError, TypeError):
        now = parsedate_to_datetime(headers["Date"]).timestamp()
    return parse_rate_limit(headers, now)


def next_query(headers: Mapping[str, str], base_url: str, path: str) -> dict[str, str] | None:
    """The query of a list's next page, None after the last one.

    Only the query is taken over: the next request goes where this one went. A link that leads anywhere else is a sign
    of a wrong or hostile server. Raises Refused: nothing was sent there.
    """
    getall = getattr(headers, "getall", None)  # one header a relation
    values = getall("Link", []) if getall else [headers[name] for name in headers if name.lower() == "link"]
    for target, attributes in (found for value in values for found in _LINK.findall(value[:8000])):
        if not _NEXT.search(attributes):
            continue
        own = urlsplit(base_url + path)
        try:
            there = urlsplit(target)
            same = (there.scheme, there.hostname, there.port) == (own.scheme, own.hostname, own.port)
        except ValueError:
            same = False
        if not same or there.username is not None or unquote(there.path) != unquote(own.path):
            raise Refused(
                "Okta's list goes on at another address than the configured one, which was not asked. A platform "
                "operator must set the connector's URL to the address that Okta itself uses.",
                asked=False,
            )
        return dict(parse_qsl(there.query, keep_blank_values=True))
    return None


class OktaClient:
    """Calls as one user a time: the token is in the context of each."""

    def __init__(self, http: JsonClient, clock: Callable[[], float]) -> None:
        """``clock`` gives Unix seconds."""
        self._http = http
        self.clock = clock

    async def aclose(self) -> None:
        await self._http.aclose()

    async def call(
        self,
        method: str,
        path: str,
        context: CallContext,
        *,
        needs: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        """The response's JSON. ``path`` follows ``/api/v1``; ``needs`` names the permission, as Okta's administrator
        roles do. Raises ConnectorError."""
        return (await self._send(method, API + path, context, needs, query, body)).body

    async def pages(
        self, path: str, context: CallContext, *, needs: str, query: Mapping[str, str], wanted: int
    ) -> tuple[list[Mapping[str, Any]], bool]:
        """At most ``wanted`` objects of a list, and whether there are more. Raises ConnectorError."""
        found: list[Mapping[str, Any]] = []
        asked = dict(query)
        for _ in range(_MAX_PAGES):
            response = await self._send("GET", API + path, context, needs, asked, None)
            page = objects(response.body, "Okta")
            found.extend(page)
            if len(found) > wanted:
                return found[:wanted], True
            following = next_query(response.headers, self._http.base_url, API + path)
            if following is None or not page:  # the system log always links to what may still come
                return found, False
            if len(found) == wanted or following == asked:
                break
            asked = following
        return found[:wanted], True

    async def probe(self) -> None:
        """Okta describes an organization to anybody. Raises ConnectorError."""
        response = await self._http.request("GET", "/.well-known/okta-organization", token=None)
        if not 200 <= response.status < 300:
            raise error_of(response, "Okta", said=sentence(response.body))

    async def _send(
        self,
        method: str,
        path: str,
        context: CallContext,
        needs: str,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
    ) -> JsonResponse:
        try:
            response = await self._http.request(method, path, token=context.token, query=query, body=body)
            limit = rate_limit(response.headers, self.clock())
            context.record.limit = limit or context.record.limit
            if 200 <= response.status < 300:
                return response
            raise _error(response, needs, limit)
        except SystemUnavailable as error:
            if method != "GET" or not error.may_have_acted:
                raise
            # a read that comes before a write has changed nothing
            raise SystemUnavailable(
                str(error), may_have_acted=False, retry_after=error.retry_after, lasting=error.lasting
            ) from error


def _error(response: JsonResponse, needs: str, limit: RateLimit | None) -> Exception:
    if response.status == 429 and response.retry_after is None and limit is not None:
        response = replace(response, retry_after=limit.reset_seconds or None)
    said = sentence(response.body)
    if response.status == 403 and "insufficient_scope" in response.headers.get("WWW-Authenticate", ""):
        said = f"{said} The linked account was not granted the scope for it.".strip()
    return error_of(response, "Okta", said=said, needs=needs, grants="an Okta administrator")
