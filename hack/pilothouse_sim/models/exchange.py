"""What the stand-in's three protocols share: a request that was read, an answer to be written, and its tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pilothouse_sim.models.types import Message, Reply, Tool, approximate_tokens

Finish = Literal["", "length", "content_filter"]
"""Why an answer ended, where it is not its own end or its calls."""


class BadRequest(Exception):
    """A request that the vendor refuses, in the vendor's words; ``param`` and ``code`` as OpenAI gives them."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


@dataclass(frozen=True)
class Asked:
    """A request, independent of the protocol that carried it."""

    model: str
    messages: Sequence[Message]
    tools: Sequence[Tool]
    prompt: int
    """Tokens of the prompt, approximately."""
    parts: tuple[str, ...]
    """The prompt's text from its beginning, as a prompt cache compares it; Anthropic: cut where the client marked."""
    marks: tuple[int, ...] = ()
    """Anthropic: how many ``parts`` lie before each mark of ``cache_control``."""
    stream: bool = False
    usage_streamed: bool = True
    max_tokens: int = 0
    """0: no bound."""
    thinks: bool = False
    tells_thoughts: bool = False
    schema: Mapping[str, Any] | None = None
    """The text must be JSON that fits this schema."""
    echo: Mapping[str, Any] = field(default_factory=dict)
    """The request's fields that the answer repeats (Responses)."""

    @property
    def question(self) -> str:
        """The last user message."""
        return next((m.text for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def has_results(self) -> bool:
        """Whether tools have answered since the last user message."""
        for message in reversed(self.messages):
            if message.role in ("user", "tool"):
                return message.role == "tool"
        return False


@dataclass(frozen=True)
class SaidCall:
    """A call as it is written; ``arguments`` is text, since a model may break it."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Answer:
    """What the model says."""

    text: str = ""
    calls: tuple[SaidCall, ...] = ()
    thoughts: str = ""
    finish: Finish = ""

    @classmethod
    def of(cls, reply: Reply) -> Answer:
        """A plan's answer."""
        return cls(reply.text, tuple(SaidCall(call.name, json.dumps(dict(call.arguments))) for call in reply.calls))

    @property
    def thought_tokens(self) -> int:
        return approximate_tokens(self.thoughts)

    @property
    def tokens(self) -> int:
        """Of everything: thoughts, text, the calls' names and arguments."""
        calls = sum(approximate_tokens(call.name + call.arguments) for call in self.calls)
        return self.thought_tokens + approximate_tokens(self.text) + calls

    def bounded(self, max_tokens: int) -> Answer:
        """Cut off where the bound is reached, as a model is: in the middle of a word, or of a call's arguments."""
        if not max_tokens or self.tokens <= max_tokens:
            return self
        left = max_tokens * 4
        thoughts, left = self.thoughts[:left], left - len(self.thoughts)
        text, left = self.text[: max(0, left)], left - len(self.text)
        calls: list[SaidCall] = []
        for call in self.calls:
            left -= len(call.name)
            if left <= 0:
                break
            calls.append(SaidCall(call.name, call.arguments[:left]))
            left -= len(call.arguments)
        return Answer(text, tuple(calls), thoughts, "length")


@dataclass(frozen=True)
class Tokens:
    """Usage, as providers report it."""

    prompt: int
    """All of the prompt, cached or not."""
    completion: int
    cached: int = 0
    """Of ``prompt``: read from the prompt cache."""
    stored: int = 0
    """Of ``prompt``: written into the prompt cache (Anthropic)."""
    thoughts: int = 0
    told: bool = True
    """False: the provider says nothing of usage."""

    def changed(self, values: Mapping[str, Any]) -> Tokens:
        """With a script's own numbers."""
        return replace(self, **values)


@dataclass(frozen=True)
class Frame:
    """One event of a stream; ``text`` is what takes the model time, ``kind`` what it carries."""

    event: Mapping[str, Any]
    text: str = ""
    kind: Literal["", "text", "arguments"] = ""


def schema_names(schema: object) -> frozenset[str]:
    """The property names of a JSON Schema object."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return frozenset(properties) if isinstance(properties, dict) else frozenset()


def dump(value: object) -> str:
    """Compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def require(condition: object, message: str, param: str | None = None, code: str | None = None) -> None:
    """Raises BadRequest where the condition does not hold."""
    if not condition:
        raise BadRequest(message, param, code)


def fitting(schema: object, text: str, depth: int = 0) -> Any:
    """A value that fits a JSON Schema, with ``text`` in its first free string; only what structured outputs allow is
    understood."""
    if not isinstance(schema, dict) or depth > 10:
        return None
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf"):
        if isinstance(schema.get(choice), list) and schema[choice]:
            return fitting(schema[choice][0], text, depth + 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if kind == "object":
        properties = schema.get("properties")
        wanted = properties if isinstance(properties, dict) else {}
        return {name: fitting(part, text, depth + 1) for name, part in wanted.items()}
    if kind == "array":
        return [fitting(schema.get("items"), text, depth + 1)]
    return {"string": text, "integer": 0, "number": 0, "boolean": True}.get(str(kind))
