"""Salesforce's REST API over JSON: paths, paging, its error dialect and what its codes mean.

An error is ``[{message, errorCode, fields}]``. Some codes say more than their status: a limit that is used up comes
with 403, a record that somebody else is changing with 400 or 500.

Source: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/errorcodes.htm
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pilothouse_dataplane.connectors.base import CallContext, ConnectorError, RateLimit, Refused, SystemUnavailable
from pilothouse_dataplane.connectors.dialect import error_of
from pilothouse_dataplane.connectors.http import JsonClient, JsonResponse
from pilothouse_dataplane.connectors.salesforce.instance import instance
from pilothouse_dataplane.connectors.shape import mapping, mappings, objects, text, unreadable

DATA = "/services/data"
_MAX_PAGES = 10
_BODY_BYTES = 1 << 20
_LARGE_BYTES = 8 << 20
"""Descriptions of an organization's objects and of an object's fields."""
_LOCATOR = re.compile(r"[A-Za-z0-9_-]{1,80}")
_USAGE = re.compile(r"\bapi-usage=([0-9]{1,12})/([0-9]{1,12})")
_NEARLY = 0.98
_ROLLING_SECONDS = 60.0
"""The limit counts the last 24 hours: some of it comes back with each minute."""

_NOT_NOW = {
    "UNABLE_TO_LOCK_ROW": "somebody else is changing the record at this moment",
    "QUERY_TIMEOUT": "the query takes too long",
    "REQUEST_LIMIT_EXCEEDED": "the organization's requests are used up for now",
    "SERVER_UNAVAILABLE": "it is too busy",
    "API_TEMPORARILY_UNAVAILABLE": "its API is not available for now",
}
"""Nothing was done; the same call may do later."""
_NO_RIGHT = {
    "INSUFFICIENT_ACCESS",
    "INSUFFICIENT_ACCESS_OR_READONLY",
    "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY",
    "INVALID_FIELD_FOR_INSERT_UPDATE",
    "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
}
_NOT_SEEN = {"NOT_FOUND", "INVALID_TYPE", "INVALID_CROSS_REFERENCE_KEY"}
"""It does not exist, or the user may not see it: Salesforce does not tell which."""
_AT = re.compile(r"^.*?\^\s*ERROR at Row:\d+:Column:\d+\s*", re.DOTALL)
"""Salesforce repeats a part of the query before it says what is wrong with it; nobody has written that query."""


class Denied(Refused):
    """Salesforce refused, with its codes."""

    def __init__(self, message: str, codes: frozenset[str]) -> None:
        super().__init__(message)
        self.codes = codes


def codes(body: object) -> frozenset[str]:
    return frozenset(text(error.get("errorCode"), 80) for error in mappings(body))


def sentence(body: object) -> str:
    """Salesforce's own words for an error; "" where it said nothing."""
    if isinstance(body, dict):  # of its OAuth side
        return text(body.get("error_description")) or text(body.get("error"))
    said = []
    for error in mappings(body)[:5]:
        words, code = _AT.sub("", text(error.get("message"), 2000)).strip()[:400], text(error.get("errorCode"), 80)
        said.append(f"{words} ({code})" if words and code else words or code)
    return " ".join(filter(None, said))


def error_from(status: int, body: object, needs: str, retry_after: float | None = None) -> ConnectorError:
    """What a status that is not 2xx means, with the codes of its body."""
    found = codes(body)
    if soon := sorted(found & _NOT_NOW.keys()):
        message = f"Salesforce did not do this: {_NOT_NOW[soon[0]]}. Nothing was changed."
        return SystemUnavailable(message, may_have_acted=False, retry_after=retry_after)
    if "INVALID_SESSION_ID" in found:
        status = 401
    elif found & _NO_RIGHT:
        status = 403
    elif found & _NOT_SEEN:
        status = 404
    response = JsonResponse(status, body, retry_after)
    error = error_of(response, "Salesforce", said=sentence(body), needs=needs, grants="a Salesforce administrator")
    return Denied(str(error), found) if type(error) is Refused else error


def used_up(headers: Mapping[str, str]) -> RateLimit | None:
    """The organization's limit of requests, where nearly all of it is used."""
    match = _USAGE.search(headers.get("Sforce-Limit-Info", ""))
    if match is None or int(match[1]) < int(match[2]) * _NEARLY:
        return None
    return RateLimit(max(0, int(match[2]) - int(match[1])), _ROLLING_SECONDS)


class SalesforceClient:
    """Calls as one user a time: the token is in the context of each."""

    def __init__(self, http: JsonClient, version: str) -> None:
        """``version`` such as v67.0."""
        self._http = http
        self.prefix = f"{DATA}/{version}"

    async def aclose(self) -> None:
        await self._http.aclose()

    async def probe(self) -> None:
        """Salesforce lists its versions to anybody. Raises ConnectorError."""
        response = await self._http.request("GET", f"{DATA}/", token=None)
        if not 200 <= response.status < 300:
            raise error_from(response.status, response.body, "")

    def base(self, context: CallContext) -> str:
        """The address that this user's calls go to. Raises Refused."""
        given = context.credential.instance_url if context.credential is not None else ""
        return instance(given, self._http.base_url, self._http.egress)

    async def call(
        self,
        method: str,
        path: str,
        context: CallContext,
        *,
        needs: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        changes: bool | None = None,
        large: bool = False,
    ) -> Any:
        """The response's JSON. ``path`` follows ``/services/data/vXX.0``; ``needs`` names the permission as Salesforce
        does; ``changes``: the call may change something (default: where it is no GET). Raises ConnectorError."""
        try:
            response = await self._http.request(
                method,
                self.prefix + path,
                token=context.token,
                query=query,
                body=body,
                base_url=self.base(context),
                max_body_bytes=_LARGE_BYTES if large else _BODY_BYTES,
            )
            context.record.limit = used_up(response.headers) or context.record.limit
            if 200 <= response.status < 300:
                return response.body
            if response.status == 300:
                message = "Salesforce has several records with this external id, so nothing was done. Name the id."
                raise Denied(message, frozenset())
            raise error_from(response.status, response.body, needs, response.retry_after)
        except SystemUnavailable as error:
            if (method != "GET" if changes is None else changes) or not error.may_have_acted:
                raise
            raise SystemUnavailable(
                str(error), may_have_acted=False, retry_after=error.retry_after, lasting=error.lasting
            ) from error

    async def query(
        self, soql: str, context: CallContext, *, needs: str, wanted: int
    ) -> tuple[list[Mapping[str, Any]], int, bool]:
        """At most ``wanted`` records of a query, how many Salesforce counts, and whether there are more.
        Raises ConnectorError."""
        page = mapping(await self.call("GET", "/query", context, needs=needs, query={"q": soql}))
        found = objects(page.get("records"), "Salesforce")
        total = page.get("totalSize")
        for _ in range(_MAX_PAGES):
            following = page.get("nextRecordsUrl")
            if not following or len(found) >= wanted:
                break
            path = self._next(following)
            page = mapping(await self.call("GET", path, context, needs=needs))
            found += objects(page.get("records"), "Salesforce")
        more = len(found) > wanted or bool(page.get("nextRecordsUrl"))
        count = total if isinstance(total, int) and not isinstance(total, bool) else len(found)
        return found[:wanted], count, more

    def _next(self, following: object) -> str:
        """The path of the next page. Raises Refused: nothing was sent there."""
        start = f"{self.prefix}/query/"
        locator = following.removeprefix(start) if isinstance(following, str) and following.startswith(start) else ""
        if not _LOCATOR.fullmatch(locator):
            raise Refused(
                "Salesforce's result goes on at another address than its own, which was not asked.", asked=False
            )
        return f"/query/{locator}"

    async def search(self, body: Mapping[str, Any], context: CallContext, *, needs: str) -> list[Mapping[str, Any]]:
        """The records of a parameterized search. Raises ConnectorError."""
        found = await self.call("POST", "/parameterizedSearch", context, needs=needs, body=body, changes=False)
        if not isinstance(found, dict):
            raise unreadable("Salesforce")
        return objects(found.get("searchRecords"), "Salesforce")
