"""A run as plain data: its state, the events that change it, the actions that follow. run.py has the transitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pilothouse_dataplane.core.approvals import ApprovalRequest
from pilothouse_dataplane.core.catalog import Catalog
from pilothouse_dataplane.core.messages import (
    Citation,
    Effect,
    Message,
    Situation,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)
from pilothouse_dataplane.core.report import step_title


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one run."""

    max_steps: int = 8
    """Rounds of tool calls."""
    max_calls_per_round: int = 16
    parallel_calls: int = 8
    """Tool calls at a time."""
    max_answer_chars: int = 64_000
    result_bytes: int = 16_384
    """Of one tool's result, as the model reads it."""
    budget_micros: int | None = None
    """Micro-dollars that the run's model calls may cost; None: no bound."""
    approval_seconds: float = 3600.0
    """An approval that nobody has decided after this long counts as refused."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks, as far as approvals need it."""

    email: str
    manager_email: str = ""


class Phase(Enum):
    """Where a run stands."""

    THINKING = "thinking"
    ACTING = "acting"
    DONE = "done"


class StepStatus(Enum):
    """Where a step stands."""

    PENDING = "pending"
    """Waits for results that it refers to, for the plan's end (writes), or for its turn."""
    ASKING = "asking"
    """Waits for a person."""
    APPROVED = "approved"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Step:
    """One tool call of the run."""

    id: str
    """s1, s2, … in the order of the model's calls over the run."""
    call: ToolCall
    tool: Tool | None
    """None: the model named a tool that isn't there."""
    arguments: Mapping[str, Any]
    """With references until the step is about to start, without them afterwards."""
    needs: frozenset[str] = frozenset()
    """Ids of the steps whose results it uses."""
    status: StepStatus = StepStatus.PENDING
    fingerprint: str = ""
    """Hash of tool and canonical arguments: two writes with the same fingerprint are the same write."""
    approval_id: str = ""
    request: ApprovalRequest | None = None
    """What was asked about it, where a person must decide."""
    unusable: bool = False
    """The model's fault: there is no such tool, or the arguments don't fit."""
    serial: int = 0
    """Tells this start from an earlier one of the same id, whose call was given up with the model's broken turn."""
    result: ToolResult | None = None

    @property
    def name(self) -> str:
        return self.tool.name if self.tool else self.call.name[:80]

    @property
    def title(self) -> str:
        """The name for sentences that a person reads."""
        return f"“{step_title(self.name)}”"

    @property
    def writes(self) -> bool:
        return self.tool is not None and self.tool.effect is not Effect.READ


@dataclass(frozen=True, slots=True)
class RunState:
    """All there is to know about a run. Make it with ``run.start``."""

    run_id: str
    catalog: Catalog
    """All that the agent can call."""
    shown: tuple[Tool, ...]
    """What the model is shown of it."""
    limits: Limits
    asking: Asking
    deadline: float
    messages: tuple[Message, ...]
    user_texts: tuple[str, ...]
    """What the user wrote in this session."""
    earlier_answers: tuple[str, ...]
    phase: Phase = Phase.THINKING
    rounds: int = 0
    """Rounds of tool calls begun."""
    steps: tuple[Step, ...] = ()
    round_start: int = 0
    """Index of the present round's first step; those before it have ended and the model has read their results."""
    text: str = ""
    """What the present model call has written so far."""
    reply: str | None = None
    """The answer that the plan brought along, with references."""
    drafted: tuple[ToolCall, ...] = ()
    """Calls that arrived before the present model call was over, in order."""
    known_reads: Mapping[str, ToolResult] = field(default_factory=dict)
    """By fingerprint: what reads of the model's broken turn had returned."""
    empty_answers: int = 0
    serial: int = 0
    usage: Usage = field(default_factory=Usage)

    def step(self, step_id: str) -> Step | None:
        """The step of that id."""
        number = step_id[1:]
        index = int(number) - 1 if number.isdigit() else -1
        return self.steps[index] if 0 <= index < len(self.steps) else None


# --- events -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class TextArrived:
    """The model wrote some text."""

    text: str


@dataclass(frozen=True, slots=True)
class CallArrived:
    """A tool call is complete, though the model's turn is not over."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class ModelRestarted:
    """The model's turn broke off, and another target begins it anew: what it had called and written is void."""

    after_text: bool = False
    """The user has read some of it."""


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """A tool call came back. ``serial`` is that of its ``StartTool``; 0 in a replay."""

    step_id: str
    result: ToolResult
    serial: int = 0


@dataclass(frozen=True, slots=True)
class ModelFinished:
    """The model's turn is complete. ``tool_calls`` are all of its calls, those that arrived before included."""

    tool_calls: tuple[ToolCall, ...]
    usage: Usage
    text: str = ""
    """All of the turn's text, in a replay; live it has come as ``TextArrived``."""
    observed: tuple[ToolFinished, ...] = ()
    """In a replay: what reads had returned before the turn was over. What could start then depends on it."""


@dataclass(frozen=True, slots=True)
class ModelFailed:
    """No provider answered. ``message`` is a sentence for the user."""

    message: str
    retryable: bool = True
    usage: Usage = field(default_factory=Usage)
    limited: bool = False
    """A limit of the tenant or the user was reached; the message says when to come back."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A person, or the expiry, has answered an approval. ``why`` is a sentence where it was refused."""

    step_id: str
    approved: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The run's time is over."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The user, or the worker's end, stops the run."""

    reason: str


Entry = ModelFinished | ToolFinished | Decided
"""What the journal keeps: with these, in order, a run's state can be made again."""
Event = Entry | TextArrived | CallArrived | ModelRestarted | ModelFailed | DeadlineReached | StopRequested


# --- actions ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class CallModel:
    """Call the model; with ``offer_tools`` False, for the last call that the bounds allow."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    offer_tools: bool
    situation: Situation
    """As far as the machine knows it: without groups and permissions."""
    budget_micros: int | None = None
    """Micro-dollars that are left of the run's budget; None: no bound."""


@dataclass(frozen=True, slots=True)
class ShowPlan:
    """Tell the user what is about to be done: the steps that are new."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """Append to the journal, before what follows can be seen outside."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class StartTool:
    """Call a tool. ``key`` is the same for the same step of the same run; a write's intent comes first."""

    step: Step
    key: str


@dataclass(frozen=True, slots=True)
class SettleTool:
    """A write was sent by a worker that is gone: find out what came of it, don't send it."""

    step: Step
    key: str


@dataclass(frozen=True, slots=True)
class CancelTool:
    """Give a running read up."""

    step: Step


@dataclass(frozen=True, slots=True)
class AskApproval:
    """Record the question and put it to the person."""

    step: Step
    approval_id: str
    request: ApprovalRequest


@dataclass(frozen=True, slots=True)
class Park:
    """Nothing is left to do until somebody decides."""

    approval_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FinishStep:
    """Tell the user how a step ended."""

    step: Step
    result: ToolResult


@dataclass(frozen=True, slots=True)
class ShowText:
    """Pass text on to the user."""

    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The run ends with an answer; everything still under way is to be cancelled."""

    text: str
    partial: bool
    stopped: bool
    citations: tuple[Citation, ...]
    usage: Usage


@dataclass(frozen=True, slots=True)
class Fail:
    """The run ends without an answer: nothing was done."""

    message: str
    retryable: bool
    usage: Usage
    limited: bool = False


Action = (
    CallModel | ShowPlan | Record | StartTool | SettleTool | CancelTool | AskApproval | Park | FinishStep | ShowText
    | Answer | Fail
)  # fmt: skip
Transition = tuple[RunState, tuple[Action, ...]]
