"""Reads what a model server sent without trusting it: lenient about shapes, strict about sizes. Pure.

Model servers differ in what they leave out, and a broken one may send anything. A field of another type than the
protocol's reads as absent; an answer that breaks a bound ends with ModelNonsense.
"""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

import orjson

from pilothouse_dataplane.core.messages import ToolCall
from pilothouse_dataplane.models.base import ModelNonsense

MAX_TOOL_CALLS = 64
MAX_ARGUMENT_CHARS = 65_536
"""Of one call."""
MAX_TEXT_CHARS = 262_144
"""Of one answer; far above any ``max_tokens`` that is asked for."""
_MAX_TOKENS = 100_000_000
_MAX_NAME_CHARS = 200
_SIGNIFICANT = re.compile(r'[{}\[\]"\\]')
_IN_STRING = re.compile(r'["\\]')
_USABLE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UNUSABLE_IN_NAME = re.compile(r"[^A-Za-z0-9_-]")


def as_object(value: object) -> dict[str, Any]:
    """The object, or an empty one."""
    return value if isinstance(value, dict) else {}


def as_text(value: object) -> str:
    """The string, or an empty one."""
    return value if isinstance(value, str) else ""


def as_count(value: object) -> int:
    """A number of tokens: a sensible one, or 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MAX_TOKENS:
        return 0
    return int(value)


def sent_name(name: str) -> str:
    """A tool's name as protocols allow it: a model that made one up must not have the next request refused."""
    return _UNUSABLE_IN_NAME.sub("_", name)[:64] or "unknown"


def sent_arguments(arguments: str) -> dict[str, Any]:
    """A call's arguments as protocols want them back: an object. The tool's result says where they were broken."""
    try:
        return as_object(orjson.loads(arguments or "{}"))
    except orjson.JSONDecodeError:
        return {}


class TextBound:
    """Counts the characters of one answer."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self.characters = 0

    def add(self, text: str) -> None:
        """Raises ModelNonsense."""
        self.characters += len(text)
        if self.characters > MAX_TEXT_CHARS:
            raise ModelNonsense(f"The model of {self._provider} wrote without end, so its answer was given up")


class ObjectEnd:
    """Says when a JSON object that arrives in pieces is whole, by its braces: each character is looked at once.

    It does not say that the JSON is valid. An empty object is not called whole: some servers open with ``{}`` and send
    the arguments after it.
    """

    __slots__ = ("_depth", "_empty", "_escaped", "_in_string", "_started", "whole")

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._started = False
        self._empty = True
        self.whole = False

    def feed(self, piece: str) -> bool:
        """Take the next piece; whether the object is whole now."""
        if not self._started:
            piece = piece.lstrip()
            if not piece:
                return False
            self._started = True
            if piece[0] != "{":
                self._empty = False
                self._depth = -1  # not an object: never whole
        if self._depth < 0 or self.whole:
            return self.whole
        at = 0
        if self._escaped and piece:
            at, self._escaped = 1, False
        while match := (_IN_STRING if self._in_string else _SIGNIFICANT).search(piece, at):
            at = match.end()
            sign = match[0]
            if sign == '"':
                self._in_string = not self._in_string
                self._empty = False
            elif sign == "\\":
                if at == len(piece):
                    self._escaped = True
                at += 1
            elif sign in "{[":
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth <= 0:
                    if self._empty:
                        self._depth = -1
                        return False
                    self.whole = True
                    return True
        return False


class _Call:
    """One call that arrives in pieces."""

    __slots__ = ("end", "given", "id", "name", "parts", "size")

    def __init__(self, call_id: str, name: str) -> None:
        self.id = call_id
        self.name = name
        self.parts: list[str] = []
        self.size = 0
        self.end = ObjectEnd()
        self.given = False


class Calls:
    """The calls of one answer; each is handed out once, as soon as it is whole.

    Pieces name their call by the server's index. Some servers give every call the same index, so a call begins anew
    where an index comes with another id and a name.
    """

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._calls: list[_Call] = []
        self._current: dict[int, _Call] = {}
        self._ids: set[str] = set()
        self.characters = 0
        """Of all arguments, for an estimate of tokens."""

    def begins(self, index: int, call_id: str, name: str) -> bool:
        """Whether a piece starts a call."""
        call = self._current.get(index)
        return call is None or bool(call_id and name and call.id and call_id != call.id)

    def begin(self, index: int, call_id: str, name: str) -> list[ToolCall]:
        """Start a call; those before it are whole thereby. Raises ModelNonsense."""
        if len(self._calls) >= MAX_TOOL_CALLS:
            raise ModelNonsense(f"The model of {self._provider} asked for more than {MAX_TOOL_CALLS} tools at once")
        before = self.rest()
        call = _Call(call_id, name[:_MAX_NAME_CHARS])
        self._calls.append(call)
        self._current[index] = call
        return before

    def add(self, index: int, piece: str, call_id: str = "", name: str = "") -> bool:
        """Take a piece in; whether the arguments are a whole object now. Raises ModelNonsense."""
        call = self._current[index]
        call.id = call.id or call_id
        call.name = call.name or name[:_MAX_NAME_CHARS]
        if call.given:
            if piece.strip():
                raise ModelNonsense(f"The model of {self._provider} wrote on in a tool call after its end")
            return False
        if piece:
            call.size += len(piece)
            self.characters += len(piece)
            if call.size > MAX_ARGUMENT_CHARS:
                raise ModelNonsense(f"The model of {self._provider} wrote the arguments of a tool without end")
            call.parts.append(piece)
            call.end.feed(piece)
        return call.end.whole and bool(call.name)

    def give(self, index: int) -> ToolCall | None:
        """Hand the call of that index out; None where it was before."""
        call = self._current[index]
        return None if call.given else self._give(call)

    def rest(self) -> list[ToolCall]:
        """The calls that were not handed out, in their order."""
        return [self._give(call) for call in self._calls if not call.given]

    def _give(self, call: _Call) -> ToolCall:
        call.given = True
        call_id = call.id
        # results are matched to calls by id, and a provider that is asked next may refuse what this one allowed
        if call_id in self._ids or not _USABLE_ID.fullmatch(call_id):
            call_id = f"call_{uuid4().hex[:20]}"
        self._ids.add(call_id)
        return ToolCall(call_id, call.name, "".join(call.parts))
