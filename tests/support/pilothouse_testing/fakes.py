"""Fakes of what a worker talks to: a scripted model, a connector in memory, a memory and an event sink in memory.

A script is a list of turns; a turn is a list of ``ModelEvent`` (a ``ModelDone`` is added where it is missing), a delay
in seconds between them, or an exception to raise. The last turn repeats.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from pilothouse_api.workerconfig import TargetConfig
from pilothouse_dataplane.connectors.base import AccountNotLinked, CallContext, Credential, SecretText
from pilothouse_dataplane.core.breaker import BreakerMode
from pilothouse_dataplane.core.messages import (
    Effect,
    Lookup,
    Message,
    ModelRequest,
    Outcome,
    Tool,
    ToolCall,
    ToolResult,
)
from pilothouse_dataplane.models.base import ModelDone, ModelEvent, ModelText, ModelToolCall

Turn = Sequence[ModelEvent | float | Exception]


def text(words: str) -> ModelText:
    """The model writes."""
    return ModelText(words)


def asks_for(tool: str, call_id: str = "c1", **arguments: object) -> ModelToolCall:
    """The model calls a tool (its dotted name)."""
    return ModelToolCall(ToolCall(call_id, tool.replace(".", "__"), json.dumps(arguments)))


class FakeModel:
    """A ModelProvider that plays a script and remembers what it was asked."""

    def __init__(self, *turns: Turn) -> None:
        self._turns = turns
        self.requests: list[ModelRequest] = []
        self.cancelled = 0

    async def stream(self, target: TargetConfig, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        turn = self._turns[min(len(self.requests), len(self._turns) - 1)]
        self.requests.append(request)
        try:
            for item in turn:
                if isinstance(item, float):
                    await asyncio.sleep(item)
                elif isinstance(item, Exception):
                    raise item
                else:
                    yield item
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if not any(isinstance(item, ModelDone) for item in turn):
            yield ModelDone(100, 10)

    async def aclose(self) -> None:
        """Nothing is open."""


ECHO = Tool(
    "fake.thing.read",
    "Read a thing.",
    {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"], "additionalProperties": False},
    Effect.READ,
)
WRITE = Tool(
    "fake.thing.write",
    "Write a thing.",
    {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"], "additionalProperties": False},
    Effect.WRITE,
    Lookup.AUTHORITATIVE,
)


class FakeConnector:
    """A Connector whose answer is a function; it remembers its calls, and finds the writes that it has done."""

    def __init__(
        self,
        answer: Callable[[Tool, Mapping[str, Any]], ToolResult | Exception] | None = None,
        *,
        delay: float = 0.0,
        found: ToolResult | None = None,
    ) -> None:
        self._answer = answer or (lambda tool, arguments: ToolResult(Outcome.SUCCEEDED, "Done.", dict(arguments)))
        self._delay = delay
        self._found = found
        self.tools: tuple[Tool, ...] = (ECHO, WRITE)
        self.done: dict[str, ToolResult] = {}
        """By key: the writes that took effect."""
        self.looked_up: list[str] = []
        self.calls: list[tuple[str, dict[str, Any], CallContext]] = []
        self.cancelled = 0

    def describe_tools(self) -> tuple[Tool, ...]:
        return self.tools

    def writes(self) -> list[str]:
        """Keys of the writes that were sent, in order."""
        effects = {tool.name: tool.effect for tool in self.tools}
        return [context.key for name, _, context in self.calls if effects[name] is not Effect.READ]

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        self.calls.append((tool.name, dict(arguments), context))
        try:
            await asyncio.sleep(self._delay)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        result = self._answer(tool, arguments)
        if isinstance(result, Exception):
            raise result
        if tool.effect is not Effect.READ and result.outcome is Outcome.SUCCEEDED:
            self.done[context.key] = result
        return result

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        self.looked_up.append(context.key)
        return self.done.get(context.key, self._found)

    async def probe(self) -> None:
        """Always there."""

    async def aclose(self) -> None:
        """Nothing is open."""


class FakeSource:
    """A CredentialSource in memory: tokens by e-mail, as accounts of the same name unless ``account`` is given."""

    def __init__(self, tokens: Mapping[str, str], *, account: str = "") -> None:
        self.tokens = dict(tokens)
        self.fresh: dict[str, str] = {}
        """By e-mail: what a renewal gives."""
        self.failing: Exception | None = None
        self.asked: list[str] = []
        self._account = account

    async def get(self, context: CallContext) -> Credential:
        self.asked.append(context.user_email)
        if self.failing is not None:
            raise self.failing
        token = self.tokens.get(context.user_email)
        if token is None:
            raise AccountNotLinked("You have not linked an account, so nothing was done.", asked=False)
        return Credential(SecretText(token), self._account or context.user_email)

    async def renew(self, context: CallContext, refused: Credential) -> Credential | None:
        token = self.fresh.pop(context.user_email, None)
        if token is None:
            return None
        self.tokens[context.user_email] = token
        return Credential(SecretText(token), self._account or context.user_email)


class FakeMemory:
    """Session memory in a dictionary; set ``failing`` to an exception to make it fail."""

    def __init__(self) -> None:
        self.sessions: dict[str, list[Message]] = {}
        self.failing: Exception | None = None
        self._seen: set[tuple[str, str]] = set()

    async def begin(self, session: str, run: str, text: str) -> tuple[Message, ...]:
        if self.failing:
            raise self.failing
        earlier = self.sessions.setdefault(session, [])
        before = tuple(earlier)
        if (session, run) not in self._seen:
            self._seen.add((session, run))
            earlier.append(Message("user", text))
        return before

    async def finish(self, session: str, run: str, text: str) -> None:
        if self.failing:
            raise self.failing
        self.sessions[session].append(Message("assistant", text))


class FakeEvents:
    """An event sink that keeps what was published."""

    def __init__(self) -> None:
        self.published: list[bytes] = []

    def publish(self, event: bytes) -> None:
        self.published.append(event)

    async def aclose(self) -> None:
        """Nothing is open."""


class FakeBreakers:
    """Remembers what an SRE said."""

    def __init__(self) -> None:
        self.modes: dict[str, BreakerMode] = {}

    async def set_mode(self, name: str, mode: BreakerMode, by: str) -> bool:
        self.modes[name] = mode
        return True


class FakeLocks:
    """Locks in a set; ``away`` makes them unknowable."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.away = False

    async def take(self, name: str, seconds: float) -> bool | None:
        if self.away:
            return None
        fresh = name not in self.taken
        self.taken.add(name)
        return fresh

    async def give(self, name: str) -> None:
        self.taken.discard(name)
