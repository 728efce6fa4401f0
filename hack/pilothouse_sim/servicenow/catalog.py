"""The Service Catalog API: find items, read their variables, order.

https://www.servicenow.com/docs/r/api-reference/rest-apis/c_ServiceCatalogAPI.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from pilothouse_sim.servicenow.errors import ServiceNowError
from pilothouse_sim.servicenow.http import base_of, json_body, number_of
from pilothouse_sim.servicenow.store import Record, Store, User, timestamp

_ITEM_LIMIT = 10
_QUANTITY = re.compile(r"\+?[0-9]{1,6}")
_ORDER_FIELDS = {
    "sysparm_quantity", "variables", "sysparm_requested_for", "sysparm_no_validation", "get_portal_messages",
    "sysparm_also_request_for", "sysparm_item_guid", "engagement_channel", "referrer", "sysparm_id",
}  # fmt: skip
_TYPES = {"1": "Yes / No", "5": "Select Box", "6": "Single Line Text", "2": "Multi Line Text", "8": "Reference",
          "7": "CheckBox", "9": "Date"}  # fmt: skip


def _text_of(item: Record) -> str:
    return f"{item['name']} {item['short_description']} {item['description']}".lower()


class CatalogApi:
    """The handlers; ``clock`` gives epoch seconds."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self.store = store
        self.clock = clock

    def _visible(self, user: User, item: Record) -> bool:
        return user.has("snc_internal") and item["active"] == "true"

    def _item(self, request: web.Request, user: User, complaint: str) -> Record:
        item = self.store.find("sc_cat_item", request.match_info["sys_id"])
        if item is None or not self._visible(user, item):
            raise ServiceNowError(400, complaint)
        return item

    async def items(self, request: web.Request, user: User) -> web.Response:
        """Items that the user may order; ``sysparm_text`` looks into name and description."""
        words = request.query.get("sysparm_text", "").lower().split()
        category = request.query.get("sysparm_category", "")
        limit = number_of(request, "sysparm_limit", _ITEM_LIMIT)
        offset = number_of(request, "sysparm_offset", 0)
        found = [
            item
            for item in self.store.all_of("sc_cat_item")
            if self._visible(user, item)
            and all(word in _text_of(item) for word in words)
            and category in ("", item["category"])
        ]
        base = base_of(request)
        response = web.json_response({"result": [self._view(item, base) for item in found[offset : offset + limit]]})
        response.headers["X-Total-Count"] = str(len(found))
        return response

    async def get(self, request: web.Request, user: User) -> web.Response:
        """One item with its variables."""
        item = self._item(request, user, "Invalid Request/ Item does not exist or User does not have access")
        view = self._view(item, base_of(request))
        view["description"] = item["description"]
        view["variables"] = [self._variable(n, entry) for n, entry in enumerate(self._variables(item), 1)]
        return web.json_response({"result": view})

    async def order_now(self, request: web.Request, user: User) -> web.Response:
        """Orders an item; the answer names the request."""
        body = await json_body(request)
        quantity = str(body.get("sysparm_quantity", ""))
        if not _QUANTITY.fullmatch(quantity) or int(quantity) < 1:
            raise ServiceNowError(400, "Invalid Quantity value")
        if unknown := sorted(set(body) - _ORDER_FIELDS):
            raise ServiceNowError(400, "Invalid Request", f"Unknown field {unknown[0]}")
        item = self._item(request, user, "Security constraints prevent ordering of Item")
        variables = body.get("variables", {})
        if not isinstance(variables, Mapping):
            raise ServiceNowError(400, "Invalid Request", "variables must be an object")
        values = {name: "" if value is None else str(value) for name, value in variables.items()}
        entries = {entry["name"]: entry for entry in self._variables(item)}
        if any(entry.get("mandatory") and not values.get(name, "").strip() for name, entry in entries.items()):
            raise ServiceNowError(400, "Mandatory Variables are required")
        whom = str(body.get("sysparm_requested_for", "") or user.sys_id)
        if self.store.find("sys_user", whom) is None:
            raise ServiceNowError(400, "Invalid Request", "sysparm_requested_for is not a user")
        ordered = self._order(item, int(quantity), {n: v for n, v in values.items() if n in entries}, whom, user)
        answer = {
            "sys_id": ordered["sys_id"],
            "number": ordered["number"],
            "request_number": ordered["number"],
            "parent_id": None,
            "request_id": ordered["sys_id"],
            "parent_table": "task",
            "table": "sc_request",
        }
        return web.json_response({"result": answer})

    def _order(self, item: Record, quantity: int, variables: Mapping[str, str], whom: str, user: User) -> Record:
        now = self.clock()
        when = timestamp(now)
        approver = str(self._extra(item).get("approver", ""))
        opened = {"opened_by": user.sys_id, "opened_at": when, "requested_for": whom}
        approval = "requested" if approver else "approved"
        ordered = self.store.new_record("sc_request", user, now)
        ordered.update(
            opened,
            short_description=item["name"],
            approval=approval,
            request_state="requested" if approver else "in_process",
            price=item["price"],
        )
        line = self.store.new_record("sc_req_item", user, now)
        line.update(
            opened,
            request=ordered["sys_id"],
            cat_item=item["sys_id"],
            short_description=item["short_description"],
            quantity=str(quantity),
            approval=approval,
            stage="waiting_for_approval" if approver else "fulfillment",
            price=item["price"],
        )
        line.update({f"_variables.{name}": value for name, value in variables.items()})
        records = [ordered, line]
        if approver:
            asked = self.store.new_record("sysapproval_approver", user, now)
            asked.update(
                approver=approver,
                sysapproval=ordered["sys_id"],
                document_id=ordered["sys_id"],
                source_table="sc_request",
            )
            records.append(asked)
        self.store.save(*records)
        return ordered

    def _extra(self, item: Record) -> Mapping[str, Any]:
        return self.store.items.get(item["sys_id"], {})

    def _variables(self, item: Record) -> list[Mapping[str, Any]]:
        return list(self._extra(item).get("variables", []))

    def _variable(self, number: int, entry: Mapping[str, Any]) -> dict[str, Any]:
        kind = str(entry.get("type", "6"))
        return {
            "active": True,
            "label": entry["label"],
            "displayvalue": "",
            "value": entry.get("default", ""),
            "type": int(kind),
            "friendly_type": _TYPES[kind].lower().replace(" ", "_"),
            "mandatory": bool(entry.get("mandatory", False)),
            "read_only": False,
            "name": entry["name"],
            "id": f"{number:032x}",
            "order": number * 100,
            "help_text": entry.get("help", ""),
            "max_length": 0,
            "reference": entry.get("reference", ""),
            "choices": [
                {"label": label, "value": value, "index": index}
                for index, (value, label) in enumerate(entry.get("choices", {}).items())
            ],
        }

    def _view(self, item: Record, base: str) -> dict[str, Any]:
        category = item["category"]
        return {
            "sys_id": item["sys_id"],
            "name": item["name"],
            "short_description": item["short_description"],
            "description": item["description"],
            "sys_class_name": "sc_cat_item",
            "type": "catalog_item",
            "price": item["price"],
            "localized_price": item["price"],
            "show_price": bool(item["price"]),
            "show_quantity": True,
            "category": {"sys_id": category, "title": self.store.display("sc_category", category)},
            "catalogs": [
                {"sys_id": part, "active": True, "title": self.store.display("sc_catalog", part)}
                for part in item["sc_catalogs"].split(",")
                if part
            ],
            "availability": "on_both",
            "request_method": "",
            "mandatory_attachment": False,
            "visible_standalone": True,
            "icon": "",
            "picture": "",
            "order": 0,
            "url": f"{base}/com.glideapp.servicecatalog_cat_item_view.do?v=1&sysparm_id={item['sys_id']}",
        }
