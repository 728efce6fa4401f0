"""Reads what a model server sent without trusting it: lenient about shapes, strict about sizes. Pure.

Model servers differ in what they leave out, and a broken one may send anything. A field of another type than the
protocol's reads as absent; an answer that breaks a bound ends with ModelNonsense. Usage that can't be true is replaced
by an estimate.
"""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

import orjson

from pilothouse_dataplane.core.messages import ToolCall
from pilothouse_dataplane.models.base import (
    ModelDone,
    ModelEvent,
    ModelNonsense,
    ModelOverflow,
    ModelRejected,
    ModelText,
    ModelToolCall,
    Stop,
    estimate_tokens,
)

MAX_TOOL_CALLS = 64
MAX_ARGUMENT_CHARS = 65_536
"""Of one call."""
MAX_TEXT_CHARS = 262_144
"""Of one answer; far above any ``max_tokens`` that is asked for."""
_MAX_TOKENS = 100_000_000
_MAX_NAME_CHARS = 200
_TEMPLATE_TOKENS = 4096
"""What a vendor's own template may add to a prompt: the most that a byte of ours can be is one token."""
_MAX_OUTPUT_TOKENS = 131_072
"""More than any model writes in one answer; servers that don't know our bound's name may pass it."""
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

    @property
    def empty(self) -> bool:
        """``{}`` has come."""
        return self._empty and self._depth < 0

    @property
    def cut(self) -> bool:
        """It has begun, and its end is missing."""
        return self._depth > 0


class _Call:
    """One call that arrives in pieces."""

    __slots__ = ("end", "ended", "given", "id", "name", "parts", "size")

    def __init__(self, call_id: str, name: str) -> None:
        self.id = call_id
        self.name = name
        self.parts: list[str] = []
        self.size = 0
        self.end = ObjectEnd()
        self.ended = False
        self.given = False


class Calls:
    """The calls of one answer; each is handed out once, as soon as it and those before it are whole.

    Pieces name their call by the server's index. Some servers give every call the same index, so a call begins anew
    where an index comes with another id and a name; others write several calls in turns. Calls are handed out in the
    order in which they began: a later one may refer to an earlier one by its number.
    """

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._calls: list[_Call] = []
        self._current: dict[int, _Call] = {}
        self._ids: set[str] = set()
        self.given: list[ToolCall] = []
        """Those that were handed out."""
        self.characters = 0
        """Of all arguments, for an estimate of tokens."""

    def begins(self, index: int, call_id: str, name: str) -> bool:
        """Whether a piece starts a call."""
        call = self._current.get(index)
        return call is None or bool(call_id and name and call.id and call_id != call.id)

    def begin(self, index: int, call_id: str, name: str) -> list[ToolCall]:
        """Start a call; what can be handed out because of it. Raises ModelNonsense."""
        if len(self._calls) >= MAX_TOOL_CALLS:
            raise ModelNonsense(f"The model of {self._provider} asked for more than {MAX_TOOL_CALLS} tools at once")
        if index in self._current:
            self._end(self._current[index])  # nothing can name it any more
        for call in self._calls[len(self.given) :]:
            call.ended = call.ended or call.end.empty  # else it waits: the server may write it on
        call = _Call(call_id, name[:_MAX_NAME_CHARS])
        self._calls.append(call)
        self._current[index] = call
        return self._ready()

    def add(self, index: int, piece: str, call_id: str = "", name: str = "") -> list[ToolCall]:
        """Take a piece in; what can be handed out because of it. Raises ModelNonsense."""
        call = self._current[index]
        call.id = call.id or call_id
        call.name = call.name or name[:_MAX_NAME_CHARS]
        if call.ended:
            if piece.strip():
                raise ModelNonsense(f"The model of {self._provider} wrote on in a tool call after its end")
            return []
        if piece:
            call.size += len(piece)
            self.characters += len(piece)
            if call.size > MAX_ARGUMENT_CHARS:
                raise ModelNonsense(f"The model of {self._provider} wrote the arguments of a tool without end")
            call.parts.append(piece)
            call.end.feed(piece)
        if not (call.end.whole and call.name):
            return []
        call.ended = True
        return self._ready()

    def stop(self, index: int, arguments: str = "") -> list[ToolCall]:
        """The server says that a call is whole; ``arguments`` are those that came apart from the pieces, used where
        there were none. What can be handed out because of it. Raises ModelNonsense."""
        call = self._current.get(index)
        if call is None or call.ended:
            return []
        ready = self.add(index, arguments) if arguments and not call.size else []
        self._end(call)
        return ready + self._ready()

    def rest(self) -> list[ToolCall]:
        """The answer is over: the calls that were not handed out, in their order. Raises ModelNonsense where one is
        cut: half of a call must not be made."""
        for call in self._calls[len(self.given) :]:
            self._end(call)
        return self._ready()

    def _end(self, call: _Call) -> None:
        if call.end.cut:
            raise ModelNonsense(
                f"The model of {self._provider} stopped in the middle of a tool call, so the call was not made"
            )
        call.ended = True

    def _ready(self) -> list[ToolCall]:
        ready: list[ToolCall] = []
        for call in self._calls[len(self.given) :]:
            if not call.ended:
                break
            ready.append(self._give(call))
        self.given += ready
        return ready

    def _give(self, call: _Call) -> ToolCall:
        call_id = call.id
        # results are matched to calls by id, and a provider that is asked next may refuse what this one allowed
        if call_id in self._ids or not _USABLE_ID.fullmatch(call_id):
            call_id = f"call_{uuid4().hex[:20]}"
        self._ids.add(call_id)
        return ToolCall(call_id, call.name, "".join(call.parts))


class Answer:
    """One answer: what came of it, and what it cost. The protocols' readers fill it."""

    def __init__(self, provider: str, sent_bytes: int, max_output_tokens: int) -> None:
        """``sent_bytes`` is the size of the request."""
        self.calls = Calls(provider)
        self.finished = False
        """The server said that it is over."""
        self.stop: Stop = ""
        self.overflowed = False
        """It stopped because the model's window was full."""
        self.read = self.written = self.cached = 0
        """Tokens, as the server counts them; 0: it has not said."""
        self._provider = provider
        self._sent_bytes = sent_bytes
        self._max_output = max_output_tokens
        self._text_characters = 0

    def text(self, piece: str) -> ModelText:
        """Raises ModelNonsense."""
        self._text_characters += len(piece)
        if self._text_characters > MAX_TEXT_CHARS:
            raise ModelNonsense(f"The model of {self._provider} wrote without end, so its answer was given up")
        return ModelText(piece)

    def end(self) -> list[ModelEvent]:
        """The last calls, and the end. Raises ModelNonsense, ModelOverflow or ModelRejected where it is no answer."""
        rest: list[ModelEvent] = [ModelToolCall(call) for call in self.calls.rest()]
        if not self._text_characters and not self.calls.given:
            if self.overflowed:
                raise ModelOverflow(
                    f"The request leaves no room for an answer in the window of {self._provider}'s model"
                )
            if self.stop == "length":
                raise ModelNonsense(
                    f"The model of {self._provider} used up its {self._max_output} tokens before it answered; a "
                    "platform operator can raise maxOutputTokens, or lower reasoning"
                )
            if self.stop:
                raise ModelRejected(f"The model provider {self._provider} declined to answer this request")
        rest.append(self.spent())
        return rest

    def spent(self) -> ModelDone:
        """Tokens so far: the server's own count, or a guess where it gave none, or one that can't be true."""
        characters = self._text_characters + self.calls.characters
        read, written, estimated = self.read, self.written, False
        if not 0 < read <= self._sent_bytes + _TEMPLATE_TOKENS:
            # a call that is not counted would escape the budget
            read, estimated = estimate_tokens(self._sent_bytes), True
        if not self.finished or (not written and characters):  # a count that came early is not of the whole
            written, estimated = max(written, estimate_tokens(characters)), True
        if written > max(_MAX_OUTPUT_TOKENS, self._max_output) + characters:
            written, estimated = estimate_tokens(characters), True
        return ModelDone(read, written, estimated, min(self.cached, read), self.stop)
