"""Knowledge articles, attachments, configuration items and people.

Source: https://www.servicenow.com/docs/r/api-reference/rest-apis/knowledge-api.html, c_AttachmentAPI.html there
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from pilothouse_dataplane.connectors.base import CallContext, Refused, SystemUnavailable
from pilothouse_dataplane.connectors.prelude import nothing_changed_yet
from pilothouse_dataplane.connectors.servicenow import query, values
from pilothouse_dataplane.connectors.servicenow.client import SYS_ID, number, sys_id
from pilothouse_dataplane.connectors.servicenow.instance import Instance
from pilothouse_dataplane.core.messages import Outcome, ToolResult

Arguments = Mapping[str, Any]
_ARTICLES = "/api/sn_km_api/knowledge/articles"
_MAY_READ = "can read (user criteria of the knowledge base)"
_ATTACHMENTS = "/api/now/attachment"
_TABLES = {"INC": "incident", "REQ": "sc_request", "RITM": "sc_req_item", "CHG": "change_request"}
"""Of a number's prefix; attachments name the record's table."""
_FILE_NAME = re.compile(r"[\w][\w .()+-]{0,99}")
_LISTED = 50
_CLASS = re.compile(r"cmdb_ci(_[a-z0-9_]{1,60})?")
_CI_FIELDS = {
    "sys_id": "sys_id",
    "name": "name",
    "class": "sys_class_name",
    "status": "operational_status",
    "environment": "environment",
    "owned_by": "owned_by",
    "assigned_to": "assigned_to",
    "support_group": "support_group",
    "location": "location",
    "ip_address": "ip_address",
    "serial_number": "serial_number",
    "short_description": "short_description",
}
_USER_FIELDS = ("sys_id", "name", "user_name", "email", "title", "department", "manager")


async def search_knowledge(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    wanted = int(arguments.get("max_results", 5))
    params = {"query": str(arguments["text"]), "limit": str(wanted), "offset": "0", "fields": "short_description"}
    response = await instance.client.request("GET", _ARTICLES, context, needs=_MAY_READ, params=params)
    result = values.one(response.body)
    listed = result.get("articles")
    if not isinstance(listed, list):
        raise values.unreadable()
    rows = [_article(instance, a) for a in listed[:wanted] if isinstance(a, Mapping)]
    meta = result.get("meta")
    count = meta.get("count") if isinstance(meta, Mapping) else None
    more = isinstance(count, int) and count > len(rows)
    cited = tuple(instance.cite(f"{r['number']} {r['title']}", r["url"]) for r in rows[:5])
    text = f"{'at least ' if more else ''}{len(rows)} article{'' if len(rows) == 1 else 's'}"
    data = {"articles": rows, "more": more}
    return ToolResult(Outcome.SUCCEEDED, f"Found {text} in ServiceNow's knowledge.", data, cited)


def _article(instance: Instance, article: Mapping[str, Any]) -> dict[str, Any]:
    key = values.plain(article.get("id"), 100).rpartition(":")[2]
    return {
        "number": values.plain(article.get("number"), 40),
        "sys_id": key if SYS_ID.fullmatch(key) else "",
        "title": values.text_of(article.get("title"), 255),
        "snippet": values.text_of(article.get("snippet"), 600),
        "url": _article_url(instance, key),
    }


def _article_url(instance: Instance, key: str) -> str:
    return instance.link("kb_knowledge", key if SYS_ID.fullmatch(key) else "")


async def get_article(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    key = number(arguments.get("number"), "KB")
    response = await instance.client.request("GET", f"{_ARTICLES}/{key}", context, needs=_MAY_READ)
    record = values.one(response.body)
    data = {
        "number": values.plain(record.get("number"), 40),
        "sys_id": values.plain(record.get("sys_id"), 32),
        "title": values.text_of(record.get("short_description"), 255),
        "text": values.text_of(record.get("content")),
        "url": _article_url(instance, values.plain(record.get("sys_id"), 32)),
    }
    summary = f"{data['number'] or key}: {data['title']}"
    return ToolResult(Outcome.SUCCEEDED, summary, data, (instance.cite(summary, data["url"]),))


async def _attached_to(instance: Instance, arguments: Arguments, context: CallContext) -> tuple[str, str, str]:
    """Table, sys_id and number of the record. Raises ConnectorError."""
    key = number(arguments.get("number"), *_TABLES)
    table = next(
        (table for prefix, table in _TABLES.items() if key.startswith(prefix) and not SYS_ID.fullmatch(key)), ""
    )
    if not table:
        raise Refused(f"Name the record by its number, such as INC0010001, not by “{key}”.", asked=False)
    record = await instance.client.get(table, context, key, ("sys_id", "number"))
    found = values.raw(record, "sys_id")
    if not SYS_ID.fullmatch(found):
        raise values.unreadable()
    return table, found, key


async def _attachments(
    instance: Instance, context: CallContext, table: str, record: str, name: str = ""
) -> list[dict[str, Any]]:
    where = query.every(
        query.equals("table_name", table),
        query.equals("table_sys_id", record),
        query.equals("file_name", name) if name else "",
        newest="sys_created_on",
    )
    params = {"sysparm_query": where, "sysparm_limit": str(_LISTED), "sysparm_offset": "0"}
    needs = f"read on {table} and its attachments"
    response = await instance.client.request("GET", _ATTACHMENTS, context, needs=needs, params=params)
    return [r for r in values.many(response.body) if values.plain(r.get("table_sys_id")) == record]


async def list_attachments(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    table, record, key = await _attached_to(instance, arguments, context)
    found = await _attachments(instance, context, table, record)
    rows = [
        {
            "sys_id": values.plain(r.get("sys_id"), 32),
            "file_name": values.plain(r.get("file_name"), 255),
            "content_type": values.plain(r.get("content_type"), 100),
            "size_bytes": values.plain(r.get("size_bytes"), 20),
            "created_at": values.plain(r.get("sys_created_on"), 40),
            "created_by": values.plain(r.get("sys_created_by"), 100),
        }
        for r in found
    ]
    summary = f"{key} has {len(rows)} attachment{'' if len(rows) == 1 else 's'}."
    cited = (instance.cite(key, instance.link(table, record)),)
    return ToolResult(Outcome.SUCCEEDED, summary, {"attachments": rows, "more": len(found) >= _LISTED}, cited)


def _file(arguments: Arguments) -> tuple[str, bytes]:
    name = str(arguments["file_name"])
    if not _FILE_NAME.fullmatch(name) or ".." in name:
        raise Refused(f"“{name[:64]}” is not a name that a file can have here, so nothing was sent.", asked=False)
    return name, str(arguments["content"]).encode()


async def add_attachment(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    name, content = _file(arguments)
    with nothing_changed_yet():
        table, record, key = await _attached_to(instance, arguments, context)
    response = await instance.client.request(
        "POST",
        f"{_ATTACHMENTS}/file",
        context,
        needs=f"write on {table}",
        params={"table_name": table, "table_sys_id": record, "file_name": name},
        content=(content, "text/plain"),
    )
    made = values.one(response.body, may_have_acted=True)
    return _attached(instance, table, record, key, values.plain(made.get("sys_id"), 32), name)


def _attached(instance: Instance, table: str, record: str, key: str, attachment: str, name: str) -> ToolResult:
    url = instance.link(table, record)
    data = {"sys_id": attachment, "file_name": name, "number": key, "url": url}
    return ToolResult(Outcome.SUCCEEDED, f"Attached {name} to {key}.", data, (instance.cite(key, url),))


async def find_attachment(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult | None:
    name, content = _file(arguments)
    table, record, key = await _attached_to(instance, arguments, context)
    wanted = hashlib.sha256(content).hexdigest()
    same = [
        r
        for r in await _attachments(instance, context, table, record, name)
        if values.plain(r.get("file_name")) == name and values.plain(r.get("size_bytes")) == str(len(content))
    ]
    for r in same:
        if values.plain(r.get("hash")) == wanted:
            return _attached(instance, table, record, key, values.plain(r.get("sys_id"), 32), name)
    if any(not values.plain(r.get("hash")) for r in same):  # older releases keep no hash
        raise SystemUnavailable(f"ServiceNow does not tell whether {key} has {name}.", may_have_acted=False)
    return None


def _ci(instance: Instance, record: Mapping[str, Any]) -> dict[str, Any]:
    shown = {ours: values.shown(record, theirs, 255) for ours, theirs in _CI_FIELDS.items()}
    shown["sys_id"] = values.raw(record, "sys_id", 32)
    return {**shown, "url": instance.link("cmdb_ci", shown["sys_id"])}


async def search_cis(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    table = str(arguments.get("class") or "cmdb_ci")
    if not _CLASS.fullmatch(table):
        raise Refused(f"“{table[:80]}” is not a class of the CMDB, so nothing was sent.", asked=False)
    where = query.text_in(("name",), str(arguments["text"]))
    if not where:
        raise Refused("The search has no word in it, so nothing was sent.", asked=False)
    wanted = int(arguments.get("max_results", 10))
    fields = tuple(_CI_FIELDS.values())
    page = await instance.client.search(table, context, where=f"{where}^ORDERBYname", fields=fields, limit=wanted)
    rows = [_ci(instance, record) for record in page.records]
    cited = tuple(instance.cite(r["name"], r["url"]) for r in rows[:5])
    count = f"{'at least ' if page.more else ''}{len(rows)} configuration item{'' if len(rows) == 1 else 's'}"
    return ToolResult(Outcome.SUCCEEDED, f"Found {count} in ServiceNow.", {"cis": rows, "more": page.more}, cited)


async def get_ci(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    key = sys_id(arguments.get("sys_id"))
    data = _ci(instance, await instance.client.get("cmdb_ci", context, key, tuple(_CI_FIELDS.values())))
    summary = f"{data['name']} is a {data['class']}, {data['status'] or 'of unknown status'}."
    return ToolResult(Outcome.SUCCEEDED, summary, data, (instance.cite(data["name"], data["url"]),))


async def search_users(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    text = str(arguments["text"]).strip()
    by_email = "@" in text and " " not in text
    who = query.equals("email", text) if by_email else query.text_in(("name",), text)
    if not who:
        raise Refused("The search has no word in it, so nothing was sent.", asked=False)
    wanted = int(arguments.get("max_results", 5))
    where = query.every(who, query.equals("active", "true"))
    page = await instance.client.search("sys_user", context, where=where, fields=_USER_FIELDS, limit=wanted)
    rows = [
        {**{name: values.shown(r, name, 255) for name in _USER_FIELDS}, "sys_id": values.raw(r, "sys_id", 32)}
        for r in page.records
        if not by_email or values.raw(r, "email").casefold() == text.casefold()
    ]
    count = f"{'at least ' if page.more else ''}{len(rows)} user{'' if len(rows) == 1 else 's'}"
    return ToolResult(Outcome.SUCCEEDED, f"Found {count} in ServiceNow.", {"users": rows, "more": page.more})
