"""SOQL: literals for queries that we write, and the check of a query that a model wrote. Pure.

A model's query is read by a small tokenizer, not by patterns over its text: what stands in a string is never taken for
a clause, and a character that SOQL has no use for is refused.

Source: https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql.htm
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

from pilothouse_dataplane.connectors.base import Refused

_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)"
    r"|(?P<string>'(?:[^'\\\x00-\x1f]|\\[^\x00-\x1f])*')"
    r"|(?P<number>[+-]?[0-9][0-9A-Za-z.:+-]*)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_.]*(?::-?[0-9]+)?)"
    r"|(?P<sign>[(),=<>!])"
)
"""A number takes dates along; a word takes ``Owner.Name`` and ``LAST_N_DAYS:30``."""
_AGGREGATES = {"COUNT", "COUNT_DISTINCT", "SUM", "AVG", "MIN", "MAX"}
_ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
_SOSL_RESERVED = re.compile(r"""[?&|!{}\[\]()^~*:\\"'+\-<>=,;%/]+""")
_WRITING = {"FOR": "FOR VIEW, FOR REFERENCE and FOR UPDATE", "UPDATE": "UPDATE TRACKING and UPDATE VIEWSTAT"}


def quote(value: str) -> str:
    """A string: quote and backslash escaped, control characters gone."""
    return "'" + "".join(_ESCAPES.get(c) or (c if c.isprintable() else " ") for c in value) + "'"


def contains(value: str) -> str:
    """The right side of LIKE for text that holds this one; its own wildcards are taken as they stand."""
    inner = quote(value)[1:-1].replace("%", "\\%").replace("_", "\\_")
    return f"'%{inner}%'"


def words(value: str) -> str:
    """Text for a search without any character that SOSL reads as an operator. Raises Refused where little is left."""
    clean = "".join(c if c.isprintable() else " " for c in _SOSL_RESERVED.sub(" ", value))
    plain = " ".join(clean.split())
    if len(plain) < 2:
        raise Refused("Salesforce searches for words of two letters at least, so it was not asked.", asked=False)
    return plain


class _Token(NamedTuple):
    upper: str
    """Of a word, else ""."""
    text: str
    start: int
    depth: int


def _refused(why: str) -> Refused:
    return Refused(f"This is no SOQL query that can be run: {why}. Salesforce was not asked.", asked=False)


def _tokens(query: str) -> list[_Token]:
    found: list[_Token] = []
    at = depth = 0
    while at < len(query):
        match = _TOKEN.match(query, at)
        if match is None:
            rest = query[at : at + 20]
            why = "a string does not end" if rest.startswith("'") else f"“{rest}” is not understood"
            raise _refused(why)
        kind, part = match.lastgroup, match[0]
        if part == ")":
            depth -= 1
            if depth < 0:
                raise _refused("a parenthesis is closed that was not opened")
        if kind != "space":
            found.append(_Token(part.upper() if kind == "word" else "", part, at, depth))
        if part == "(":
            depth += 1
        at = match.end()
    if depth:
        raise _refused("a parenthesis is not closed")
    return found


def limited(query: str, most: int) -> str:
    """The query, if it is one SELECT that changes nothing, with a LIMIT of at most ``most``. Raises Refused."""
    tokens = _tokens(query)
    if not tokens or tokens[0].upper != "SELECT":
        raise _refused("it must begin with SELECT")
    top = [token for token in tokens if token.depth == 0]
    if sum(token.upper == "SELECT" for token in top) != 1:
        raise _refused("it must be one SELECT")
    if sum(token.upper == "FROM" for token in top) != 1:
        raise _refused("it must have one FROM")
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.upper in _WRITING:
            raise _refused(f"{_WRITING[token.upper]} change records")
        if token.upper == "ALL" and following is not None and following.upper == "ROWS":
            raise _refused("ALL ROWS reads deleted records")
    limits = [n for n, token in enumerate(top) if token.upper == "LIMIT"]
    if len(limits) > 1:
        raise _refused("it has more than one LIMIT")
    if limits:
        number = top[limits[0] + 1] if limits[0] + 1 < len(top) else None
        if number is None or not number.text.isdigit() or len(number.text) > 9:
            raise _refused("LIMIT needs a number")
        end = number.start + len(number.text)
        return f"{query[: number.start]}{min(int(number.text), most)}{query[end:]}"
    if _aggregates(top):
        return query  # one row, and Salesforce allows no LIMIT there
    offset = next((token.start for token in top if token.upper == "OFFSET"), None)
    if offset is not None:
        return f"{query[:offset]}LIMIT {most} {query[offset:]}"
    return f"{query.rstrip()} LIMIT {most}"


def _aggregates(top: list[_Token]) -> bool:
    """COUNT() and the like without GROUP BY."""
    begins = next(n for n, token in enumerate(top) if token.upper == "FROM")
    grouped = any(token.upper == "GROUP" for token in top[begins:])
    called = any(
        token.upper in _AGGREGATES and following.text == "(" for token, following in pairwise(top[: begins + 1])
    )
    return called and not grouped
