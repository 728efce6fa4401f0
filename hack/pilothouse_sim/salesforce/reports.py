"""Reports: list, describe, run at once; the facts as the Analytics API shapes them.

https://developer.salesforce.com/docs/atlas.en-us.api_analytics.meta/api_analytics/sforce_analytics_rest_api_getreportrundata.htm
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilothouse_sim.salesforce import access, evaluate, soql
from pilothouse_sim.salesforce.errors import SalesforceError
from pilothouse_sim.salesforce.evaluate import Session
from pilothouse_sim.salesforce.schema import OBJECTS
from pilothouse_sim.salesforce.store import Record

_OPERATORS = {"equals": "=", "notEqual": "!=", "lessThan": "<", "greaterThan": ">", "lessOrEqual": "<=",
              "greaterOrEqual": ">=", "contains": "LIKE", "startsWith": "LIKE"}  # fmt: skip
_MAX_ROWS = 2000
_NUMBERS = ("currency", "double", "int", "percent")


def _forbidden() -> SalesforceError:
    return SalesforceError(403, "FORBIDDEN", "You don't have sufficient privileges to perform this operation.")


def _entry(session: Session, record: Record) -> dict[str, Any]:
    url = f"{session.prefix}/analytics/reports/{record['Id']}"
    return {
        "id": record["Id"],
        "name": record["Name"],
        "url": url,
        "describeUrl": f"{url}/describe",
        "instancesUrl": f"{url}/instances",
        "fieldsUrl": f"{url}/fields",
    }


def listed(session: Session) -> list[dict[str, Any]]:
    """The reports that the user may run. Raises SalesforceError."""
    if "RunReports" not in session.user.profile.permissions:
        raise _forbidden()
    found = [r for r in session.store.all_of("Report") if access.may_read(session.user, r, session.store)]
    return [_entry(session, record) for record in sorted(found, key=lambda r: str(r["Name"]))]


def _report(session: Session, report_id: str) -> tuple[Record, Mapping[str, Any]]:
    if "RunReports" not in session.user.profile.permissions:
        raise _forbidden()
    record = session.store.find("Report", report_id)
    if record is None or not access.may_read(session.user, record, session.store):
        raise SalesforceError(404, "NOT_FOUND", f"The data you're trying to access is unavailable. {report_id[:18]}")
    return record, session.store.reports[record["Id"]]


def _metadata(record: Record, definition: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": record["Id"],
        "name": record["Name"],
        "developerName": record["DeveloperName"],
        "reportFormat": "SUMMARY" if definition.get("group") else "TABULAR",
        "reportType": {"type": definition["object"], "label": OBJECTS[definition["object"]].plural},
        "detailColumns": list(definition["columns"]),
        "aggregates": ["RowCount"],
        "groupingsDown": [{"name": definition["group"], "sortOrder": "Asc"}] if definition.get("group") else [],
        "groupingsAcross": [],
        "reportFilters": [],
        "reportBooleanFilter": None,
        "currency": "USD",
    }


def _extended(definition: Mapping[str, Any]) -> dict[str, Any]:
    columns = {
        column: {"label": _label(definition["object"], column), "dataType": _kind(definition["object"], column)}
        for column in definition["columns"]
    }
    group = definition.get("group")
    grouping = {group: {"label": _label(definition["object"], group), "level": 0}} if group else {}
    return {
        "aggregateColumnInfo": {"RowCount": {"label": "Record Count", "dataType": "int"}},
        "detailColumnInfo": columns,
        "groupingColumnInfo": grouping,
    }


def _label(name: str, column: str) -> str:
    field = OBJECTS[name].field_named(column.rpartition(".")[2])
    relation = column.rpartition(".")[0]
    return f"{relation}: {field.label if field else 'Name'}" if relation else field.label if field else column


def _kind(name: str, column: str) -> str:
    field = OBJECTS[name].field_named(column)
    return field.kind if field else "string"


def _as_seen(session: Session, definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """The report without the columns that the user may not read. Raises SalesforceError where nothing is left."""
    sobject = OBJECTS[definition["object"]]
    columns: list[str] = []
    for column in definition["columns"]:
        try:
            evaluate.resolve(session, column, sobject, soql.Path(tuple(column.split(".")), 0))
        except SalesforceError:
            continue
        columns.append(column)
    if not columns or not access.allowed(session.user, sobject.name, "r"):
        raise _forbidden()
    return {**definition, "columns": columns}


def describe(session: Session, report_id: str) -> dict[str, Any]:
    """What the report shows. Raises SalesforceError."""
    record, definition = _report(session, report_id)
    definition = _as_seen(session, definition)
    return {
        "attributes": {**_entry(session, record), "reportId": record["Id"], "type": "Report"},
        "reportMetadata": _metadata(record, definition),
        "reportExtendedMetadata": _extended(definition),
    }


def run(session: Session, report_id: str, body: object, *, details: bool) -> dict[str, Any]:
    """Runs the report as the user. ``body``: ``{"reportMetadata": {"reportFilters": […]}}`` or None.
    Raises SalesforceError."""
    record, definition = _report(session, report_id)
    definition = _as_seen(session, definition)
    metadata = _metadata(record, definition)
    filters = _filters(definition, body)
    metadata["reportFilters"] = filters
    group = definition.get("group")
    names = list(dict.fromkeys([*definition["columns"], *([group] if group else [])]))
    where = [f"({definition['filter']})"] if definition.get("filter") else []
    where += [_clause(definition["object"], entry) for entry in filters]
    # Its parts are the seed's and checked filters.
    clause = f" WHERE {' AND '.join(where)}" if where else ""
    source = f"SELECT {', '.join(names)} FROM {definition['object']}{clause}"  # noqa: S608
    try:
        rows = evaluate.run(session, soql.parse(source))
    except SalesforceError as error:
        # Its filter or its grouping is of what the user may not see: which one is not told.
        if error.code in ("INVALID_TYPE", "INVALID_FIELD"):
            raise _forbidden() from None
        raise
    facts: dict[str, Any] = {"T!T": _fact(definition, rows, details=details and not group)}
    groupings: list[dict[str, Any]] = []
    if group:
        for key in sorted({str(_at(row, group)) for row in rows}):
            inside = [row for row in rows if str(_at(row, group)) == key]
            groupings.append({"key": str(len(groupings)), "label": key, "value": key, "groupings": []})
            facts[f"{len(groupings) - 1}!T"] = _fact(definition, inside, details=details)
    return {
        "attributes": {**_entry(session, record), "reportId": record["Id"], "reportName": record["Name"],
                       "type": "Report"},
        "allData": len(rows) <= _MAX_ROWS,
        "hasDetailRows": details,
        "factMap": facts,
        "groupingsDown": {"groupings": groupings},
        "groupingsAcross": {"groupings": []},
        "reportMetadata": metadata,
        "reportExtendedMetadata": _extended(definition),
    }  # fmt: skip


def _at(row: Mapping[str, Any], column: str) -> Any:
    value: Any = row
    for part in column.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _fact(definition: Mapping[str, Any], rows: list[dict[str, Any]], *, details: bool) -> dict[str, Any]:
    fact: dict[str, Any] = {"aggregates": [{"label": str(len(rows)), "value": len(rows)}]}
    if details:
        fact["rows"] = [
            {"dataCells": [_cell(definition["object"], column, _at(row, column)) for column in definition["columns"]]}
            for row in rows[:_MAX_ROWS]
        ]
    return fact


def _cell(name: str, column: str, value: Any) -> dict[str, Any]:
    kind = _kind(name, column)
    if value is None:
        return {"label": "-", "value": None}
    if kind == "currency":
        return {"label": f"${value:,.2f}", "value": {"amount": value, "currency": None}}
    return {"label": str(value), "value": value}


def _filters(definition: Mapping[str, Any], body: object) -> list[dict[str, Any]]:
    if body is None:
        return []
    metadata = body.get("reportMetadata", {}) if isinstance(body, dict) else None
    filters = metadata.get("reportFilters", []) if isinstance(metadata, dict) else None
    if not isinstance(filters, list):
        raise SalesforceError(400, "BAD_REQUEST", "The request body is invalid: reportMetadata.reportFilters")
    for entry in filters:
        fine = isinstance(entry, dict) and all(isinstance(entry.get(k), str) for k in ("column", "operator", "value"))
        if not fine or entry["operator"] not in _OPERATORS or entry["column"] not in definition["columns"]:
            raise SalesforceError(400, "BAD_REQUEST", "The report has an invalid filter.")
    return filters


def _clause(name: str, entry: Mapping[str, str]) -> str:
    text = entry["value"].replace("\\", "\\\\").replace("'", "\\'")
    kind = _kind(name, entry["column"])
    operator = _OPERATORS[entry["operator"]]
    if operator == "LIKE":
        return f"{entry['column']} LIKE '{'%' if entry['operator'] == 'contains' else ''}{text}%'"
    if kind in (*_NUMBERS, "boolean", "date", "datetime"):
        if not all(c.isalnum() or c in ".:+-" for c in text):
            raise SalesforceError(400, "BAD_REQUEST", "The report has an invalid filter.")
        return f"{entry['column']} {operator} {text}"
    return f"{entry['column']} {operator} '{text}'"
