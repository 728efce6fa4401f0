"""ServiceNow's REST over JSON: paths, its error dialect, paging, rate limits, and what each status means.

Errors are ``{"error": {"message", "detail"}, "status": "failure"}``; an answer with status 200 may be one as well
(a transaction that ran out of time). Source: https://www.servicenow.com/docs/r/api-reference/rest-apis/c_TableAPI.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from time import time
from typing import Any

from pilothouse_dataplane.connectors.base import CallContext, Refused, SystemUnavailable
from pilothouse_dataplane.connectors.dialect import error_of
from pilothouse_dataplane.connectors.http import JsonClient, JsonResponse
from pilothouse_dataplane.connectors.limits import note_limit
from pilothouse_dataplane.connectors.servicenow import query, values

SYS_ID = re.compile(r"[0-9a-f]{32}")
_TABLE = re.compile(r"[a-z][a-z0-9_]{1,79}")
_NUMBER = re.compile(r"[A-Z]{2,12}[0-9]{3,20}")
_GRANTS = "a ServiceNow administrator"
_MAX_OFFSET = 10_000
_MAX_PAGES = 5


@dataclass(frozen=True, slots=True)
class Page:
    """Some records of a table."""

    records: list[dict[str, Any]]
    more: bool
    """There are further ones."""


def sys_id(value: object, what: str = "sys_id") -> str:
    """The sys_id, checked: it becomes a part of an address. Raises Refused."""
    if not isinstance(value, str) or not SYS_ID.fullmatch(value):
        raise Refused(f"“{str(value)[:64]!s}” is not a {what} of ServiceNow, so nothing was sent.", asked=False)
    return value


def number(value: object, *prefixes: str) -> str:
    """The record's number in capitals, or its sys_id; ``prefixes`` are those that the tool takes. Raises Refused."""
    text = value if isinstance(value, str) else ""
    if SYS_ID.fullmatch(text):
        return text
    upper = text.upper() if text.isascii() else ""
    if not _NUMBER.fullmatch(upper) or (prefixes and not upper.startswith(prefixes)):
        wanted = f" {' or '.join(prefixes)}…" if prefixes else ""
        raise Refused(
            f"“{str(value)[:64]}” is not the number{wanted} of a record in ServiceNow, so nothing was sent.",
            asked=False,
        )
    return upper


def sentence(body: object) -> str:
    """ServiceNow's own words for an error; "" where it said nothing."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, str):
        return error[:500]
    if not isinstance(error, dict):
        return ""
    message, detail = (values.plain(error.get(name), 300).strip(" .") for name in ("message", "detail"))
    return f"{message}: {detail}" if message and detail and detail != message else message or detail


class ServiceNowClient:
    """Calls as one user a time: the context of each holds the token."""

    def __init__(self, http: JsonClient) -> None:
        self._http = http
        self.base_url = http.base_url

    async def aclose(self) -> None:
        await self._http.aclose()

    async def request(
        self,
        method: str,
        path: str,
        context: CallContext,
        *,
        needs: str,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: tuple[bytes, str] | None = None,
    ) -> JsonResponse:
        """The answer, its status 2xx. ``needs`` names what the call takes. Raises ConnectorError."""
        response = await self._http.request(method, path, token=context.token, body=body, query=params, content=content)
        note_limit(response.headers, context, time())
        said = sentence(response.body)
        if not 200 <= response.status < 300:
            raise error_of(response, "ServiceNow", said=said, needs=needs, grants=_GRANTS)
        if said:  # carried out in part, or broken off: nobody knows
            raise SystemUnavailable(f"ServiceNow did not finish: “{said[:300]}”.", may_have_acted=method != "GET")
        return response

    async def there(self) -> None:
        """Asks without a credential: a refusal shows that it is there. Raises SystemUnavailable."""
        response = await self._http.request(
            "GET", "/api/now/table/sys_user", token=None, query={"sysparm_limit": "1", "sysparm_fields": "sys_id"}
        )
        if response.status >= 500 or response.status == 429:
            raise error_of(response, "ServiceNow", said=sentence(response.body))

    async def rows(
        self, table: str, context: CallContext, *, where: str, fields: tuple[str, ...], limit: int, offset: int = 0
    ) -> Page:
        """Records of a table. Every field has ``display_value`` and ``value``. Raises ConnectorError."""
        params = {
            "sysparm_query": where,
            "sysparm_fields": ",".join(fields),
            "sysparm_limit": str(limit),
            "sysparm_offset": str(min(offset, _MAX_OFFSET)),
            "sysparm_display_value": "all",
            "sysparm_exclude_reference_link": "true",
        }
        response = await self.request("GET", self._path(table), context, needs=f"read on {table}", params=params)
        records = values.many(response.body)[:limit]
        total = response.headers.get("X-Total-Count", "")
        if total.isascii() and total.isdigit():
            # records that the user may not see are counted, and left out of the page
            more = offset + limit < int(total[:12])
        else:
            more = 'rel="next"' in response.headers.get("Link", "")
        return Page(records, more)

    async def search(
        self, table: str, context: CallContext, *, where: str, fields: tuple[str, ...], limit: int
    ) -> Page:
        """Up to ``limit`` records, over several pages where access rules left gaps in one. Raises ConnectorError."""
        found: list[dict[str, Any]] = []
        for number_of_page in range(_MAX_PAGES):
            page = await self.rows(
                table, context, where=where, fields=fields, limit=limit, offset=number_of_page * limit
            )
            found.extend(page.records)
            if len(found) >= limit or not page.more:
                return Page(found[:limit], page.more or len(found) > limit)
        return Page(found, more=True)

    async def find(
        self, table: str, context: CallContext, *, where: str, fields: tuple[str, ...]
    ) -> dict[str, Any] | None:
        """The first record that fits, or None. Raises ConnectorError."""
        page = await self.rows(table, context, where=where, fields=fields, limit=1)
        return page.records[0] if page.records else None

    async def get(self, table: str, context: CallContext, key: str, fields: tuple[str, ...]) -> dict[str, Any]:
        """The record of that number or sys_id (both checked before). Raises ConnectorError; Refused where there is none
        that the user may see."""
        if SYS_ID.fullmatch(key):
            params = {
                "sysparm_fields": ",".join(fields),
                "sysparm_display_value": "all",
                "sysparm_exclude_reference_link": "true",
            }
            path = f"{self._path(table)}/{key}"
            response = await self.request("GET", path, context, needs=f"read on {table}", params=params)
            return values.one(response.body)
        found = await self.find(table, context, where=query.equals("number", key), fields=fields)
        # where a query is not understood, an instance may answer with all records
        if found is None or values.raw(found, "number") != key:
            raise Refused(
                f"ServiceNow has no {key} that you may see. If it exists, you lack the permission “read on {table}”; "
                f"ask {_GRANTS}."
            )
        return found

    async def write(
        self,
        method: str,
        table: str,
        context: CallContext,
        body: Mapping[str, Any],
        fields: tuple[str, ...],
        key: str = "",
    ) -> dict[str, Any]:
        """Creates (POST) or changes (PATCH) a record; the record as it is now. Raises ConnectorError."""
        params = {
            "sysparm_fields": ",".join(fields),
            "sysparm_display_value": "all",
            "sysparm_exclude_reference_link": "true",
        }
        path = f"{self._path(table)}/{key}" if key else self._path(table)
        needs = f"{'create' if method == 'POST' else 'write'} on {table}"
        response = await self.request(method, path, context, needs=needs, params=params, body=body)
        return values.one(response.body, may_have_acted=True)

    def _path(self, table: str) -> str:
        if not _TABLE.fullmatch(table):
            raise Refused(f"“{table[:80]}” is not the name of a table, so nothing was sent.", asked=False)
        return f"/api/now/table/{table}"
