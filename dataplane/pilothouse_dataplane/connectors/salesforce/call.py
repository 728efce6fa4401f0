"""What the handlers of all nouns share: the call, checked names, ids and values, and records as tools tell them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pilothouse_dataplane.connectors.base import CallContext, Refused
from pilothouse_dataplane.connectors.salesforce.client import SalesforceClient
from pilothouse_dataplane.connectors.salesforce.keys import KeyFields
from pilothouse_dataplane.connectors.shape import mapping, text, word
from pilothouse_dataplane.core.messages import Citation, Outcome, ToolResult

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}")
_ID = re.compile(r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?")
_MAX_FIELDS = 100
_MAX_DEPTH = 4
_MAX_VALUE = 32_000

Handler = Callable[["Call"], Awaitable[ToolResult]]
Finder = Callable[["Call"], Awaitable[ToolResult | None]]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool."""

    client: SalesforceClient
    keys: KeyFields
    arguments: Mapping[str, Any]
    context: CallContext

    def word(self, name: str, default: str = "") -> str:
        return word(self.arguments, name, default).strip()

    def object_name(self) -> str:
        return name_of(self.arguments.get("object"), "an object")

    def url(self, record_id: str) -> str:
        """The page of a record, for people."""
        return f"{self.client.base(self.context)}/{record_id}"

    async def ask(self, method: str, path: str, *, needs: str, **more: Any) -> Any:
        return await self.client.call(method, path, self.context, needs=needs, **more)


def done(summary: str, data: object, *citations: Citation) -> ToolResult:
    return ToolResult(Outcome.SUCCEEDED, summary, data, citations)


def name_of(value: object, what: str) -> str:
    """The API name of an object or field, which may become a part of an address or a query. Raises Refused."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise Refused(f"“{text(value, 80)}” is not the API name of {what}; Salesforce was not asked.", asked=False)
    return value


def id_of(value: object, what: str = "a record") -> str:
    """An id of 15 or 18 characters, likewise. Raises Refused."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise Refused(f"“{text(value, 40)}” is not the id of {what}; Salesforce was not asked.", asked=False)
    return value


def names_of(value: object, what: str, most: int) -> list[str]:
    """A list of API names without repetitions. Raises Refused."""
    if not isinstance(value, list) or len(value) > most:
        raise Refused(f"{what} must be a list of at most {most} API names; Salesforce was not asked.", asked=False)
    return list(dict.fromkeys(name_of(item, "an object or field") for item in value))


def values_of(fields: object) -> dict[str, Any]:
    """Fields and their values for a write: plain values only. Raises Refused."""
    if not isinstance(fields, dict) or not fields or len(fields) > _MAX_FIELDS:
        raise Refused(f"“fields” must name 1 to {_MAX_FIELDS} fields with their values; nothing was sent.", asked=False)
    for name, value in fields.items():
        name_of(name, "a field")
        if name in ("Id", KeyFields.FIELD):
            raise Refused(f"The field {name} is not set by a call; nothing was sent.", asked=False)
        plain = value is None or isinstance(value, str | int | float | bool)
        if not plain or (isinstance(value, str) and ("\x00" in value or len(value) > _MAX_VALUE)):
            raise Refused(
                f"The value of the field {name} must be plain and not too long; nothing was sent.", asked=False
            )
    return dict(fields)


def clean(record: object, longest: int = 2000, depth: int = 0) -> Any:
    """A record without Salesforce's ``attributes``; related records inside of it, subqueries as lists; bounded."""
    if isinstance(record, str):
        return text(record, longest)
    if record is None or isinstance(record, bool | int | float):
        return record
    if depth >= _MAX_DEPTH:
        return None
    if isinstance(record, list):
        return [clean(item, longest, depth + 1) for item in record[:200]]
    fields = mapping(record)
    if isinstance(fields.get("records"), list):  # a subquery's result
        return [clean(item, longest, depth + 1) for item in fields["records"][:200]]
    return {
        text(name, 100): clean(value, longest, depth + 1)
        for name, value in list(fields.items())[:500]
        if name != "attributes"
    }


def type_of(record: Mapping[str, Any]) -> str:
    return text(mapping(record.get("attributes")).get("type"), 80)
