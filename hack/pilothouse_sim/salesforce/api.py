"""The REST resources, apart from HTTP: (method, path, parameters, body) → answer; so that composite can call them too.

https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_list.htm
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from pilothouse_sim.salesforce import access, evaluate, records, reports, search, soql
from pilothouse_sim.salesforce.errors import SalesforceError, not_found
from pilothouse_sim.salesforce.evaluate import Session
from pilothouse_sim.salesforce.schema import OBJECTS, SObject, object_named
from pilothouse_sim.salesforce.store import Record, Store, User

OLDEST, NEWEST = 31, 68
MAX_BATCH, MIN_BATCH = 2000, 200
_MAX_CURSORS = 50
_BATCH = re.compile(r"\bbatchSize\s*=\s*(\d{1,6})\b", re.IGNORECASE)


@dataclass(frozen=True)
class Call:
    """A request to a resource; ``path`` without ``/services/data/vXX.0``, its parts still percent-encoded."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    version: int = NEWEST


@dataclass
class Answer:
    """What a resource answers; ``body`` None: nothing."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


Handler = Callable[[Session, Call, list[str]], Answer]


def _object_body(call: Call) -> dict[str, Any]:
    if not isinstance(call.body, dict):
        raise SalesforceError(
            400, "JSON_PARSER_ERROR", "The HTTP entity body is required, but this request has no entity body."
        )
    return call.body


def _flag(value: object) -> bool:
    return value is True or (isinstance(value, str) and value.lower() == "true")


def saved(record: Record, *, created: bool | None = None) -> dict[str, Any]:
    """A save result without errors."""
    more = {} if created is None else {"created": created}
    return {"id": record["Id"], "success": True, "errors": [], **more}


class Api:
    """The resources; ``clock`` gives epoch seconds, ``batch`` is how many records a page of a query has."""

    def __init__(self, store: Store, clock: Callable[[], float], batch: int = MAX_BATCH) -> None:
        self.store = store
        self.clock = clock
        self.batch = batch
        self.used = 0
        """Requests counted against the daily limit."""
        self._cursors: OrderedDict[str, tuple[str, int, list[dict[str, Any]]]] = OrderedDict()
        self._opened = 0
        name, record_id = r"/sobjects/([^/]+)", r"([^/]+)"
        routes: tuple[tuple[str, dict[str, Handler]], ...] = (
                (r"", {"GET": self._resources}),
                (r"/limits", {"GET": self._limits}),
                (r"/query(?:All)?", {"GET": self._query}),
                (r"/query/([^/]+)", {"GET": self._more}),
                (r"/search", {"GET": self._search}),
                (r"/parameterizedSearch", {"GET": self._parameterized, "POST": self._parameterized}),
                (r"/sobjects", {"GET": self._global}),
                (name, {"GET": self._basic, "POST": self._create}),
                (rf"{name}/describe", {"GET": self._describe}),
                (rf"{name}/{record_id}", {"GET": self._get, "PATCH": self._update, "DELETE": self._delete}),
                (rf"{name}/([^/]+)/([^/]+)",
                 {"GET": self._get_by_key, "PATCH": self._upsert, "DELETE": self._delete_by_key}),
                (r"/composite/sobjects",
                 {"POST": self._create_many, "PATCH": self._update_many, "DELETE": self._delete_many}),
                (r"/composite/sobjects/([^/]+)", {"GET": self._get_many}),
                (r"/analytics/reports", {"GET": self._reports}),
                (r"/analytics/reports/([^/]+)", {"GET": self._run_report, "POST": self._run_report}),
                (r"/analytics/reports/([^/]+)/describe", {"GET": self._describe_report}),
        )  # fmt: skip
        self._routes = [(re.compile(pattern), handlers) for pattern, handlers in routes]

    def session(self, user: User, version: int) -> Session:
        """As whom and when a request runs."""
        return Session(user, self.store, self.clock(), f"/services/data/v{version}.0")

    def handle(self, session: Session, call: Call) -> Answer:
        """Answers one request. Raises SalesforceError."""
        for pattern, handlers in self._routes:
            match = pattern.fullmatch(call.path.rstrip("/"))
            if not match:
                continue
            handler = handlers.get(call.method)
            if handler is None:
                allowed = ", ".join(handlers)
                sentence = f"HTTP Method '{call.method}' not allowed. Allowed are {allowed}"
                raise SalesforceError(405, "METHOD_NOT_ALLOWED", sentence)
            return handler(session, call, [unquote(part) for part in match.groups()])
        raise not_found()

    # --- what there is

    def _resources(self, session: Session, _call: Call, _parts: list[str]) -> Answer:
        names = ("sobjects", "query", "search", "parameterizedSearch", "composite", "limits", "analytics")
        return Answer(200, {name: f"{session.prefix}/{name}" for name in names})

    def _limits(self, _session: Session, _call: Call, _parts: list[str]) -> Answer:
        most = self.store.daily_requests
        daily = {"Max": most, "Remaining": max(0, most - self.used)}
        storage = {"Max": 1000, "Remaining": 990}
        return Answer(200, {"DailyApiRequests": daily, "DataStorageMB": storage, "FileStorageMB": storage})

    def _global(self, session: Session, _call: Call, _parts: list[str]) -> Answer:
        readable = [entry for entry in OBJECTS.values() if access.allowed(session.user, entry.name, "r")]
        listed = [self._summary(session, entry) for entry in readable]
        return Answer(200, {"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": listed})

    def _summary(self, session: Session, sobject: SObject) -> dict[str, Any]:
        can = {letter: access.allowed(session.user, sobject.name, letter) for letter in "crud"}
        url = f"{session.prefix}/sobjects/{sobject.name}"
        return {
            "name": sobject.name,
            "label": sobject.label,
            "labelPlural": sobject.plural,
            "keyPrefix": sobject.prefix,
            "custom": sobject.name.endswith("__c"),
            "queryable": can["r"],
            "retrieveable": can["r"],
            "searchable": bool(sobject.search),
            "createable": can["c"],
            "updateable": can["u"],
            "deletable": can["d"],
            "layoutable": True,
            "urls": {"sobject": url, "describe": f"{url}/describe", "rowTemplate": url + "/{ID}"},
        }

    def _basic(self, session: Session, _call: Call, parts: list[str]) -> Answer:
        sobject = records.visible_object(session, parts[0])
        return Answer(200, {"objectDescribe": self._summary(session, sobject), "recentItems": []})

    def _describe(self, session: Session, _call: Call, parts: list[str]) -> Answer:
        sobject = records.visible_object(session, parts[0])
        fields = []
        for entry in sobject.fields:
            if not access.field_visible(session.user, sobject, entry):
                continue
            editable = access.field_editable(session.user, sobject, entry)
            fields.append(
                entry.describe(
                    createable=entry.createable and editable and access.allowed(session.user, sobject.name, "c"),
                    updateable=entry.updateable and editable and access.allowed(session.user, sobject.name, "u"),
                )
            )
        children = [
            {"relationshipName": name, "childSObject": child, "field": reference, "cascadeDelete": False}
            for name, (child, reference) in sobject.children.items()
        ]
        return Answer(200, {**self._summary(session, sobject), "fields": fields, "childRelationships": children,
                            "recordTypeInfos": []})  # fmt: skip

    # --- queries and searches

    def _query(self, session: Session, call: Call, _parts: list[str]) -> Answer:
        if "q" not in call.query:
            raise SalesforceError(400, "MALFORMED_QUERY", "SOQL query is required: parameter q")
        query = soql.parse(call.query["q"])
        rows = evaluate.run(session, query)
        if query.count:
            return Answer(200, {"totalSize": rows[0]["count"], "done": True, "records": []})
        asked = _BATCH.search(call.headers.get("Sforce-Query-Options", ""))
        size = min(MAX_BATCH, max(MIN_BATCH, int(asked[1]))) if asked else self.batch
        if len(rows) <= size:
            return Answer(200, {"totalSize": len(rows), "done": True, "records": rows})
        self._opened += 1
        locator = f"01g5g0000{self._opened:06d}AAA"
        self._cursors[locator] = (session.user.id, size, rows)
        while len(self._cursors) > _MAX_CURSORS:
            self._cursors.popitem(last=False)
        return self._page(session, locator, rows, 0, size)

    def _page(self, session: Session, locator: str, rows: list[dict[str, Any]], start: int, size: int) -> Answer:
        end = start + size
        body: dict[str, Any] = {"totalSize": len(rows), "done": end >= len(rows), "records": rows[start:end]}
        if end < len(rows):
            body["nextRecordsUrl"] = f"{session.prefix}/query/{locator}-{end}"
        return Answer(200, body)

    def _more(self, session: Session, _call: Call, parts: list[str]) -> Answer:
        locator, _, place = parts[0].partition("-")
        owner, size, rows = self._cursors.get(locator, ("", 0, []))
        if owner != session.user.id or not (place.isascii() and place.isdigit()) or int(place) >= len(rows):
            raise SalesforceError(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        return self._page(session, locator, rows, int(place), size)

    def _search(self, session: Session, call: Call, _parts: list[str]) -> Answer:
        if "q" not in call.query:
            raise SalesforceError(400, "MALFORMED_SEARCH", "No search term found.")
        return Answer(200, {"searchRecords": search.run(session, search.parse(call.query["q"]))})

    def _parameterized(self, session: Session, call: Call, _parts: list[str]) -> Answer:
        asked = search.from_body(_object_body(call)) if call.method == "POST" else search.from_query(call.query)
        return Answer(200, {"searchRecords": search.run(session, asked)})

    # --- single records

    def _create(self, session: Session, call: Call, parts: list[str]) -> Answer:
        sobject = records.visible_object(session, parts[0])
        record = records.create(session, sobject, _object_body(call))
        location = f"{session.prefix}/sobjects/{sobject.name}/{record['Id']}"
        return Answer(201, saved(record), {"Location": location})

    def _get(self, session: Session, call: Call, parts: list[str]) -> Answer:
        sobject = records.visible_object(session, parts[0])
        record = records.find(session, sobject, parts[1])
        return Answer(200, records.view(session, sobject, record, _names(call)))

    def _update(self, session: Session, call: Call, parts: list[str]) -> Answer:
        sobject = records.visible_object(session, parts[0])
        records.update(session, sobject, records.find(session, sobject, parts[1]), _object_body(call))
        return Answer(204)

    def _delete(self, session: Session, _call: Call, parts: list[str]) -> Answer:
        records.delete(session, records.find(session, records.visible_object(session, parts[0]), parts[1]))
        return Answer(204)

    def _by_key(self, session: Session, parts: list[str]) -> tuple[SObject, Record]:
        sobject = records.visible_object(session, parts[0])
        record = records.find_by_key(session, sobject, parts[1], parts[2])
        if record is None or not access.may_read(session.user, record, session.store):
            raise not_found()
        return sobject, record

    def _get_by_key(self, session: Session, call: Call, parts: list[str]) -> Answer:
        sobject, record = self._by_key(session, parts)
        return Answer(200, records.view(session, sobject, record, _names(call)))

    def _upsert(self, session: Session, call: Call, parts: list[str]) -> Answer:
        sobject = records.visible_object(session, parts[0])
        record, created = records.upsert(session, sobject, parts[1], parts[2], _object_body(call))
        # From version 46 on, a change is told like a creation; before, it was a 204 without a body.
        if created or call.version >= 46:
            return Answer(201 if created else 200, saved(record, created=created))
        return Answer(204)

    def _delete_by_key(self, session: Session, _call: Call, parts: list[str]) -> Answer:
        records.delete(session, self._by_key(session, parts)[1])
        return Answer(204)

    # --- collections

    def _create_many(self, session: Session, call: Call, _parts: list[str]) -> Answer:
        return self._many(call, lambda entry: records.create(session, _typed(session, entry), entry))

    def _update_many(self, session: Session, call: Call, _parts: list[str]) -> Answer:
        def change(entry: dict[str, Any]) -> Record:
            sobject = _typed(session, entry)
            values = {name: value for name, value in entry.items() if name.lower() != "id"}
            found = records.find(session, sobject, str(entry.get("id") or entry.get("Id") or ""))
            return records.update(session, sobject, found, values)

        return self._many(call, change)

    def _delete_many(self, session: Session, call: Call, _parts: list[str]) -> Answer:
        ids = [part for part in call.query.get("ids", "").split(",") if part]

        def remove(entry: dict[str, Any]) -> Record:
            sobject = next((o for o in OBJECTS.values() if o.prefix == entry["id"][:3]), None)
            if sobject is None:
                raise SalesforceError(400, "MALFORMED_ID", f"malformed id {entry['id'][:40]}")
            found = records.find(session, records.visible_object(session, sobject.name), entry["id"])
            records.delete(session, found)
            return found

        body = {"allOrNone": _flag(call.query.get("allOrNone")), "records": [{"id": part} for part in ids]}
        return self._many(Call(call.method, call.path, call.query, body), remove)

    def _many(self, call: Call, one: Callable[[dict[str, Any]], Record]) -> Answer:
        """At most 200 records, each with a result of its own; with allOrNone all or none."""
        body = _object_body(call)
        given = body.get("records")
        if not isinstance(given, list) or not given or not all(isinstance(entry, dict) for entry in given):
            raise SalesforceError(400, "REQUIRED_FIELD_MISSING", "Required fields are missing: [records]", "records")
        if len(given) > 200:
            raise SalesforceError(400, "EXCEEDED_MAX_SOBJECTS", f"The limit of 200 SObjects was exceeded: {len(given)}")
        atomic = _flag(body.get("allOrNone")) and self.store.begin()
        results: list[dict[str, Any]] = []
        failed = False
        for entry in given:
            try:
                results.append(saved(one(entry)))
            except SalesforceError as error:
                failed = True
                results.append({"success": False, "errors": [error.as_result()]})
        if atomic:
            self.store.rollback() if failed else self.store.commit()
        if failed and _flag(body.get("allOrNone")):
            rolled = SalesforceError(
                400,
                "ALL_OR_NONE_OPERATION_ROLLED_BACK",
                "Record rolled back because not all records were valid and the request was using AllOrNone header",
            )
            results = [r if not r["success"] else {"success": False, "errors": [rolled.as_result()]} for r in results]
        return Answer(200, results)

    def _get_many(self, session: Session, call: Call, parts: list[str]) -> Answer:
        sobject = records.visible_object(session, parts[0])
        shown: list[dict[str, Any] | None] = []
        for record_id in call.query.get("ids", "").split(","):
            try:
                shown.append(records.view(session, sobject, records.find(session, sobject, record_id), _names(call)))
            except SalesforceError as error:
                if error.status != 404:
                    raise
                shown.append(None)
        return Answer(200, shown)

    # --- reports

    def _reports(self, session: Session, _call: Call, _parts: list[str]) -> Answer:
        return Answer(200, reports.listed(session))

    def _run_report(self, session: Session, call: Call, parts: list[str]) -> Answer:
        body = _object_body(call) if call.method == "POST" else None
        return Answer(200, reports.run(session, parts[0], body, details=_flag(call.query.get("includeDetails"))))

    def _describe_report(self, session: Session, _call: Call, parts: list[str]) -> Answer:
        return Answer(200, reports.describe(session, parts[0]))


def _names(call: Call) -> list[str]:
    return [name.strip() for name in call.query.get("fields", "").split(",") if name.strip()]


def _typed(session: Session, entry: Mapping[str, Any]) -> SObject:
    attributes = entry.get("attributes")
    name = attributes.get("type") if isinstance(attributes, dict) else None
    sobject = object_named(name) if isinstance(name, str) else None
    if sobject is None or not access.allowed(session.user, sobject.name, "r"):
        raise SalesforceError(400, "INVALID_TYPE", f"sObject type '{name}' is not supported.")
    return sobject
