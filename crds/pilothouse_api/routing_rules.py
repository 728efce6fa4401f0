"""The operator's routing rules: a small, typed subset of CEL, parsed once. Pure; nothing is evaluated as Python.

The operator parses a ModelRoute's conditions to tell whoever wrote them what is wrong, the workers to route by them.

    condition  = and {"||" and} ;  and = not {"&&" not} ;  not = ["!"] (comparison | "(" condition ")")
    comparison = value ("==" | "!=" | "<" | "<=" | ">" | ">=" | "in") value
    value      = number | "text" | 'text' | "[" value {"," value} "]" | name

Names: ``systems`` (how many connectors the model is shown), ``connectors`` and ``effects`` (theirs: "read", "write",
"destructive"), ``groups``, ``role`` (one of the groups: ``role == "finance"`` is ``"finance" in groups``), ``user``
(e-mail), ``rounds``, ``writes``, ``length`` (characters), ``earlier_turns``, ``failed_calls``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

MAX_LENGTH = 1000
"""Characters of one condition."""
MAX_DEPTH = 32
"""Parentheses and negations within each other."""


class Facts(Protocol):
    """What a condition reads: where a run stands when it asks a model."""

    @property
    def text(self) -> str: ...

    @property
    def user_email(self) -> str: ...

    @property
    def groups(self) -> Sequence[str]: ...

    @property
    def earlier_turns(self) -> int: ...

    @property
    def rounds(self) -> int: ...

    @property
    def systems(self) -> Sequence[str]: ...

    @property
    def effects(self) -> Sequence[Enum]: ...

    @property
    def writes(self) -> int: ...

    @property
    def failed_calls(self) -> int: ...


Condition = Callable[[Facts], bool]
_Read = Callable[[Facts], Any]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+)|(?P<text>\"[^\"\\]*\"|'[^'\\]*')|(?P<name>[A-Za-z_]\w*)|(?P<sign>\|\||&&|[=!<>]=|[!<>()\[\],]))"
)
_NAMES: Mapping[str, tuple[str, _Read]] = {
    "systems": ("number", lambda s: len(s.systems)),
    "connectors": ("texts", lambda s: s.systems),
    "effects": ("texts", lambda s: tuple(effect.value for effect in s.effects)),
    "groups": ("texts", lambda s: s.groups),
    "role": ("role", lambda s: s.groups),
    "user": ("text", lambda s: s.user_email),
    "rounds": ("number", lambda s: s.rounds),
    "writes": ("number", lambda s: s.writes),
    "length": ("number", lambda s: len(s.text)),
    "earlier_turns": ("number", lambda s: s.earlier_turns),
    "failed_calls": ("number", lambda s: s.failed_calls),
}
_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class RuleError(ValueError):
    """A condition that can't be read; the operator of the ModelRoute must correct it. ``position`` counts from 1."""

    def __init__(self, what: str, position: int) -> None:
        super().__init__(f"{what} at character {position}")
        self.position = position


@dataclass(frozen=True, slots=True)
class _Value:
    kind: str
    """number, text, texts or role."""
    read: _Read
    position: int


def parse(source: str) -> Condition:
    """The condition as a function. Raises RuleError."""
    if len(source) > MAX_LENGTH:
        raise RuleError(f"The condition is longer than {MAX_LENGTH} characters: it goes on", MAX_LENGTH + 1)
    parser = _Parser(source)
    condition = parser.either(0)
    parser.end()
    return condition


class _Parser:
    def __init__(self, source: str) -> None:
        self._tokens: list[tuple[str, str, int]] = []
        self._at = 0
        self._end = len(source) + 1
        position, length = 0, len(source.rstrip())
        while position < length:
            match = _TOKEN.match(source, position)
            if match is None:
                rest = source[position:].lstrip()
                raise RuleError(f"“{rest[:1]}” means nothing here", len(source) - len(rest) + 1)
            kind = str(match.lastgroup)
            self._tokens.append((kind, match[kind], match.start(kind) + 1))
            position = match.end()

    def either(self, depth: int) -> Condition:
        parts = [self._both(depth)]
        while self._take("||"):
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else lambda s: any(part(s) for part in parts)

    def end(self) -> None:
        kind, text, position = self._next()
        if kind:
            raise RuleError(f"“{text}” stands after the condition's end", position)

    def _both(self, depth: int) -> Condition:
        parts = [self._one(depth)]
        while self._take("&&"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else lambda s: all(part(s) for part in parts)

    def _one(self, depth: int) -> Condition:
        if depth > MAX_DEPTH:
            raise RuleError(f"More than {MAX_DEPTH} levels of parentheses", self._next()[2])
        if self._take("!"):
            inner = self._one(depth + 1)
            return lambda s: not inner(s)
        if self._take("("):
            inner = self.either(depth + 1)
            self._expect(")")
            return inner
        return self._comparison()

    def _comparison(self) -> Condition:
        left = self._value()
        _, sign, position = self._next()
        if sign == "in":
            self._at += 1
            return _membership(left, self._value(), position)
        if sign not in _COMPARISONS:
            raise RuleError("A comparison is missing (==, !=, <, <=, >, >= or in)", position)
        self._at += 1
        return _compared(left, sign, self._value(), position)

    def _value(self) -> _Value:
        kind, text, position = self._next()
        self._at += 1
        if kind == "number":
            number = int(text[:19])
            return _Value("number", lambda s: number, position)
        if kind == "text":
            content = text[1:-1]
            return _Value("text", lambda s: content, position)
        if kind == "name" and text in _NAMES:
            name_kind, read = _NAMES[text]
            return _Value(name_kind, read, position)
        if kind == "name":
            raise RuleError(f"“{text}” is not known; there are {', '.join(_NAMES)}:", position)
        if text == "[":
            return self._list(position)
        raise RuleError("A number, a text or a name is missing", position)

    def _list(self, position: int) -> _Value:
        texts: list[str] = []
        while not self._take("]"):
            if texts:
                self._expect(",")
            kind, text, at = self._next()
            if kind != "text":
                raise RuleError("A list holds texts only: something else stands", at)
            texts.append(text[1:-1])
            self._at += 1
        found = tuple(texts)
        return _Value("texts", lambda s: found, position)

    def _next(self) -> tuple[str, str, int]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("", "", self._end)

    def _take(self, sign: str) -> bool:
        kind, text, _ = self._next()
        if kind == "sign" and text == sign:
            self._at += 1
            return True
        return False

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise RuleError(f"“{sign}” is missing", self._next()[2])


def _membership(left: _Value, right: _Value, position: int) -> Condition:
    if right.kind != "texts":
        raise RuleError(
            "On the right of “in” a list must stand (groups, connectors, effects or [...]), not so", position
        )
    if left.kind == "role":
        return lambda s: not set(left.read(s)).isdisjoint(right.read(s))
    if left.kind != "text":
        raise RuleError("On the left of “in” a text or role must stand, not so", position)
    return lambda s: left.read(s) in right.read(s)


def _compared(left: _Value, sign: str, right: _Value, position: int) -> Condition:
    if left.kind == "text" and right.kind == "role":
        left, right = right, left
    if left.kind == "role" and right.kind == "text" and sign in ("==", "!="):
        return lambda s: (right.read(s) in left.read(s)) is (sign == "==")
    if left.kind != right.kind or left.kind not in ("number", "text"):
        raise RuleError(f"A {left.kind} can't be compared with a {right.kind} by “{sign}”", position)
    if left.kind == "text" and sign not in ("==", "!="):
        raise RuleError("Texts are equal or not, they have no order: “==” or “!=” must stand", position)
    compare = _COMPARISONS[sign]
    return lambda s: compare(left.read(s), right.read(s))
