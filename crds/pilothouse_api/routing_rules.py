"""Conditions of ``ModelRoute.spec.routing.rules``: a small, typed subset of CEL, parsed once and then a closure.

The operator parses a condition to tell whoever wrote it what is wrong; the worker evaluates it. Types are checked while
parsing, so that a condition that parses never fails later, and there is no loop and no regular expression in it: the
time is bounded by its length.

::

    or      = and { "||" and }
    and     = not { "&&" not }
    not     = "!" not | compare
    compare = value [ ("==" | "!=" | "<" | "<=" | ">" | ">=" | "in") value ]
    value   = atom { ".contains(" value ")" | ".startsWith(" value ")" | ".endsWith(" value ")" }
    atom    = name | number | "text" | 'text' | true | false | list | "size(" value ")" | "(" or ")"
    list    = "[" value { "," value } "]"
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["truth", "number", "text", "texts"]
Values = Mapping[str, Any]
"""A value for each name of ``VARIABLES``: bool, int, str, or a sequence of str."""

VARIABLES: Mapping[str, tuple[Kind, str]] = {
    "text": ("text", "the question, in lower case"),
    "length": ("number", "characters of the question"),
    "user": ("text", "e-mail of who asks, in lower case"),
    "groups": ("texts", "groups of who asks, as the identity provider names them"),
    "connectors": ("texts", "connectors whose tools the model is shown"),
    "systems": ("number", "how many connectors that are"),
    "effects": ("texts", "effects of the tools that the model is shown: read, write, destructive"),
    "writes": ("number", "writes made or under way in this run"),
    "rounds": ("number", "rounds of tool calls made in this run; 0: the first plan"),
    "turns": ("number", "messages of the conversation before the question"),
    "failed": ("number", "calls of the last round that could not be made"),
}
"""Names that a condition may use: type, and what it stands for."""

MAX_CHARACTERS = 512
MAX_DEPTH = 16

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>[0-9]{1,9})(?![0-9A-Za-z_]) | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<text>"[^"\\\n]*"|'[^'\\\n]*') | (?P<sign>\|\||&&|==|!=|<=|>=|[<>!()\[\],.]))""",
    re.VERBOSE,
)
_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_METHODS: Mapping[str, Callable[[str, str], bool]] = {
    "contains": lambda text, part: part in text,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
}
_WORDS: Mapping[Kind, str] = {"truth": "true or false", "number": "a number", "text": "a text", "texts": "a list"}


class ConditionError(ValueError):
    """The condition can't be read; the message says where and what to write. Whoever wrote it must act."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that was read."""

    source: str
    holds: Callable[[Values], bool]
    """Takes a value for each name of ``VARIABLES``; never raises for values of the right types."""


@dataclass(frozen=True, slots=True)
class _Part:
    kind: Kind
    value: Callable[[Values], Any]


def parse(source: str) -> Condition:
    """Read a condition, such as ``systems >= 3 || "finance" in groups``. Raises ConditionError."""
    if not source.strip():
        raise ConditionError('the condition is empty: write one such as systems >= 3, or "finance" in groups')
    if len(source) > MAX_CHARACTERS:
        raise ConditionError(f"the condition has {len(source)} characters; write at most {MAX_CHARACTERS}")
    reader = _Reader(source)
    part = reader.any_of(0)
    if reader.token:
        raise reader.error("an operator, or the end")
    if part.kind != "truth":
        raise ConditionError(f"the condition is {_WORDS[part.kind]}, not true or false: compare it with something")
    return Condition(source, part.value)


class _Reader:
    """Recursive descent over the tokens; one method a line of the grammar."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tokens: list[tuple[str, str, int]] = []
        at = 0
        while at < len(source.rstrip()):
            found = _TOKEN.match(source, at)
            if found is None:
                at += len(source[at:]) - len(source[at:].lstrip())
                raise ConditionError(f"character {at + 1}: {source[at : at + 10]!r} can't be read")
            kind = str(found.lastgroup)
            self.tokens.append((kind, found.group(kind), found.start(kind)))
            at = found.end()
        self.at = 0

    @property
    def token(self) -> str:
        """The next token; "" at the end."""
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def error(self, wanted: str) -> ConditionError:
        if not self.token:
            return ConditionError(f"the condition ends where {wanted} should be")
        return ConditionError(f"character {self.tokens[self.at][2] + 1}: {wanted} should be where {self.token} is")

    def take(self, sign: str) -> bool:
        if self.token != sign:
            return False
        self.at += 1
        return True

    def want(self, sign: str) -> None:
        if not self.take(sign):
            raise self.error(repr(sign))

    def any_of(self, depth: int) -> _Part:
        parts = [self.all_of(depth)]
        while self.take("||"):
            parts.append(self.all_of(depth))
        if len(parts) == 1:
            return parts[0]
        tests = [self.as_truth(part) for part in parts]
        return _Part("truth", lambda values: any(test(values) for test in tests))

    def all_of(self, depth: int) -> _Part:
        parts = [self.negated(depth)]
        while self.take("&&"):
            parts.append(self.negated(depth))
        if len(parts) == 1:
            return parts[0]
        tests = [self.as_truth(part) for part in parts]
        return _Part("truth", lambda values: all(test(values) for test in tests))

    def negated(self, depth: int) -> _Part:
        if depth > MAX_DEPTH:
            raise ConditionError(f"the condition is nested deeper than {MAX_DEPTH}: split it into two rules")
        if self.take("!"):
            test = self.as_truth(self.negated(depth + 1))
            return _Part("truth", lambda values: not test(values))
        return self.compared(depth)

    def as_truth(self, part: _Part) -> Callable[[Values], bool]:
        if part.kind != "truth":
            raise ConditionError(f"||, && and ! take what is true or false, not {_WORDS[part.kind]}: compare it first")
        return part.value

    def compared(self, depth: int) -> _Part:
        left = self.called(depth)
        sign = self.token
        if sign in ("==", "!="):
            self.at += 1
            right = self.called(depth)
            if left.kind != right.kind or left.kind == "texts":
                raise ConditionError(f"{sign} can't compare {_WORDS[left.kind]} with {_WORDS[right.kind]}")
            equal = sign == "=="
            return _Part("truth", lambda values: (left.value(values) == right.value(values)) is equal)
        if sign in _ORDER:
            self.at += 1
            right = self.called(depth)
            if left.kind != "number" or right.kind != "number":
                raise ConditionError(f"{sign} compares numbers, not {_WORDS[left.kind]} with {_WORDS[right.kind]}")
            order = _ORDER[sign]
            return _Part("truth", lambda values: order(left.value(values), right.value(values)))
        if sign == "in":
            self.at += 1
            right = self.called(depth)
            if left.kind != "text" or right.kind != "texts":
                raise ConditionError('in takes a text and a list, such as "finance" in groups')
            return _Part("truth", lambda values: left.value(values) in right.value(values))
        return left

    def called(self, depth: int) -> _Part:
        part = self.atom(depth)
        while self.take("."):
            name = self.token
            method = _METHODS.get(name)
            if method is None:
                raise self.error("contains, startsWith or endsWith")
            self.at += 1
            self.want("(")
            argument = self.called(depth + 1)
            self.want(")")
            if part.kind != "text" or argument.kind != "text":
                raise ConditionError(f"{name} is asked of a text with a text, such as text.{name}('order')")
            part = _applied(method, part, argument)
        return part

    def atom(self, depth: int) -> _Part:
        if depth > MAX_DEPTH:
            raise ConditionError(f"the condition is nested deeper than {MAX_DEPTH}: split it into two rules")
        if self.at >= len(self.tokens):
            raise self.error("a value")
        kind, token, _ = self.tokens[self.at]
        if kind == "number":
            self.at += 1
            return _constant("number", int(token))
        if kind == "text":
            self.at += 1
            return _constant("text", token[1:-1])
        if self.take("("):
            part = self.any_of(depth + 1)
            self.want(")")
            return part
        if self.take("["):
            return self.listed(depth)
        if kind == "name":
            return self.named(token, depth)
        raise self.error("a value")

    def listed(self, depth: int) -> _Part:
        items: list[_Part] = []
        while True:
            item = self.called(depth + 1)
            if item.kind != "text":
                raise ConditionError(f"a list holds texts, not {_WORDS[item.kind]}")
            items.append(item)
            if not self.take(","):
                break
        self.want("]")
        return _Part("texts", lambda values: [item.value(values) for item in items])

    def named(self, name: str, depth: int) -> _Part:
        if name in ("true", "false"):
            self.at += 1
            return _constant("truth", name == "true")
        if name == "size":
            self.at += 1
            self.want("(")
            part = self.called(depth + 1)
            self.want(")")
            if part.kind not in ("text", "texts"):
                raise ConditionError(f"size() takes a text or a list, not {_WORDS[part.kind]}")
            return _Part("number", lambda values: len(part.value(values)))
        known = VARIABLES.get(name)
        if known is None:
            raise ConditionError(f"{name} is not known: use {_listed(tuple(VARIABLES))}; a text stands in quotes")
        self.at += 1
        return _Part(known[0], operator.itemgetter(name))


def _constant(kind: Kind, value: object) -> _Part:
    return _Part(kind, lambda values: value)


def _applied(method: Callable[[str, str], bool], part: _Part, argument: _Part) -> _Part:
    return _Part("truth", lambda values: method(part.value(values), argument.value(values)))


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
