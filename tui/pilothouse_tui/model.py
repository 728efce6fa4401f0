"""What the terminal shows, as plain frozen data: no Kubernetes object and no protobuf message gets past ``data/``.

Money is integer micro-dollars (1 USD = 1,000,000), durations are milliseconds where the name says so, times are aware
``datetime`` values in UTC or ``None`` where the sender left them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, TypeAlias


class BreakerState(StrEnum):
    """State of a circuit breaker, in resilience4j's words."""

    UNKNOWN = "unknown"
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    FORCED_OPEN = "forced open"
    """An SRE keeps it open."""
    DISABLED = "disabled"
    """An SRE has switched it off: every call passes and nothing is counted."""


class BreakerMode(StrEnum):
    """What an SRE makes of a breaker."""

    AUTOMATIC = "automatic"
    FORCED_OPEN = "forced open"
    DISABLED = "disabled"


class Approver(StrEnum):
    """Who is asked before a write."""

    UNKNOWN = "unknown"
    USER = "user"
    MANAGER = "manager"
    GROUP = "group"


class DecideOutcome(StrEnum):
    """What became of an answer to an approval."""

    UNKNOWN = "unknown"
    DECIDED = "decided"
    ALREADY_DECIDED = "already_decided"
    EXPIRED = "expired"
    NOT_ALLOWED = "not_allowed"
    NOT_FOUND = "not_found"


class DeadLetterState(StrEnum):
    """Whether a failed write still waits for somebody."""

    UNKNOWN = "unknown"
    OPEN = "open"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


class RunOutcome(StrEnum):
    """How a run ended."""

    UNKNOWN = "unknown"
    ANSWERED = "answered"
    PARTIAL = "partial"
    FAILED = "failed"
    STOPPED = "stopped"


class StepOutcome(StrEnum):
    """How a step ended; UNKNOWN means that nobody knows whether its write happened."""

    UNSPECIFIED = "unspecified"
    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """One entry of ``status.conditions``."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class KubeObject:
    """A Tenant, Connector or ModelRoute as far as the terminal shows it."""

    kind: str
    namespace: str
    name: str
    title: str = ""
    tenant: str = ""
    """Name of the tenant that it belongs to; a Tenant's own name, empty for a ModelRoute."""
    detail: str = ""
    """What kind of thing it is in a few words, for example ``jira · https://acme.example/jira``."""
    generation: int = 0
    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()

    @property
    def key(self) -> ObjectKey:
        """Identity within the cluster."""
        return (self.kind, self.namespace, self.name)

    def condition(self, kind: str) -> Condition | None:
        """The condition of that type, or ``None`` where the operator has not written it."""
        return next((c for c in self.conditions if c.type == kind), None)


ObjectKey: TypeAlias = tuple[str, str, str]
SessionKey: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation and what it is doing now."""

    tenant: str
    session_id: str
    user: str = ""
    revision: str = ""
    worker: str = ""
    started: datetime | None = None
    last_event: datetime | None = None
    current_step: str = ""
    last_text: str = ""
    runs: int = 0
    cost_micros: int = 0
    active: bool = False
    last_outcome: RunOutcome = RunOutcome.UNKNOWN
    waiting_approvals: int = 0
    """Approvals that its runs wait for."""

    @property
    def key(self) -> SessionKey:
        """Identity: a session's id is only unique within its tenant."""
        return (self.tenant, self.session_id)


@dataclass(frozen=True, slots=True)
class Breaker:
    """A circuit breaker of one tenant; ``name`` is ``connector/jira`` or ``provider/local``."""

    tenant: str
    name: str
    state: BreakerState = BreakerState.UNKNOWN
    failure_rate_percent: float = 0.0
    reason: str = ""
    since: datetime | None = None
    slow_rate_percent: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """Identity: names repeat from tenant to tenant."""
        return (self.tenant, self.name)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one value of a write's arguments comes from, which the asking user did not write."""

    path: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Approval:
    """A write that waits for somebody's yes. ``arguments`` is JSON text."""

    tenant: str
    approval_id: str
    session_id: str = ""
    run_id: str = ""
    step_id: str = ""
    user: str = ""
    """E-mail of the asking user."""
    created: datetime | None = None
    tool: str = ""
    summary: str = ""
    arguments: str = ""
    by: Approver = Approver.UNKNOWN
    approver: str = ""
    """E-mail, or the group's name."""
    expires: datetime | None = None
    """After this it counts as refused."""
    reason: str = ""
    origins: tuple[Origin, ...] = ()

    @property
    def key(self) -> ApprovalKey:
        """Identity."""
        return (self.tenant, self.approval_id)


ApprovalKey: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ApprovalGone:
    """An approval waits no longer."""

    tenant: str
    approval_id: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Answer to an answer: what became of it, and the sentence that says so."""

    outcome: DecideOutcome
    message: str = ""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A write that failed for good. ``arguments`` is JSON text."""

    id: str
    tenant: str
    session_id: str = ""
    run_id: str = ""
    step_id: str = ""
    user: str = ""
    tool: str = ""
    arguments: str = ""
    idempotency_key: str = ""
    error: str = ""
    attempts: int = 0
    breaker_state: str = ""
    created: datetime | None = None
    state: DeadLetterState = DeadLetterState.UNKNOWN
    resolved: datetime | None = None
    resolved_by: str = ""
    resolution: str = ""
    in_doubt: bool = False
    """Whether the write may have happened after all."""

    @property
    def key(self) -> tuple[str, str]:
        """Identity."""
        return (self.tenant, self.id)


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Dead letters of many tenants, newest first, and the tenants that could not be asked with the reason."""

    letters: tuple[DeadLetter, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of sending a dead letter again."""

    letter: DeadLetter
    outcome: StepOutcome
    message: str = ""


CostBy: TypeAlias = Literal["tenant", "user", "tier", "provider", "model", "revision"]
"""What costs are summed by."""


@dataclass(frozen=True, slots=True)
class CostSum:
    """Model calls that have the same names; a name that the sum was not taken by is empty."""

    tier: str = ""
    provider: str = ""
    model: str = ""
    user: str = ""
    revision: str = ""
    calls: int = 0
    """That reached a provider."""
    cached_calls: int = 0
    """Answers that were used again instead of a call."""
    fallbacks: int = 0
    """Calls that came after another target had failed."""
    aborted: int = 0
    escalated: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    """Of the input tokens: served from the provider's prompt cache."""
    cost_micros: int = 0
    saved_micros: int = 0
    """What the cached answers would have cost."""
    runs: int = 0


@dataclass(frozen=True, slots=True)
class TenantCost:
    """What a tenant's model calls have cost today (UTC)."""

    tenant: str
    cost_micros: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    runs: int = 0
    day: str = ""
    """Such as 2026-11-22."""
    saved_micros: int = 0
    sums: tuple[CostSum, ...] = ()
    """By tier, provider and model."""
    reconciled: datetime | None = None
    """When the ledger was last asked; ``None``: not yet, so that calls may be missing."""


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call of a model, or an answer that was used again."""

    provider: str
    model: str
    tier: str = ""
    reason: str = ""
    """Why this tier."""
    cached: bool = False
    fallback: str = ""
    """Why another target, which came before, did not answer."""
    aborted: bool = False
    escalated: bool = False
    estimated: bool = False
    """The tokens were counted by Pilothouse."""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cost_micros: int = 0
    saved_micros: int = 0
    duration_ms: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One tool call of a run."""

    step_id: str
    tool: str
    summary: str = ""
    running: bool = False
    outcome: StepOutcome = StepOutcome.UNSPECIFIED
    started: datetime | None = None
    duration_ms: int = 0


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """What a run's time went to, in milliseconds; the four add up to the whole."""

    model_ms: int = 0
    tools_ms: int = 0
    """While no model call was under way."""
    approval_ms: int = 0
    pilothouse_ms: int = 0

    @property
    def total_ms(self) -> int:
        """The run's whole time."""
        return self.model_ms + self.tools_ms + self.approval_ms + self.pilothouse_ms


@dataclass(frozen=True, slots=True)
class Run:
    """One question and what was done for it."""

    run_id: str
    text: str = ""
    started: datetime | None = None
    running: bool = False
    outcome: RunOutcome = RunOutcome.UNKNOWN
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0
    duration_ms: int = 0
    error: str = ""
    steps: tuple[Step, ...] = ()
    time: TimeSplit = TimeSplit()
    calls: tuple[ModelCall, ...] = ()
    """In the order in which they ended."""


@dataclass(frozen=True, slots=True)
class SessionDetail:
    """A session with its runs, oldest first."""

    session: Session
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """Everything that Fleet knows at one moment; replaces what was known before."""

    sessions: tuple[Session, ...] = ()
    breakers: tuple[Breaker, ...] = ()
    costs: tuple[TenantCost, ...] = ()
    approvals: tuple[Approval, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectsListed:
    """All objects of one kind; replaces what was known of that kind."""

    kind: str
    objects: tuple[KubeObject, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectDeleted:
    """An object is gone."""

    key: ObjectKey


@dataclass(frozen=True, slots=True)
class Connected:
    """A source answers again."""

    source: str
    where: str = ""


@dataclass(frozen=True, slots=True)
class Lost:
    """A source does not answer; it tries again by itself after ``retry_in`` seconds."""

    source: str
    message: str
    to_do: str = ""
    retry_in: float = 0.0


FLEET = "Fleet"
KUBERNETES = "Kubernetes"

Update: TypeAlias = (
    Connected
    | Lost
    | FleetSnapshot
    | Session
    | Breaker
    | TenantCost
    | Approval
    | ApprovalGone
    | ObjectsListed
    | KubeObject
    | ObjectDeleted
)
SessionUpdate: TypeAlias = Connected | Lost | SessionDetail


@dataclass(frozen=True, slots=True)
class Link:
    """State of the connection to one source, for the header."""

    source: str
    up: bool = False
    where: str = ""
    message: str = ""
    to_do: str = ""
    retry_at: datetime | None = None
    last_data: datetime | None = None
    """When the last data came; ``None`` before the first, so that "connecting" and "stale" can be told apart."""


@dataclass(slots=True)
class Fleet:
    """All that the overview shows. Only the application's message handlers change it (through ``state.apply``)."""

    objects: dict[ObjectKey, KubeObject] = field(default_factory=dict)
    sessions: dict[SessionKey, Session] = field(default_factory=dict)
    breakers: dict[tuple[str, str], Breaker] = field(default_factory=dict)
    costs: dict[str, TenantCost] = field(default_factory=dict)
    approvals: dict[ApprovalKey, Approval] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=lambda: {s: Link(s) for s in (KUBERNETES, FLEET)})

    def of_kind(self, kind: str) -> Mapping[ObjectKey, KubeObject]:
        """The objects of one kind."""
        return {key: value for key, value in self.objects.items() if value.kind == kind}


@dataclass(frozen=True, slots=True)
class Tool:
    """One thing that a tenant's agent can call."""

    name: str
    connector: str
    description: str
    effect: str
    """read, write or destructive."""
    idempotent: bool
    approval: str
    """Whose yes it takes: user, manager, "group NAME"; empty where nobody's."""
    key_by: str
    """How its writes carry their idempotency key."""
    parameters: str
    """JSON Schema, as text."""


class LinkState(StrEnum):
    """Whether the agent can act in a system as an employee."""

    UNSPECIFIED = "unspecified"
    LINKED = "linked"
    NOT_LINKED = "not_linked"
    EXPIRED = "expired"
    NOT_NEEDED = "not_needed"
    BY_ADMINISTRATOR = "by_administrator"


@dataclass(frozen=True, slots=True)
class LinkedAccount:
    """An employee's account in one system."""

    connector: str
    system: str
    state: LinkState
    account: str
    scopes: tuple[str, ...]
    linked: datetime | None
    expires: datetime | None
