"""The Table API: ``/api/now/table/{table}`` and, with a version, ``/api/now/v1|v2/table/{table}``.

https://www.servicenow.com/docs/r/api-reference/rest-apis/c_TableAPI.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from aiohttp import web

from pilothouse_sim.servicenow import access, query, rules
from pilothouse_sim.servicenow.errors import ServiceNowError, acl, no_query_rights, no_record
from pilothouse_sim.servicenow.http import MAX_LIMIT, base_of, json_body, number_of, page_links
from pilothouse_sim.servicenow.schema import TABLES, fields_of
from pilothouse_sim.servicenow.store import Record, Store, User, timestamp
from pilothouse_sim.servicenow.views import Shape, record_view, shape_of

SYS_ID = re.compile(r"[0-9a-f]{32}")


def table_named(name: str) -> str:
    """The table. Raises ServiceNowError 400 where there is none."""
    if name not in TABLES:
        raise ServiceNowError(400, f"Invalid table {name}")
    return name


class TableApi:
    """The handlers; ``clock`` gives epoch seconds."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self.store = store
        self.clock = clock

    def _shape(self, request: web.Request) -> Shape:
        prefix = request.path.partition("/table/")[0]
        return shape_of(request.query, f"{base_of(request)}{prefix}/table")

    async def list(self, request: web.Request, user: User) -> web.Response:
        """Records of a table. As on the platform, what the user may not read is left out after counting and paging."""
        table = table_named(request.match_info["table"])
        source = [request.query.get("sysparm_query", "")]
        # A parameter that is a field's name is a condition, too.
        source += [f"{name}={value}" for name, value in request.query.items() if name in fields_of(table)]
        asked = query.parse(table, "^".join(part for part in source if part))
        if not access.may_query(user, table):
            if asked.fields():
                raise no_query_rights()
            return web.json_response({"result": []}, headers={"X-Total-Count": "0"})
        limit = min(number_of(request, "sysparm_limit", MAX_LIMIT), MAX_LIMIT)
        offset = number_of(request, "sysparm_offset", 0)
        reachable = (r for r in self.store.all_of(table) if access.in_query(user, r, self.store))
        found = query.select(asked, table, reachable, self.store)
        shape = self._shape(request)
        readable = [r for r in found[offset : offset + limit] if access.may_read(user, r, self.store)]
        response = web.json_response({"result": [record_view(r, shape, self.store, user) for r in readable]})
        if request.query.get("sysparm_no_count") != "true":
            response.headers["X-Total-Count"] = str(len(found))
        links = page_links(request, offset, limit, len(found))
        if links and request.query.get("sysparm_suppress_pagination_header") != "true":
            response.headers["Link"] = links
        return response

    def _record(self, request: web.Request, user: User) -> Record:
        """A copy that a handler may change and then save. Raises ServiceNowError."""
        table = table_named(request.match_info["table"])
        record = self.store.find(table, request.match_info["sys_id"])
        if record is None or not access.may_read(user, record, self.store):
            raise no_record()
        return dict(record)

    async def get(self, request: web.Request, user: User) -> web.Response:
        """One record."""
        record = self._record(request, user)
        return web.json_response({"result": record_view(record, self._shape(request), self.store, user)})

    async def create(self, request: web.Request, user: User) -> web.Response:
        """Inserts a record; fields that are not there or that the user may not write are dropped."""
        table = table_named(request.match_info["table"])
        given = rules.checked(table, self._from_display(request, table, await json_body(request)))
        if not access.may_create(user, table):
            raise acl("Insert")
        now = self.clock()
        values = _writable(user, table, given, creating=True)
        record = self.store.new_record(table, user, now)
        record.update({name: value for name, value in values.items() if fields_of(table)[name].kind != "journal_input"})
        rules.before_insert(record, user, self.store, now)
        self.store.save(record, *rules.journal_entries(record, values, user, self.store, now))
        shape = self._shape(request)
        response = web.json_response({"result": record_view(record, shape, self.store, user)}, status=201)
        response.headers["Location"] = f"{shape.base}/{table}/{record['sys_id']}"
        return response

    async def update(self, request: web.Request, user: User) -> web.Response:
        """Changes the fields that are given (PATCH and PUT alike, as on the platform)."""
        record = self._record(request, user)
        table = record["sys_class_name"]
        given = rules.checked(table, self._from_display(request, table, await json_body(request)))
        if not access.may_write(user, record):
            raise acl("Update")
        values = _writable(user, table, given, creating=False)
        old = dict(record)
        now = self.clock()
        record.update({name: value for name, value in values.items() if fields_of(table)[name].kind != "journal_input"})
        also = rules.before_update(record, old, user, self.store, now)
        entries = rules.journal_entries(record, values, user, self.store, now)
        if record != old or entries:
            record["sys_updated_on"], record["sys_updated_by"] = timestamp(now), user.user_name
            record["sys_mod_count"] = str(int(old["sys_mod_count"]) + 1)
            self.store.save(record, *also, *entries)
        return web.json_response({"result": record_view(record, self._shape(request), self.store, user)})

    async def delete(self, request: web.Request, user: User) -> web.Response:
        """Deletes a record."""
        record = self._record(request, user)
        if not access.may_delete(user, record):
            raise acl("Delete")
        self.store.delete(record)
        return web.Response(status=204)

    def _from_display(self, request: web.Request, table: str, given: Mapping[str, object]) -> dict[str, object]:
        """Labels and names become values and sys_ids where ``sysparm_input_display_value`` says so."""
        values = dict(given)
        if request.query.get("sysparm_input_display_value") != "true":
            return values
        for name, value in given.items():
            field = fields_of(table).get(name)
            if field is None or not isinstance(value, str):
                continue
            if field.choices:
                values[name] = next((key for key, label in field.choices.items() if label == value), value)
            elif field.kind == "reference" and not SYS_ID.fullmatch(value):
                values[name] = self._named(field.reference, value)
        return values

    def _named(self, table: str, name: str) -> str:
        records = (r["sys_id"] for r in self.store.all_of(table) if self.store.display(table, r["sys_id"]) == name)
        return next(records, "")


def _writable(user: User, table: str, given: dict[str, str], *, creating: bool) -> dict[str, str]:
    allowed = access.writable_fields(user, table, creating=creating)
    return {name: value for name, value in given.items() if name in allowed}
