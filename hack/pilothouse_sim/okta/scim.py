"""The expressions of ``search`` and ``filter``: a parser, and an evaluator over an object's JSON; both pure.

Grammar: ``expression = term {or term}``, ``term = factor {and factor}``, ``factor = ( expression ) | attribute pr |
attribute operator value``; values are JSON strings, numbers, booleans. Which attributes and operators there are differs
by endpoint: ``Rules``. Strings are compared without regard to case; dates as instants. An attribute that reaches into a
list matches where one element does. Whatever breaks the grammar is E0000031.

Source: https://developer.okta.com/docs/reference/core-okta-api/#filter
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pilothouse_sim.okta.errors import OktaError

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*")|(?P<paren>[()])|(?P<word>[A-Za-z][\w.$:-]*)|(?P<number>-?\d+(\.\d+)?))"""
)
_MAX_DEPTH = 30
Test = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True)
class Rules:
    """What an endpoint's expressions may say. ``attributes``: patterns of whole names; ``operators`` by attribute where
    they differ from ``default``."""

    attributes: tuple[str, ...]
    default: frozenset[str]
    operators: Mapping[str, frozenset[str]]

    def allows(self, attribute: str, operator: str) -> bool:
        known = any(re.fullmatch(pattern, attribute) for pattern in self.attributes)
        return known and operator in self.operators.get(attribute, self.default)


_ORDER = frozenset({"gt", "ge", "lt", "le"})
_TOP = ("id", "status", "created", "activated", "statusChanged", "lastUpdated", r"type\.id")
USER_SEARCH = Rules((*_TOP, r"profile\.\w+"), frozenset({"eq", "sw", "co", "pr"}) | _ORDER, {})
USER_FILTER = Rules(
    ("status", "lastUpdated", "id", r"profile\.(login|email|firstName|lastName)"),
    frozenset({"eq"}),
    {"lastUpdated": frozenset({"eq"}) | _ORDER},
)
GROUP_SEARCH = Rules(
    ("id", "type", "created", "lastUpdated", "lastMembershipUpdated", r"profile\.\w+"),
    frozenset({"eq", "sw", "co", "pr"}) | _ORDER,
    {},
)
APP_FILTER = Rules(("status", "name", r"user\.id", "id"), frozenset({"eq"}), {})
LOG_FILTER = Rules(
    (r"\w+", r"(actor|outcome|client|target|debugContext|transaction|authenticationContext)\.[\w.]+"),
    frozenset({"eq", "ne", "co", "sw", "ew", "pr"}) | _ORDER,
    {},
)


def parse(source: str, rules: Rules) -> Test:
    """The test that ``source`` stands for. Raises OktaError E0000031."""
    tokens = list(_tokens(source))
    parser = _Parser(tokens, rules)
    test = parser.expression(0)
    if parser.position != len(tokens):
        raise OktaError("E0000031")
    return test


def _tokens(source: str) -> Iterator[tuple[str, str]]:
    position = 0
    while source[position:].strip():
        match = _TOKEN.match(source, position)
        if match is None:
            raise OktaError("E0000031")
        position = match.end()
        yield str(match.lastgroup if match.lastgroup in ("string", "paren", "word") else "number"), match[0].strip()


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]], rules: Rules) -> None:
        self.tokens = tokens
        self.rules = rules
        self.position = 0

    def _next(self, kind: str = "") -> str:
        if self.position >= len(self.tokens) or (kind and self.tokens[self.position][0] != kind):
            raise OktaError("E0000031")
        self.position += 1
        return self.tokens[self.position - 1][1]

    def _is_word(self, word: str) -> bool:
        if self.position >= len(self.tokens):
            return False
        kind, text = self.tokens[self.position]
        return kind == "word" and text.lower() == word

    def expression(self, depth: int) -> Test:
        if depth > _MAX_DEPTH:
            raise OktaError("E0000031")
        tests = [self._term(depth)]
        while self._is_word("or"):
            self._next()
            tests.append(self._term(depth))
        return tests[0] if len(tests) == 1 else lambda item: any(test(item) for test in tests)

    def _term(self, depth: int) -> Test:
        tests = [self._factor(depth)]
        while self._is_word("and"):
            self._next()
            tests.append(self._factor(depth))
        return tests[0] if len(tests) == 1 else lambda item: all(test(item) for test in tests)

    def _factor(self, depth: int) -> Test:
        if self.position < len(self.tokens) and self.tokens[self.position] == ("paren", "("):
            self._next()
            test = self.expression(depth + 1)
            if self._next("paren") != ")":
                raise OktaError("E0000031")
            return test
        attribute, operator = self._next("word"), self._next("word").lower()
        if not self.rules.allows(attribute, operator):
            raise OktaError("E0000031")
        if operator == "pr":
            return lambda item: any(value not in (None, "") for value in _values(item, attribute))
        wanted = self._value()
        compare = _COMPARISONS[operator]
        if operator == "ne":
            return lambda item: all(not _COMPARISONS["eq"](value, wanted) for value in _values(item, attribute))
        return lambda item: any(value is not None and compare(value, wanted) for value in _values(item, attribute))

    def _value(self) -> Any:
        if self.position >= len(self.tokens):
            raise OktaError("E0000031")
        kind = self.tokens[self.position][0]
        text = self._next()
        if kind == "word" and text not in ("true", "false", "null"):
            raise OktaError("E0000031")
        try:
            return json.loads(text, strict=False)
        except ValueError:
            raise OktaError("E0000031") from None


def _values(item: object, attribute: str) -> list[Any]:
    """What stands under a dotted name; lists are gone through."""
    found: list[Any] = [item]
    for name in attribute.split("."):
        following: list[Any] = []
        for value in found:
            child = value.get(name) if isinstance(value, Mapping) else None
            following += child if isinstance(child, list) else [child]
        found = following
    return found


def _plain(value: object) -> Any:
    """A value as it is compared: instants as numbers, text without case."""
    if isinstance(value, bool) or not isinstance(value, str):
        return value
    if re.match(r"\d{4}-\d\d-\d\dT", value):
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError:
            pass
    return value.casefold()


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def ordered(value: object, wanted: object) -> bool:
        left, right = _plain(value), _plain(wanted)
        same = isinstance(left, str) == isinstance(right, str) and not isinstance(left, bool)
        return same and isinstance(left, int | float | str) and compare(left, right)

    return ordered


def _text(compare: Callable[[str, str], bool]) -> Callable[[Any, Any], bool]:
    return lambda value, wanted: (
        isinstance(value, str) and isinstance(wanted, str) and compare(value.casefold(), wanted.casefold())
    )


_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": lambda value, wanted: bool(_plain(value) == _plain(wanted)),
    "ne": lambda value, wanted: bool(_plain(value) != _plain(wanted)),
    "sw": _text(str.startswith),
    "ew": _text(str.endswith),
    "co": _text(lambda value, wanted: wanted in value),
    "gt": _ordered(lambda left, right: left > right),
    "ge": _ordered(lambda left, right: left >= right),
    "lt": _ordered(lambda left, right: left < right),
    "le": _ordered(lambda left, right: left <= right),
}
