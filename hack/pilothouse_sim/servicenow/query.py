"""Encoded queries: a parser, and an evaluator over records; both pure.

``field OPERATOR value`` joined by ``^`` (and), ``^OR`` (binds to the condition before it) and ``^NQ`` (a new query,
whose results are added), then ``^ORDERBYfield``, ``^ORDERBYDESCfield``; ``^^`` is a caret within a value, the value
``NULL`` is emptiness. A field may be dot-walked (``caller_id.email``). Text is compared without case, as the platform's
database does.

An invalid part (a field that is not there, no operator) is ignored, or makes the query return no rows where the
property ``glide.invalid_query.returns_no_rows`` is true. A value with ``javascript:`` is refused:
this instance evaluates none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pilothouse_sim.servicenow.errors import ServiceNowError
from pilothouse_sim.servicenow.schema import Field, fields_of, is_a
from pilothouse_sim.servicenow.store import Record, Store

_OPERATORS = (
    "DOES NOT CONTAIN", "ISNOTEMPTY", "STARTSWITH", "INSTANCEOF", "NOT LIKE", "ENDSWITH", "CONTAINS", "NOTLIKE",
    "ISEMPTY", "BETWEEN", "ANYTHING", "NOT IN", "LIKE", "IN", "!=", ">=", "<=", "=", ">", "<",
)  # fmt: skip
_CONDITION = re.compile(
    r"^([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*)(" + "|".join(re.escape(name) for name in _OPERATORS) + r")(.*)$",
    re.DOTALL,
)
_TEXT_QUERY = "123TEXTQUERY321"
_NUMERIC = {"integer"}
TEXT_FIELDS = ("number", "short_description", "description", "name", "text", "meta", "comments", "close_notes")


@dataclass(frozen=True)
class Condition:
    """``path operator value``; the path's parts are field names."""

    path: tuple[str, ...]
    operator: str
    value: str


@dataclass
class Query:
    """``parts``: queries whose results are added; each is a list of alternatives that must all hold.

    ``invalid``: a part of it names no field of the table.
    """

    parts: list[list[list[Condition]]] = field(default_factory=lambda: [[]])
    order: list[tuple[tuple[str, ...], bool]] = field(default_factory=list)
    invalid: bool = False

    def fields(self) -> set[str]:
        """The table's own fields that conditions or the order name."""
        named = {c.path[0] for part in self.parts for group in part for c in group}
        return named | {path[0] for path, _ in self.order}


def resolve(table: str, path: Sequence[str]) -> Field | None:
    """The field at the end of a dot-walked path; None where there is none."""
    for index, name in enumerate(path):
        found = fields_of(table).get(name)
        if found is None or index == len(path) - 1:
            return found
        if found.kind != "reference":
            return None
        table = found.reference
    return None


def parse(table: str, source: str) -> Query:
    """Parses an encoded query. Raises ServiceNowError for ``javascript:``."""
    if "javascript:" in source.lower():
        raise ServiceNowError(400, "Invalid query", "javascript: is not evaluated in queries of this instance.")
    query = Query()
    # A single caret divides; a doubled one is a caret in a value.
    for raw in re.split(r"(?<!\^)\^(?!\^)", source):
        text = raw.replace("^^", "^")
        if not text or text == "EQ":
            continue
        if text.startswith("ORDERBY"):
            descending = text.startswith("ORDERBYDESC")
            path = tuple(text[len("ORDERBYDESC" if descending else "ORDERBY") :].split("."))
            if resolve(table, path):
                query.order.append((path, descending))
            else:
                query.invalid = True
            continue
        if text.startswith("GROUPBY"):
            continue
        joined = ""
        if text.startswith("NQ"):
            query.parts.append([])
            text = text[2:]
        elif text.startswith("OR"):
            joined, text = "OR", text[2:]
        condition = _condition(table, text)
        if condition is None:
            query.invalid = True
        elif joined and query.parts[-1]:
            query.parts[-1][-1].append(condition)
        else:
            query.parts[-1].append([condition])
    return query


def _condition(table: str, text: str) -> Condition | None:
    if text.startswith(f"{_TEXT_QUERY}="):
        return Condition((_TEXT_QUERY,), "TEXT", text[len(_TEXT_QUERY) + 1 :])
    match = _CONDITION.match(text)
    if not match:
        return None
    path = tuple(match[1].split("."))
    if match[2] in ("=", "!=") and match[3] == "NULL":
        return Condition(path, "ISEMPTY" if match[2] == "=" else "ISNOTEMPTY", "") if resolve(table, path) else None
    return Condition(path, match[2], match[3]) if resolve(table, path) else None


def select(query: Query, table: str, records: Iterable[Record], store: Store) -> list[Record]:
    """The matching records in the query's order; all fields at the end of paths are compared as stored."""
    if query.invalid and store.properties.get("glide.invalid_query.returns_no_rows") == "true":
        return []
    tests = [[[_test(c, table, store) for c in group] for group in part] for part in query.parts]
    found = [
        record
        for record in records
        if any(all(any(test(record) for test in group) for group in part) for part in tests)
    ]
    for path, descending in reversed(query.order):
        key = _sort_key(table, path, store)
        found.sort(key=key, reverse=descending)
    return found


def walk(record: Record, table: str, path: Sequence[str], store: Store) -> tuple[Record | None, Field | None]:
    """The record and the field where a dot-walked path ends."""
    current: Record | None = record
    for index, name in enumerate(path):
        if current is None:
            return None, resolve(table, path)
        found = fields_of(current["sys_class_name"]).get(name)
        if found is None or index == len(path) - 1:
            return current, found
        current = store.find(found.reference, current.get(name, "")) if found.reference else None
    return None, None


def _sort_key(table: str, path: tuple[str, ...], store: Store) -> Callable[[Record], tuple[float, str]]:
    def key(record: Record) -> tuple[float, str]:
        end, found = walk(record, table, path, store)
        value = end.get(path[-1], "") if end else ""
        if found and found.kind == "reference":
            value = store.display(found.reference, value)
        if found and found.kind in _NUMERIC:
            return _number(value), ""
        return 0, value.lower()

    return key


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("-inf")


def _test(condition: Condition, table: str, store: Store) -> Callable[[Record], bool]:
    wanted = condition.value
    if condition.operator == "TEXT":
        words = wanted.lower().split()
        return lambda record: all(
            word in " ".join(record.get(name, "") for name in TEXT_FIELDS).lower() for word in words
        )

    def test(record: Record) -> bool:
        end, found = walk(record, table, condition.path, store)
        value = end.get(condition.path[-1], "") if end else ""
        if condition.operator == "INSTANCEOF":
            return is_a(value, wanted)
        shown = store.display(found.reference, value) if found and found.kind == "reference" else value
        return _compare(condition.operator, value, shown, wanted, numeric=bool(found and found.kind in _NUMERIC))

    return test


def _compare(operator: str, value: str, shown: str, wanted: str, *, numeric: bool) -> bool:
    low, shown_low, wanted_low = value.lower(), shown.lower(), wanted.lower()
    match operator:
        case "=":
            return low == wanted_low
        case "!=":
            return low != wanted_low
        case "IN" | "NOT IN":
            inside = low in [part.strip().lower() for part in wanted.split(",")]
            return inside == (operator == "IN")
        case "LIKE" | "CONTAINS":
            return wanted_low in shown_low
        case "NOT LIKE" | "NOTLIKE" | "DOES NOT CONTAIN":
            return wanted_low not in shown_low
        case "STARTSWITH":
            return shown_low.startswith(wanted_low)
        case "ENDSWITH":
            return shown_low.endswith(wanted_low)
        case "ISEMPTY":
            return value == ""
        case "ISNOTEMPTY":
            return value != ""
        case "ANYTHING":
            return True
        case "BETWEEN":
            lowest, _, highest = wanted.partition("@")
            return _ordered(lowest, value, numeric) and _ordered(value, highest, numeric)
        case "<=":
            return value != "" and _ordered(value, wanted, numeric)
        case ">=":
            return value != "" and _ordered(wanted, value, numeric)
        case "<":
            return value != "" and not _ordered(wanted, value, numeric)
        case _:
            return value != "" and not _ordered(value, wanted, numeric)


def _ordered(first: str, second: str, numeric: bool) -> bool:
    """first ≤ second."""
    return _number(first) <= _number(second) if numeric else first.lower() <= second.lower()
