"""The service catalog, and approvals.

Source: https://www.servicenow.com/docs/r/api-reference/rest-apis/c_ServiceCatalogAPI.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilothouse_dataplane.connectors.base import CallContext, Refused
from pilothouse_dataplane.connectors.prelude import nothing_changed_yet
from pilothouse_dataplane.connectors.servicenow import query, values
from pilothouse_dataplane.connectors.servicenow.client import SYS_ID, sys_id
from pilothouse_dataplane.connectors.servicenow.instance import SERVICE_ACCOUNT, Instance, account_of
from pilothouse_dataplane.core.messages import Outcome, ToolResult

Arguments = Mapping[str, Any]
_ITEMS = "/api/sn_sc/servicecatalog/items"
_MAX_VARIABLES = 60
_MAX_CHOICES = 40
_APPROVAL = "sysapproval_approver"
_APPROVAL_FIELDS = ("sys_id", "state", "sysapproval", "sysapproval.short_description", "approver", "sys_created_on",
                    "comments", "source_table")  # fmt: skip
_MAY_ORDER = "available for you (user criteria of the catalog item)"


def _item(instance: Instance, record: Mapping[str, Any]) -> dict[str, Any]:
    found = values.plain(record.get("sys_id"), 32)
    category = record.get("category")
    title = category.get("title") if isinstance(category, Mapping) else category
    url = f"{instance.client.base_url}/com.glideapp.servicecatalog_cat_item_view.do?v=1&sysparm_id={found}"
    return {
        "sys_id": found,
        "name": values.plain(record.get("name"), 255),
        "short_description": values.text_of(record.get("short_description"), 500),
        "price": values.plain(record.get("price"), 40),
        "category": values.plain(title, 255),
        "url": url if SYS_ID.fullmatch(found) else instance.client.base_url,
    }


async def search_catalog(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    wanted = int(arguments.get("max_results", 10))
    # a text search of its own, no encoded query; one more than wanted tells whether there are more
    params = {"sysparm_text": str(arguments["text"]), "sysparm_limit": str(wanted + 1), "sysparm_offset": "0"}
    response = await instance.client.request("GET", _ITEMS, context, needs=_MAY_ORDER, params=params)
    found = values.many(response.body)
    items = [_item(instance, record) for record in found[:wanted]]
    cited = tuple(instance.cite(item["name"], item["url"]) for item in items[:5])
    more = len(found) > wanted
    count = f"{'at least ' if more else ''}{len(items)} item{'' if len(items) == 1 else 's'}"
    data = {"items": items, "more": more}
    return ToolResult(Outcome.SUCCEEDED, f"Found {count} in ServiceNow's catalog.", data, cited)


def _variables(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    listed = record.get("variables")
    shown: list[dict[str, Any]] = []
    for variable in listed[:_MAX_VARIABLES] if isinstance(listed, list) else ():
        if not isinstance(variable, Mapping):
            continue
        choices = variable.get("choices")
        shown.append(
            {
                "name": values.plain(variable.get("name"), 100),
                "label": values.plain(variable.get("label"), 255),
                "type": values.plain(variable.get("friendly_type") or variable.get("type"), 60),
                "mandatory": values.flag(variable.get("mandatory")),
                "choices": [
                    values.plain(choice.get("value"), 100)
                    for choice in (choices[:_MAX_CHOICES] if isinstance(choices, list) else ())
                    if isinstance(choice, Mapping)
                ],
            }
        )
    return shown


async def get_item(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    key = sys_id(arguments.get("sys_id"))
    response = await instance.client.request("GET", f"{_ITEMS}/{key}", context, needs=_MAY_ORDER)
    record = values.one(response.body)
    data = {
        **_item(instance, record),
        "description": values.text_of(record.get("description"), 4_000),
        "variables": _variables(record),
    }
    needed = ", ".join(v["label"] or v["name"] for v in data["variables"] if v["mandatory"])
    summary = f"{data['name']} can be ordered{f'; it needs: {needed}' if needed else ''}."
    return ToolResult(Outcome.SUCCEEDED, summary, data, (instance.cite(data["name"], data["url"]),))


async def order(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    key = sys_id(arguments.get("sys_id"))
    variables = arguments.get("variables") or {}
    body: dict[str, Any] = {
        "sysparm_quantity": str(int(arguments.get("quantity", 1))),
        "variables": {str(name): str(value) for name, value in variables.items()},
    }
    if account_of(context).startswith(SERVICE_ACCOUNT):  # else ServiceNow orders for whose token it is
        with nothing_changed_yet():
            body["sysparm_requested_for"] = (await instance.me(context)).sys_id
    path = f"{_ITEMS}/{key}/order_now"
    response = await instance.client.request("POST", path, context, needs=_MAY_ORDER, body=body)
    record = values.one(response.body, may_have_acted=True)
    request = values.plain(record.get("request_id") or record.get("sys_id"), 32)
    ordered = values.plain(record.get("request_number") or record.get("number"), 40)
    if not SYS_ID.fullmatch(request) or not ordered:
        raise values.unreadable(may_have_acted=True)
    url = instance.link("sc_request", request)
    data = {"number": ordered, "sys_id": request, "url": url}
    return ToolResult(
        Outcome.SUCCEEDED, f"Ordered in ServiceNow: request {ordered}.", data, (instance.cite(ordered, url),)
    )


def _approval(instance: Instance, record: Mapping[str, Any]) -> dict[str, Any]:
    key = values.raw(record, "sys_id", 32)
    return {
        "sys_id": key,
        "state": values.shown(record, "state", 60),
        "of": values.shown(record, "sysapproval", 100),
        "subject": values.shown(record, "sysapproval.short_description", 255),
        "approver": values.shown(record, "approver", 255),
        "requested_at": values.shown(record, "sys_created_on", 40),
        "comments": values.shown(record, "comments", 1_000),
        "url": instance.link(_APPROVAL, key),
    }


async def list_approvals(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    me = await instance.me(context)
    wanted = int(arguments.get("max_results", 10))
    where = query.every(
        query.equals("approver", me.sys_id), query.equals("state", "requested"), newest="sys_created_on"
    )
    page = await instance.client.search(_APPROVAL, context, where=where, fields=_APPROVAL_FIELDS, limit=wanted)
    rows = [_approval(instance, r) for r in page.records if values.raw(r, "approver") == me.sys_id]
    cited = tuple(instance.cite(f"{r['of']} {r['subject']}", r["url"]) for r in rows[:5])
    more = "at least " if page.more else ""
    summary = f"{more}{len(rows)} approval{' waits' if len(rows) == 1 else 's wait'} for you in ServiceNow."
    return ToolResult(Outcome.SUCCEEDED, summary, {"approvals": rows, "more": page.more}, cited)


async def _read_approval(instance: Instance, arguments: Arguments, context: CallContext) -> tuple[str, dict[str, Any]]:
    key = sys_id(arguments.get("sys_id"))
    return key, await instance.client.get(_APPROVAL, context, key, _APPROVAL_FIELDS)


def _decided(instance: Instance, record: Mapping[str, Any], state: str) -> ToolResult:
    shown = _approval(instance, record)
    verb = "Approved" if state == "approved" else "Rejected"
    data = {"sys_id": shown["sys_id"], "state": state, "url": shown["url"]}
    cited = (instance.cite(shown["of"] or "approval", shown["url"]),)
    return ToolResult(Outcome.SUCCEEDED, f"{verb} {shown['of'] or 'it'} in ServiceNow.", data, cited)


async def decide(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    decision, comments = str(arguments["decision"]), str(arguments.get("comments") or "")
    if decision not in ("approved", "rejected"):
        raise Refused(f"“{decision[:40]}” is no decision; it is approved or rejected.", asked=False)
    if decision == "rejected" and not comments.strip():
        raise Refused("ServiceNow takes a rejection with a comment only; say why, then ask again.", asked=False)
    with nothing_changed_yet():
        key, record = await _read_approval(instance, arguments, context)
        state = values.raw(record, "state")
        if state == decision:
            return _decided(instance, record, decision)
        if state != "requested":
            raise Refused(
                f"This approval of {values.shown(record, 'sysapproval', 100)} waits no more: it is in the state "
                f"{values.shown(record, 'state', 60)}. Nothing was changed."
            )
    body = {"state": decision, **({"comments": comments} if comments else {})}
    now = await instance.client.write("PATCH", _APPROVAL, context, body, _APPROVAL_FIELDS, key)
    if values.raw(now, "state") != decision:
        raise Refused(
            "ServiceNow did not take the decision: only the approver herself, or a delegate, may decide. It takes the "
            "permission “write on sysapproval_approver.state”; ask a ServiceNow administrator."
        )
    return _decided(instance, now, decision)


async def find_decision(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult | None:
    _, record = await _read_approval(instance, arguments, context)
    decision = str(arguments["decision"])
    return _decided(instance, record, decision) if values.raw(record, "state") == decision else None
