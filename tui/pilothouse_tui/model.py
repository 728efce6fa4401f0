"""What the terminal shows, as plain frozen data: no Kubernetes object and no protobuf message gets past ``data/``.

Money is integer micro-dollars (1 USD = 1,000,000), durations are milliseconds where the name says so, times are aware
``datetime`` values in UTC or ``None`` where the sender left them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias


class BreakerState(StrEnum):
    """State of a circuit breaker, in resilience4j's words."""

    UNKNOWN = "unknown"
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


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


@dataclass(frozen=True, slots=True)
class TenantCost:
    """What a tenant has cost so far."""

    tenant: str
    cost_micros: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    runs: int = 0


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
    Connected | Lost | FleetSnapshot | Session | Breaker | TenantCost | ObjectsListed | KubeObject | ObjectDeleted
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
    links: dict[str, Link] = field(default_factory=lambda: {s: Link(s) for s in (KUBERNETES, FLEET)})

    def of_kind(self, kind: str) -> Mapping[ObjectKey, KubeObject]:
        """The objects of one kind."""
        return {key: value for key, value in self.objects.items() if value.kind == kind}
