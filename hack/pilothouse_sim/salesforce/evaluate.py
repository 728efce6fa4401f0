"""Runs a parsed query as a user: only objects, fields and records that she may read; pure over the store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pilothouse_sim.salesforce import access, dates, patterns, soql
from pilothouse_sim.salesforce.errors import SalesforceError
from pilothouse_sim.salesforce.schema import Field, SObject, long_id, object_named
from pilothouse_sim.salesforce.soql import Aggregate, Comparison, Condition, Literal, Path, Query, SemiJoin, located
from pilothouse_sim.salesforce.store import Record, Store, User

MAX_OFFSET = 2000
_ID = re.compile(r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?")
_KINDS = {"currency": "double", "double": "double", "percent": "double", "int": "int", "boolean": "boolean",
          "date": "date", "datetime": "dateTime"}  # fmt: skip
_EXPECTED = {"currency": "number", "double": "number", "percent": "number", "int": "number", "boolean": "boolean"}
_TIMES = {"date", "datetime"}


@dataclass(frozen=True)
class Session:
    """As whom, over what and when (epoch seconds) a query runs; ``prefix`` begins the records' addresses."""

    user: User
    store: Store
    now: float
    prefix: str


def no_type(source: str, at: int, name: str) -> SalesforceError:
    """INVALID_TYPE: the object is not there, or the user may not read it."""
    return located(
        source, at,
        f"sObject type '{name}' is not supported. If you are attempting to use a custom object, be sure to append the "
        "'__c' after the entity name. Please reference your WSDL or the describe call for the appropriate names.",
        "INVALID_TYPE",
    )  # fmt: skip


def object_for(session: Session, source: str, at: int, name: str) -> SObject:
    """The object, if the user may read it. Raises SalesforceError."""
    sobject = object_named(name)
    if sobject is None or not access.allowed(session.user, sobject.name, "r"):
        raise no_type(source, at, name)
    return sobject


def resolve(session: Session, source: str, sobject: SObject, path: Path) -> tuple[list[Field], Field]:
    """The references on the way and the field at the end. Raises SalesforceError INVALID_FIELD."""
    way: list[Field] = []
    current = sobject
    for name in path.parts[:-1]:
        reference = current.relationship_named(name)
        target = object_named(reference.refers) if reference else None
        if reference is None or target is None or not access.field_visible(session.user, current, reference):
            if not way and name.lower() == sobject.name.lower():
                continue  # Account.Name in a query of Account
            raise located(
                source, path.at,
                f"Didn't understand relationship '{name}' in field path. If you are attempting to use a custom "
                "relationship, be sure to append the '__r' after the custom relationship name. Please reference your "
                "WSDL or the describe call for the appropriate names.",
                "INVALID_FIELD",
            )  # fmt: skip
        way.append(reference)
        current = target
    found = current.field_named(path.parts[-1])
    readable = access.allowed(session.user, current.name, "r")
    if found is None or not readable or not access.field_visible(session.user, current, found):
        raise located(
            source, path.at,
            f"No such column '{path.parts[-1]}' on entity '{current.name}'. If you are attempting to use a custom "
            "field, be sure to append the '__c' after the custom field name. Please reference your WSDL or the "
            "describe call for the appropriate names.",
            "INVALID_FIELD",
        )  # fmt: skip
    return way, found


def _end(session: Session, record: Record, way: Sequence[Field]) -> Record | None:
    current: Record | None = record
    for reference in way:
        current = access.related(session.store, current, reference.name) if current else None
    return current


def run(session: Session, query: Query, within: Iterable[Record] | None = None) -> list[dict[str, Any]]:
    """The records as the API shows them; one number for COUNT(). ``within``: only these. Raises SalesforceError."""
    sobject = object_for(session, query.source, query.name_at, query.name)
    found = _matching(session, query, sobject, within)
    aggregates = [entry for entry in query.fields if isinstance(entry, Aggregate)]
    if query.count:
        return [{"count": len(found[: query.limit] if query.limit is not None else found)}]
    if aggregates or query.group:
        rows = _grouped(session, query, sobject, found)
    else:
        shapes = [_shaper(session, query, sobject, entry) for entry in query.fields]
        rows = []
        for record in found:
            view = start(session, sobject, record)
            for shape in shapes:
                shape(record, view)
            rows.append(view)
    return rows


def start(session: Session, sobject: SObject, record: Record) -> dict[str, Any]:
    """A record's view without fields."""
    url = f"{session.prefix}/sobjects/{sobject.name}/{record['Id']}"
    return {"attributes": {"type": sobject.name, "url": url}}


def _matching(session: Session, query: Query, sobject: SObject, within: Iterable[Record] | None) -> list[Record]:
    if query.offset > MAX_OFFSET:
        raise SalesforceError(400, "NUMBER_OUTSIDE_VALID_RANGE", f"Maximum SOQL offset allowed is {MAX_OFFSET}")
    test = _condition(session, query, sobject, query.where) if query.where else None
    orders = [(order, *resolve(session, query.source, sobject, order.path)) for order in query.order]
    for order, _, ended in orders:
        if not ended.filterable:
            raise _unusable(query, order.path, "sorted")
    source = session.store.all_of(sobject.name) if within is None else within
    found = [r for r in source if (test is None or test(r)) and access.may_read(session.user, r, session.store)]
    if query.group or any(isinstance(entry, Aggregate) for entry in query.fields):
        return found
    for order, way, ended in reversed(orders):
        found.sort(key=_sort_key(session, way, ended), reverse=order.descending)
        empty = [r for r in found if _value(session, r, way, ended) is None]
        full = [r for r in found if _value(session, r, way, ended) is not None]
        found = full + empty if order.nulls_last else empty + full
    stop = None if query.limit is None else query.offset + query.limit
    return found if query.count else found[query.offset : stop]


def _value(session: Session, record: Record, way: Sequence[Field], ended: Field) -> Any:
    end = _end(session, record, way)
    return end.get(ended.name) if end else None


def _sort_key(session: Session, way: Sequence[Field], ended: Field) -> Callable[[Record], Any]:
    def key(record: Record) -> Any:
        value = _value(session, record, way, ended)
        if ended.kind in ("currency", "double", "percent", "int", "boolean"):
            return float(value or 0)
        return str(value or "").lower()

    return key


def _unusable(query: Query, path: Path, verb: str) -> SalesforceError:
    return located(
        query.source, path.at, f"field '{path.parts[-1]}' can not be {verb} in a query call", "INVALID_FIELD"
    )


# --- what is shown


def _shaper(
    session: Session, query: Query, sobject: SObject, entry: Path | Aggregate | Query
) -> Callable[[Record, dict[str, Any]], None]:
    if isinstance(entry, Query):
        return _children(session, query, sobject, entry)
    assert isinstance(entry, Path)
    way, ended = resolve(session, query.source, sobject, entry)

    def shape(record: Record, view: dict[str, Any]) -> None:
        current: Record | None = record
        for reference in way:
            current = access.related(session.store, current, reference.name) if current else None
            target = object_named(reference.refers)
            if current is None or target is None:
                view[reference.relationship] = None
                return
            inner = view.get(reference.relationship)
            if inner is None:
                inner = view[reference.relationship] = start(session, target, current)
            view = inner
        view[ended.name] = current.get(ended.name) if current else None

    return shape


def _children(
    session: Session, query: Query, sobject: SObject, inner: Query
) -> Callable[[Record, dict[str, Any]], None]:
    name = next((key for key in sobject.children if key.lower() == inner.name.lower()), None)
    if name is None:
        raise located(
            query.source, inner.name_at,
            f"Didn't understand relationship '{inner.name}' in FROM part of query call. If you are attempting to use a "
            "custom relationship, be sure to append the '__r' after the custom relationship name. Please reference "
            "your WSDL or the describe call for the appropriate names.",
            "INVALID_TYPE",
        )  # fmt: skip
    child, reference = sobject.children[name]
    asked = Query(inner.source, child, inner.name_at, inner.fields, inner.where, inner.group, inner.order, inner.limit,
                  inner.offset, inner.count)  # fmt: skip
    run(session, asked, [])  # what is wrong with it is said even where there is no record

    def shape(record: Record, view: dict[str, Any]) -> None:
        mine = [r for r in session.store.all_of(child) if r[reference] == record["Id"]]
        rows = run(session, asked, mine)
        view[name] = {"totalSize": len(rows), "done": True, "records": rows} if rows else None

    return shape


def _grouped(session: Session, query: Query, sobject: SObject, found: list[Record]) -> list[dict[str, Any]]:
    paths = [(path, *resolve(session, query.source, sobject, path)) for path in query.group]
    grouped: dict[tuple[Any, ...], list[Record]] = {} if paths else {(): found}
    for record in found if paths else ():
        grouped.setdefault(tuple(_value(session, record, way, end) for _, way, end in paths), []).append(record)
    names = {tuple(p.lower() for p in path.parts): index for index, (path, _, _) in enumerate(paths)}
    rows: list[dict[str, Any]] = []
    for key, records in grouped.items():
        row: dict[str, Any] = {"attributes": {"type": "AggregateResult"}}
        unnamed = 0
        for entry in query.fields:
            if isinstance(entry, Query):
                raise located(query.source, entry.name_at, "unexpected token: '('")
            if isinstance(entry, Path):
                index = names.get(tuple(p.lower() for p in entry.parts))
                if index is None:
                    sentence = f"Field must be grouped or aggregated: {'.'.join(entry.parts)}"
                    raise located(query.source, entry.at, sentence)
                row[paths[index][2].name] = key[index]
                continue
            assert entry.path is not None
            way, end = resolve(session, query.source, sobject, entry.path)
            values = [v for v in (_value(session, r, way, end) for r in records) if v is not None]
            row[entry.alias or f"expr{unnamed}"] = _aggregate(query, entry, end, values)
            unnamed += not entry.alias
        rows.append(row)
    for order in reversed(query.order):
        index = names.get(tuple(p.lower() for p in order.path.parts))
        if index is None:
            raise located(query.source, order.path.at, f"Ordered field must be grouped: {'.'.join(order.path.parts)}")
        key_name = paths[index][2].name
        rows.sort(key=lambda row, name=key_name: str(row.get(name) or "").lower(), reverse=order.descending)  # type: ignore[misc]
    return rows[query.offset : None if query.limit is None else query.offset + query.limit]


def _aggregate(query: Query, entry: Aggregate, end: Field, values: list[Any]) -> Any:
    if entry.function == "COUNT":
        return len(values)
    if entry.function == "COUNT_DISTINCT":
        return len({str(value).lower() for value in values})
    if entry.function in ("SUM", "AVG") and _EXPECTED.get(end.kind) != "number":
        assert entry.path is not None
        sentence = f"field {end.name} does not support aggregate operator {entry.function}"
        raise located(query.source, entry.path.at, sentence)
    if not values:
        return None
    if entry.function in ("MIN", "MAX"):
        return min(values) if entry.function == "MIN" else max(values)
    return sum(values) if entry.function == "SUM" else sum(values) / len(values)


# --- conditions


def _condition(session: Session, query: Query, sobject: SObject, node: Condition) -> Callable[[Record], bool]:
    if isinstance(node, soql.Not):
        inner = _condition(session, query, sobject, node.inner)
        return lambda record: not inner(record)
    if isinstance(node, soql.Group):
        parts = [_condition(session, query, sobject, part) for part in node.parts]
        if node.word == "AND":
            return lambda record: all(part(record) for part in parts)
        return lambda record: any(part(record) for part in parts)
    way, ended = resolve(session, query.source, sobject, node.path)
    if not ended.filterable:
        raise _unusable(query, node.path, "filtered")
    if isinstance(node, SemiJoin):
        return _semi_join(session, query, node, way, ended)
    test = _comparison(session, query, node, ended)
    return lambda record: test(_value(session, record, way, ended))


def _semi_join(
    session: Session, query: Query, node: SemiJoin, way: Sequence[Field], ended: Field
) -> Callable[[Record], bool]:
    fields = node.query.fields
    if ended.kind not in ("id", "reference") or len(fields) != 1 or not isinstance(fields[0], Path):
        raise located(query.source, node.path.at, "The inner select must select one id field")
    inner = object_for(session, query.source, node.query.name_at, node.query.name)
    inner_way, inner_end = resolve(session, query.source, inner, fields[0])
    found = {_value(session, r, inner_way, inner_end) for r in _matching(session, node.query, inner, None)} - {None}
    return lambda record: (_value(session, record, way, ended) in found) != node.negated


def _comparison(session: Session, query: Query, node: Comparison, ended: Field) -> Callable[[Any], bool]:
    operator = node.operator
    if operator == "LIKE":
        if ended.kind in ("id", "reference", "boolean", *_KINDS):
            raise located(query.source, node.path.at, f"invalid operator on {ended.kind} field",
                          "INVALID_QUERY_FILTER_OPERATOR")  # fmt: skip
        pattern = _like(query, node, ended)
        return lambda value: value is not None and patterns.matches(pattern, str(value))
    if operator in ("<", ">", "<=", ">=") and ended.kind in ("id", "reference", "boolean"):
        raise located(query.source, node.path.at, f"invalid operator on {ended.kind} field",
                      "INVALID_QUERY_FILTER_OPERATOR")  # fmt: skip
    if ended.kind in _TIMES:
        return _time_test(session, query, node, ended)
    wanted = [_wanted(query, node, ended, literal) for literal in node.values]
    if operator in ("=", "IN"):
        return lambda value: _plain(ended, value) in wanted
    if operator in ("!=", "NOT IN"):
        return lambda value: _plain(ended, value) not in wanted
    compare = _COMPARE[operator]
    return lambda value: value is not None and wanted[0] is not None and compare(_plain(ended, value), wanted[0])


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
}


def _plain(ended: Field, value: Any) -> Any:
    """Texts are compared without case; an empty text is null."""
    if isinstance(value, str):
        return value if ended.kind in ("id", "reference") else value.lower() or None
    return value


def _mistyped(query: Query, node: Comparison, ended: Field, literal: Literal) -> SalesforceError:
    kind = _KINDS.get(ended.kind, "string")
    enclosed = "should be enclosed in quotes" if kind == "string" else "should not be enclosed in quotes"
    sentence = f"value of filter criterion for field '{node.path.parts[-1]}' must be of type {kind} and {enclosed}"
    return located(query.source, node.path.at, sentence, "INVALID_FIELD")


def _wanted(query: Query, node: Comparison, ended: Field, literal: Literal) -> Any:
    if literal.kind == "null":
        return None
    expected = _EXPECTED.get(ended.kind, "string")
    if literal.kind != expected:
        raise _mistyped(query, node, ended, literal)
    if expected == "number":
        return float(literal.text)
    if expected == "boolean":
        return literal.text == "TRUE"
    text = literal.string()
    if ended.kind in ("id", "reference"):
        if text and not _ID.fullmatch(text):
            raise located(query.source, node.path.at, f"invalid ID field: {text}", "INVALID_QUERY_FILTER_OPERATOR")
        return long_id(text) or None
    return text.lower() or None


def _like(query: Query, node: Comparison, ended: Field) -> list[object]:
    literal = node.values[0]
    if literal.kind != "string":
        raise _mistyped(query, node, ended, literal)
    parts = re.finditer(r"\\(.)|(.)", literal.text, re.DOTALL)
    return patterns.of_like([(bool(m[1]), soql.unescape(m[0]) if m[1] else m[2]) for m in parts])


def _time_test(session: Session, query: Query, node: Comparison, ended: Field) -> Callable[[Any], bool]:
    ranges = [_range(session, query, node, ended, literal) for literal in node.values]

    def seconds(value: Any) -> float | None:
        return dates.seconds_of(str(value)) if value else None

    def inside(value: Any) -> bool:
        when = seconds(value)
        if when is None:
            return None in ranges
        return any(r is not None and r[0] <= when < r[1] for r in ranges)

    if node.operator in ("=", "IN"):
        return inside
    if node.operator in ("!=", "NOT IN"):
        return lambda value: not inside(value)
    limit = ranges[0]

    def ordered(value: Any) -> bool:
        when = seconds(value)
        if when is None or limit is None:
            return False
        first, after = limit
        return {"<": when < first, ">=": when >= first, ">": when >= after, "<=": when < after}[node.operator]

    return ordered


def _range(
    session: Session, query: Query, node: Comparison, ended: Field, literal: Literal
) -> tuple[float, float] | None:
    if literal.kind == "null":
        return None
    if literal.kind == "word":
        found = dates.word_range(literal.text, session.now)
        if found is None:
            raise located(query.source, literal.at, f"unexpected token: '{literal.text}'")
        return found
    if literal.kind != ended.kind:
        raise _mistyped(query, node, ended, literal)
    first = dates.seconds_of(literal.text)
    if first is None:
        raise located(query.source, literal.at, f"invalid {literal.kind}: {literal.text}")
    return first, first + (86_400 if literal.kind == "date" else 1e-3)
