"""The part of SOQL that integrations use, as a tokenizer and a parser; pure.

SELECT fields, ``Owner.Name``, COUNT() and other aggregates, child subqueries; FROM one object; WHERE with = != < > <=
>= LIKE, IN, NOT IN (lists and semi-joins), AND, OR, NOT and parentheses; GROUP BY; ORDER BY … NULLS; LIMIT; OFFSET.
AND and OR are mixed only with parentheses, as in SOQL. Errors are ``SalesforceError`` MALFORMED_QUERY in Salesforce's
shape.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pilothouse_sim.salesforce.errors import SalesforceError

_TOKEN = re.compile(
    r"\s*(?:(?P<string>'(?:\\.|[^'\\])*')|(?P<datetime>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d))"
    r"|(?P<date>\d{4}-\d\d-\d\d)|(?P<number>[+-]?\d+(?:\.\d+)?)|(?P<word>[A-Za-z_][\w.]*(?::\d{1,9})?)"
    r"|(?P<op>!=|<>|<=|>=|=|<|>|\(|\)|,|:))"
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "N": "\n", "r": "\r", "R": "\r", "t": "\t", "T": "\t", "b": "\b", "B": "\b", "f": "\f",
            "F": "\f", '"': '"', "'": "'", "\\": "\\", "_": "_", "%": "%"}  # fmt: skip
AGGREGATES = {"COUNT", "COUNT_DISTINCT", "SUM", "AVG", "MIN", "MAX"}
_COMPARISONS = ("=", "!=", "<>", "<", ">", "<=", ">=")
_CLAUSES = ("FROM", "WHERE", "ORDER", "GROUP", "LIMIT", "OFFSET", "HAVING", "AND", "OR", "BY")
MAX_LENGTH = 100_000
MAX_DEPTH = 40


@dataclass(frozen=True)
class Literal:
    """A value as it was written; ``kind``: string, number, date, datetime, boolean, null or word (a date literal).

    A string's ``text`` still has its escapes: LIKE tells an escaped wildcard from a wildcard.
    """

    kind: str
    text: str
    at: int

    def string(self) -> str:
        """The string's value."""
        return unescape(self.text)


@dataclass(frozen=True)
class Path:
    """A dot-walked field and where it stands."""

    parts: tuple[str, ...]
    at: int


@dataclass(frozen=True)
class Comparison:
    """``path operator values``; operators in capitals, one value unless IN."""

    path: Path
    operator: str
    values: tuple[Literal, ...]


@dataclass(frozen=True)
class SemiJoin:
    """``path [NOT] IN (SELECT …)``."""

    path: Path
    negated: bool
    query: Query


@dataclass(frozen=True)
class Not:
    """NOT."""

    inner: Condition


@dataclass(frozen=True)
class Group:
    """AND or OR of its parts."""

    word: str
    parts: tuple[Condition, ...]


Condition = Comparison | SemiJoin | Not | Group


@dataclass(frozen=True)
class Aggregate:
    """``function(path) alias``; the path is None in COUNT()."""

    function: str
    path: Path | None
    alias: str


@dataclass(frozen=True)
class Order:
    """One part of ORDER BY."""

    path: Path
    descending: bool
    nulls_last: bool


@dataclass
class Query:
    """A parsed query; ``count`` for SELECT COUNT()."""

    source: str
    name: str = ""
    name_at: int = 0
    fields: list[Path | Aggregate | Query] = field(default_factory=list)
    where: Condition | None = None
    group: list[Path] = field(default_factory=list)
    order: list[Order] = field(default_factory=list)
    limit: int | None = None
    offset: int = 0
    count: bool = False


def unescape(text: str) -> str:
    """The value of a string literal's inner text. Raises SalesforceError for an escape that SOQL does not have."""

    def one(match: re.Match[str]) -> str:
        if match[1] not in _ESCAPES:
            raise SalesforceError(400, "MALFORMED_QUERY", f"Illegal escape sequence: \\{match[1]}")
        return _ESCAPES[match[1]]

    return _ESCAPE.sub(one, text)


def located(source: str, at: int, sentence: str, code: str = "MALFORMED_QUERY") -> SalesforceError:
    """An error at a place of the query, as Salesforce shows it."""
    row, column = source.count("\n", 0, at) + 1, at - (source.rfind("\n", 0, at) + 1) + 1
    start = max(0, at - 40)
    shown = source[start : at + 30].replace("\n", " ")
    return SalesforceError(
        400, code, f"\n{shown}\n{' ' * (at - start)}^\nERROR at Row:{row}:Column:{column}\n{sentence}"
    )


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def _tokens(source: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while source[at:].strip():
        match = _TOKEN.match(source, at)
        if not match:
            at += len(source[at:]) - len(source[at:].lstrip())
            if source[at] == "'":
                raise located(source, at, "line 1:0 no viable alternative at character '<EOF>'")
            raise located(source, at, f"line 1:{at} no viable alternative at character '{source[at]}'")
        kind = match.lastgroup or ""
        found.append(_Token(kind, match[kind], match.start(kind)))
        at = match.end()
    return found


class Parser:
    """Recursive descent over the tokens of one query; ``search`` builds on it for SOSL's RETURNING."""

    def __init__(self, source: str) -> None:
        if len(source) > MAX_LENGTH:
            raise SalesforceError(
                400, "QUERY_TOO_COMPLICATED", "SOQL statements cannot be longer than 100000 characters."
            )
        self.source = source
        self.tokens = _tokens(source)
        self.index = 0
        self.depth = 0

    def fail(self, sentence: str = "") -> SalesforceError:
        """The error at the current token."""
        if self.index >= len(self.tokens):
            return located(self.source, len(self.source), sentence or "unexpected token: '<EOF>'")
        token = self.tokens[self.index]
        return located(self.source, token.at, sentence or f"unexpected token: '{token.text}'")

    def peek(self, *words: str) -> bool:
        """Whether the next token is one of these words or signs (capitals)."""
        if self.index >= len(self.tokens):
            return False
        token = self.tokens[self.index]
        return token.kind in ("word", "op") and token.text.upper() in words

    def accept(self, *words: str) -> bool:
        """Takes the next token if it is one of these."""
        found = self.peek(*words)
        self.index += found
        return found

    def expect(self, *words: str) -> None:
        """Takes the next token. Raises where it is none of these."""
        if not self.accept(*words):
            raise self.fail()

    def word(self) -> _Token:
        """A name. Raises."""
        if self.index >= len(self.tokens) or self.tokens[self.index].kind != "word" or self.peek(*_CLAUSES):
            raise self.fail()
        self.index += 1
        return self.tokens[self.index - 1]

    def path(self) -> Path:
        """A field, dot-walked or not."""
        token = self.word()
        parts = token.text.split(".")
        if not all(parts) or ":" in token.text or len(parts) > 6:
            self.index -= 1
            raise self.fail()
        return Path(tuple(parts), token.at)

    def whole(self) -> int:
        """A whole number."""
        if self.index >= len(self.tokens) or not self.tokens[self.index].text.isdigit():
            raise self.fail()
        self.index += 1
        return int(self.tokens[self.index - 1].text[:12])

    def statement(self) -> Query:
        """A whole query with nothing after it."""
        query = self.query()
        if self.index < len(self.tokens):
            raise self.fail()
        return query

    def query(self) -> Query:
        """SELECT … OFFSET."""
        self._deeper()
        query = Query(self.source)
        self.expect("SELECT")
        while True:
            self._selected(query)
            if not self.accept(","):
                break
        self.expect("FROM")
        token = self.word()
        query.name, query.name_at = token.text, token.at
        self.clauses(query)
        self.depth -= 1
        return query

    def _selected(self, query: Query) -> None:
        if self.accept("("):
            query.fields.append(self.query())
            self.expect(")")
            return
        function = self.tokens[self.index].text.upper() if self.index < len(self.tokens) else ""
        following = self.tokens[self.index + 1].text if self.index + 1 < len(self.tokens) else ""
        if function in AGGREGATES and following == "(":
            self.index += 2
            if self.accept(")"):
                if function != "COUNT" or query.fields:
                    raise self.fail()
                query.count = True
                return
            path = self.path()
            self.expect(")")
            alias = ""
            if self.index < len(self.tokens) and self.tokens[self.index].kind == "word" and not self.peek(*_CLAUSES):
                alias = self.word().text
            query.fields.append(Aggregate(function, path, alias))
            return
        if query.count:
            raise self.fail()
        query.fields.append(self.path())

    def clauses(self, query: Query) -> None:
        """WHERE, GROUP BY, ORDER BY, LIMIT, OFFSET, each at most once and in this order."""
        if self.accept("WHERE"):
            query.where = self.either()
        if self.accept("GROUP"):
            self.expect("BY")
            query.group.append(self.path())
            while self.accept(","):
                query.group.append(self.path())
        if self.accept("ORDER"):
            self.expect("BY")
            query.order.append(self._order())
            while self.accept(","):
                query.order.append(self._order())
        if self.accept("LIMIT"):
            query.limit = self.whole()
        if self.accept("OFFSET"):
            query.offset = self.whole()

    def _order(self) -> Order:
        path = self.path()
        descending = self.peek("DESC")
        self.accept("ASC", "DESC")
        last = False
        if self.accept("NULLS"):
            last = self.peek("LAST")
            self.expect("FIRST", "LAST")
        return Order(path, descending, last)

    def _deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise SalesforceError(400, "QUERY_TOO_COMPLICATED", "The query is nested too deeply.")

    def either(self) -> Condition:
        """Conditions joined by one of AND and OR."""
        self._deeper()
        parts = [self._unary()]
        word = "AND" if self.peek("AND") else "OR"
        while self.accept(word):
            parts.append(self._unary())
        if self.peek("AND", "OR"):
            raise self.fail()
        self.depth -= 1
        return parts[0] if len(parts) == 1 else Group(word, tuple(parts))

    def _unary(self) -> Condition:
        if self.accept("NOT"):
            self._deeper()
            inner = self._unary()
            self.depth -= 1
            return Not(inner)
        if self.accept("("):
            found = self.either()
            self.expect(")")
            return found
        return self._comparison()

    def _comparison(self) -> Condition:
        path = self.path()
        if self.accept("LIKE"):
            return Comparison(path, "LIKE", (self.literal(),))
        negated = self.accept("NOT")
        if self.accept("IN"):
            self.expect("(")
            if self.peek("SELECT"):
                joined = self.query()
                self.expect(")")
                return SemiJoin(path, negated, joined)
            values = [self.literal()]
            while self.accept(","):
                values.append(self.literal())
            self.expect(")")
            return Comparison(path, "NOT IN" if negated else "IN", tuple(values))
        if negated or not self.peek(*_COMPARISONS):
            raise self.fail()
        operator = self.tokens[self.index].text
        self.index += 1
        return Comparison(path, "!=" if operator == "<>" else operator, (self.literal(),))

    def literal(self) -> Literal:
        """A value."""
        if self.peek(":"):
            raise self.fail("Bind variables only allowed in Apex code")
        if self.index >= len(self.tokens):
            raise self.fail()
        token = self.tokens[self.index]
        if token.kind == "op" or self.peek(*_CLAUSES, "SELECT", "NOT"):
            raise self.fail()
        self.index += 1
        if token.kind == "string":
            unescape(token.text[1:-1])
            return Literal("string", token.text[1:-1], token.at)
        if token.kind != "word":
            return Literal(token.kind, token.text, token.at)
        upper = token.text.upper()
        kind = "null" if upper == "NULL" else "boolean" if upper in ("TRUE", "FALSE") else "word"
        return Literal(kind, upper, token.at)


def parse(source: str) -> Query:
    """Parses a query. Raises SalesforceError."""
    return Parser(source).statement()
