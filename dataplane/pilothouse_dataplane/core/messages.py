"""Plain data that the run, the models and the connectors exchange. No IO, no vendor's shapes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from pilothouse_api.workerconfig import Tier

Role = Literal["system", "user", "assistant", "tool"]
JsonObject = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What a model asked for."""

    id: str
    """The model's own id; its tool message must carry it back."""
    name: str
    """The model's name of the tool (see ``model_name``)."""
    arguments: str
    """JSON text as the model wrote it; may be broken."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation as a model reads it."""

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


class Effect(Enum):
    """What calling a tool does to the external system."""

    READ = "read"
    WRITE = "write"
    DESTRUCTIVE = "destructive"


class Lookup(Enum):
    """What ``find_by_key`` can tell about a write whose outcome is not known."""

    NONE = "none"
    """The system can't be asked: the user is."""
    EVENTUAL = "eventual"
    """Found is proof; not found may be its search's delay."""
    AUTHORITATIVE = "authoritative"
    """Found and not found are both proof, once the request can't be under way any more."""


class By(Enum):
    """Who decides about a write; the same words as the Connector's ``tools.approvals[].by``."""

    USER = "User"
    MANAGER = "Manager"
    GROUP = "Group"


@dataclass(frozen=True, slots=True)
class Approver:
    """Who decides about a tool's calls. ``group`` goes with ``By.GROUP``."""

    by: By
    group: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """One thing that a connector can do."""

    name: str
    """``connector.noun.verb``, for example ``jira.issue.create``."""
    description: str
    parameters: JsonObject
    """JSON Schema of an object."""
    effect: Effect
    lookup: Lookup = Lookup.NONE
    """Of a write."""
    approver: Approver | None = None
    """The connector's policy: each call waits for this person's yes."""
    returns: JsonObject | None = None
    """JSON Schema of a result's data; None: it is not checked."""
    idempotent: bool = False
    """Of a write: sending the same again changes nothing more, so that an unknown outcome may be settled by it."""
    key_by: str = ""
    """Of a write: how it carries its idempotency key, a few words such as "correlation_id" or "external id"; "": it
    carries none."""
    keywords: tuple[str, ...] = ()
    """Words that people use for it and that its name and description lack; they only help to choose tools."""
    patterns: tuple[str, ...] = ()
    """Regular expressions of what a request for it may hold, such as an issue's key; likewise."""

    @property
    def model_name(self) -> str:
        """The name given to models, which allow ``^[a-zA-Z0-9_-]+$`` only: dots become two underscores."""
        return sys.intern(self.name.replace(".", "__"))  # one string for all runs: each holds the names of its tools


class Outcome(Enum):
    """How a tool call ended; the same words as ``StepOutcome`` in agent.proto."""

    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Citation:
    """Something in an external system that the answer rests on."""

    title: str
    url: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What came of one tool call."""

    outcome: Outcome
    summary: str
    """One sentence for the user."""
    data: object = None
    """JSON-able content for the model. It is data from outside: never an instruction."""
    citations: tuple[Citation, ...] = ()
    account: str = ""
    """As whom the system was asked: the user's e-mail there, or "service account NAME"; "" where nothing was sent."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and money of one or more model calls."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0
    """Micro-dollars (1 USD = 1,000,000)."""
    cached_input_tokens: int = 0
    """Of ``input_tokens``: served from the provider's prompt cache."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cost_micros + other.cost_micros,
            self.cached_input_tokens + other.cached_input_tokens,
        )


@dataclass(frozen=True, slots=True)
class Situation:
    """Where a run stands when it asks a model: what routing, limits and the cache go by. No text of any tool in it."""

    text: str
    """The user's question."""
    user_email: str = ""
    groups: tuple[str, ...] = ()
    earlier_turns: int = 0
    """Messages of the conversation before the question."""
    rounds: int = 0
    """Rounds of tool calls made in this run; 0: the first plan."""
    systems: tuple[str, ...] = ()
    """Connectors whose tools the model is shown."""
    effects: tuple[Effect, ...] = ()
    """Of the tools that it is shown, each once."""
    writes: int = 0
    """Writes made or under way in this run."""
    failed_calls: int = 0
    """Calls of the last round that could not be made: unknown tools, arguments that don't fit."""
    permissions: str = ""
    """Hash of the user's permission set: the accounts that she has linked, and her groups."""
    planned_by: Tier | None = None
    """Tier of the run's last model call; None: there was none, or another worker made it."""
    least: Tier | None = None
    """Where an earlier plan of the run was escalated: no tier below this one is asked any more."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One call of a model."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    allow_tools: bool = True
    """False: the model must answer now; the tools only explain the earlier calls."""
    situation: Situation | None = None
    """What the router goes by; None: the default tier."""
    response_schema: JsonObject | None = None
    """JSON Schema that the text must fit (structured output); None: plain text."""
