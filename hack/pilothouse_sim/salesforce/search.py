"""Searches: SOSL (``FIND {…} IN … RETURNING …``) and parameterized search; pure over the store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pilothouse_sim.salesforce import access, evaluate, patterns
from pilothouse_sim.salesforce.errors import SalesforceError
from pilothouse_sim.salesforce.evaluate import Session
from pilothouse_sim.salesforce.schema import OBJECTS, SObject
from pilothouse_sim.salesforce.soql import Parser, Path, Query
from pilothouse_sim.salesforce.store import Record

_FIND = re.compile(r"\s*FIND\s*\{((?:\\.|[^\\{}])*)\}\s*", re.IGNORECASE | re.DOTALL)
_RESERVED = re.compile(r'(?<!\\)[?&|!{}\[\]()^~:"\'+\-]')
_NAME = re.compile(r"[A-Za-z][\w.]*")
_SCOPES = ("ALL", "NAME", "EMAIL", "PHONE", "SIDEBAR")
_MAX = 2000
_DEFAULT_OVERALL = 2000


@dataclass
class Search:
    """``words`` in lower case, all of which must be found; ``scope`` one of ALL, NAME, EMAIL, PHONE, SIDEBAR."""

    words: list[str]
    scope: str = "ALL"
    returning: list[Query] = field(default_factory=list)
    limit: int = _DEFAULT_OVERALL


def _malformed(sentence: str) -> SalesforceError:
    return SalesforceError(400, "MALFORMED_SEARCH", sentence)


def words_of(text: str) -> list[str]:
    """What is looked for. Raises SalesforceError where it is too little or holds unescaped operators of SOSL."""
    plain = text.strip()
    if len(plain.strip('"* ')) < 2:
        raise _malformed(f"search term must be longer than one character: {plain}")
    if len(plain) > 10_000:
        raise _malformed("search term is too long")
    inner = plain.replace('"', " ") if plain.count('"') % 2 == 0 else plain
    bad = _RESERVED.search(inner)
    if bad and bad[0] not in "-'+:":
        raise _malformed(f"Unexpected character in the search term: '{bad[0]}'")
    inner = re.sub(r"\\(.)", r"\1", inner)
    return [word for word in re.split(r"\s+(?:AND\s+)?", inner.lower().strip()) if word and word != "and"]


def parse(source: str) -> Search:
    """Parses SOSL. Raises SalesforceError."""
    match = _FIND.match(source)
    if not match:
        raise _malformed("line 1:0 mismatched input, expecting FIND {…}")
    found = Search(words_of(match[1]))
    parser = Parser(source[match.end() :])
    if parser.accept("IN"):
        found.scope = parser.word().text.upper()
        if found.scope not in _SCOPES:
            raise _malformed(f"unexpected token: {found.scope}")
        parser.expect("FIELDS")
    if parser.accept("RETURNING"):
        found.returning.append(_returning(parser))
        while parser.accept(","):
            found.returning.append(_returning(parser))
    if parser.accept("LIMIT"):
        found.limit = parser.whole()
    if parser.index < len(parser.tokens):
        raise _malformed(f"unexpected token: {parser.tokens[parser.index].text}")
    return found


def _returning(parser: Parser) -> Query:
    token = parser.word()
    query = Query(parser.source, token.text, token.at)
    if parser.accept("("):
        query.fields.append(parser.path())
        while parser.accept(","):
            query.fields.append(parser.path())
        parser.clauses(query)
        parser.expect(")")
    return query


def run(session: Session, search: Search) -> list[dict[str, Any]]:
    """The found records. Raises SalesforceError."""
    queries = search.returning or [
        Query("", name) for name, entry in OBJECTS.items() if entry.search and access.allowed(session.user, name, "r")
    ]
    found: list[dict[str, Any]] = []
    for query in queries:
        sobject = evaluate.object_for(session, query.source, query.name_at, query.name)
        if not sobject.search:
            raise SalesforceError(400, "INVALID_TYPE", f"Entity '{sobject.name}' is not supported for search")
        query.fields = query.fields or [Path(("Id",), 0)]
        within = [r for r in session.store.all_of(sobject.name) if _hit(session, sobject, r, search)]
        found += evaluate.run(session, query, within)
    return found[: min(search.limit, _MAX)]


def _hit(session: Session, sobject: SObject, record: Record, search: Search) -> bool:
    fields = [f for f in sobject.fields if f.name in sobject.search and access.field_visible(session.user, sobject, f)]
    if search.scope == "NAME":
        fields = [f for f in fields if f.name in (sobject.name_field, "Name", "Subject", "Title")]
    elif search.scope in ("EMAIL", "PHONE"):
        fields = [f for f in fields if f.kind == search.scope.lower()]
    text = " ".join(str(record[f.name] or "") for f in fields).lower()
    have = re.findall(r"[\w@.'-]+", text)
    return all(_word_in(word, have) for word in search.words)


def _word_in(word: str, have: list[str]) -> bool:
    if "*" in word or "?" in word:
        pattern = patterns.of_word(word)
        return any(patterns.matches(pattern, part) for part in have)
    return any(word == part.strip(".'-") or word == part for part in have)


# --- parameterized search

_BODY = {
    "q", "fields", "sobjects", "in", "overallLimit", "defaultLimit", "offset", "spellCorrection", "dataCategories",
    "metadata", "netIds", "pricebookId", "snippet", "updateTracking", "updateViewStat",
}  # fmt: skip
_SOBJECT = {"name", "fields", "limit", "where", "orderBy", "offset"}


def from_body(body: Mapping[str, Any]) -> Search:
    """A parameterized search of a POST's body. Raises SalesforceError."""
    for name in body:
        if name not in _BODY:
            raise _parameter(f'Unrecognized field "{name}"')
    text = body.get("q")
    if not isinstance(text, str):
        raise _parameter("q is required")
    search = Search(words_of(re.sub(_RESERVED, " ", text)))
    scope = body.get("in", "ALL")
    if not isinstance(scope, str) or scope.upper() not in _SCOPES:
        raise _parameter("in must be one of ALL, NAME, EMAIL, PHONE, SIDEBAR")
    search.scope = scope.upper()
    search.limit = _count(body, "overallLimit", _DEFAULT_OVERALL)
    default = _count(body, "defaultLimit", _MAX)
    common = _names(body, "fields")
    sobjects = body.get("sobjects", [])
    if not isinstance(sobjects, list):
        raise _parameter("sobjects must be a list")
    for entry in sobjects:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not set(entry) <= _SOBJECT:
            raise _parameter("each of sobjects takes name, fields, limit, where, orderBy, offset")
        search.returning.append(_wanted(entry, common, _count(entry, "limit", default)))
    return search


def _wanted(entry: Mapping[str, Any], common: list[str], limit: int) -> Query:
    names = _names(entry, "fields") or common or ["Id"]
    if not all(_NAME.fullmatch(name) for name in [entry["name"], *names]):
        raise _parameter("names of objects and fields are letters, digits, _ and .")
    where = f" WHERE {entry['where']}" if isinstance(entry.get("where"), str) else ""
    order = f" ORDER BY {entry['orderBy']}" if isinstance(entry.get("orderBy"), str) else ""
    query = Parser(f"SELECT {', '.join(names)} FROM {entry['name']}{where}{order}").statement()  # noqa: S608 - parsed
    query.limit = limit
    query.offset = _count(entry, "offset", 0, lowest=0)
    return query


def _parameter(sentence: str) -> SalesforceError:
    return SalesforceError(400, "INVALID_SEARCH", sentence)


def _count(body: Mapping[str, Any], name: str, default: int, lowest: int = 1) -> int:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= _MAX:
        raise _parameter(f"{name} must be a number of {lowest} to {_MAX}")
    return value


def _names(body: Mapping[str, Any], name: str) -> list[str]:
    value = body.get(name, [])
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise _parameter(f"{name} must be a list of names")
    return value


def from_query(query: Mapping[str, str]) -> Search:
    """A parameterized search of a GET's parameters: q, sobject, ``Account.fields``, ``Account.limit``, in, …"""
    body: dict[str, Any] = {name: query[name] for name in ("q", "in") if name in query}
    for name in ("overallLimit", "defaultLimit"):
        if name in query:
            body[name] = _digits(query[name], name)
    if "fields" in query:
        body["fields"] = [part.strip() for part in query["fields"].split(",")]
    sobjects: list[dict[str, Any]] = []
    for name in (part.strip() for part in query.get("sobject", "").split(",") if part.strip()):
        entry: dict[str, Any] = {"name": name}
        for key, value in query.items():
            owner, dot, what = key.partition(".")
            if dot and owner == name and what in _SOBJECT:
                entry[what] = (
                    [part.strip() for part in value.split(",")] if what == "fields"
                    else _digits(value, key) if what in ("limit", "offset") else value
                )  # fmt: skip
        sobjects.append(entry)
    return from_body({**body, "sobjects": sobjects})


def _digits(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise _parameter(f"{name} must be a number")
    return int(text[:9])
