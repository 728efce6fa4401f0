"""The overview's three tables."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pilothouse_tui.model import Breaker, BreakerState, Fleet, KubeObject, Session, TenantCost
from pilothouse_tui.render.costs import FALLBACK, falls_back
from pilothouse_tui.render.style import DIM, GOOD, PLAIN, STRONG, WARN, breaker_mark, object_mark, session_mark
from pilothouse_tui.render.table import Cell, Column, Row, Sort, Table
from pilothouse_tui.render.text import age, count, money, one_line

_BREAKER_RANK = {
    BreakerState.OPEN: 0,
    BreakerState.FORCED_OPEN: 1,
    BreakerState.HALF_OPEN: 2,
    BreakerState.DISABLED: 3,
    BreakerState.UNKNOWN: 4,
    BreakerState.CLOSED: 5,
}
_OLD = float("-inf")


@dataclass(frozen=True, slots=True)
class TenantLine:
    """A tenant with what is counted for it."""

    tenant: KubeObject
    cost: TenantCost
    live: int = 0
    sessions: int = 0
    troubled: int = 0
    """Connectors and model routes of its namespace that are not Ready."""


def tenant_lines(fleet: Fleet) -> list[TenantLine]:
    """Each tenant with its sessions and costs; one known to Fleet only (deleted, or Kubernetes down) is shown too."""
    live: dict[str, int] = {}
    total: dict[str, int] = {}
    for session in fleet.sessions.values():
        total[session.tenant] = total.get(session.tenant, 0) + 1
        live[session.tenant] = live.get(session.tenant, 0) + session.active
    troubled: dict[str, int] = {}
    for item in fleet.objects.values():
        ready = item.condition("Ready")
        if item.kind != "Tenant" and ready is not None and ready.status != "True":
            troubled[item.namespace] = troubled.get(item.namespace, 0) + 1
    tenants = list(fleet.of_kind("Tenant").values())
    known = {t.name for t in tenants}
    tenants += [
        KubeObject("Tenant", "", name, title=name, tenant=name)
        for name in sorted((set(total) | set(fleet.costs)) - known)
    ]
    return [
        TenantLine(
            t,
            fleet.costs.get(t.name, TenantCost(t.name)),
            live.get(t.name, 0),
            total.get(t.name, 0),
            troubled.get(t.namespace, 0),
        )
        for t in tenants
    ]


def _tenant_state(line: TenantLine) -> Cell:
    if not line.tenant.namespace:
        return Cell("· no Tenant object", DIM)
    mark = object_mark(line.tenant)
    if line.troubled and mark.style == GOOD:
        # The tenant itself serves, yet a connector or a model route of it does not: never a plain tick.
        return Cell(f"! {line.troubled} part{'s' if line.troubled != 1 else ''} not Ready", WARN)
    return Cell(f"{mark.symbol} {mark.word}", mark.style)


def _tenant_cells(line: TenantLine) -> tuple[Cell, ...]:
    return (
        Cell(line.tenant.name, STRONG),
        _tenant_state(line),
        Cell(str(line.live), PLAIN if line.live else DIM),
        Cell(count(line.cost.runs)),
        Cell(money(line.cost.cost_micros)),
    )


TENANTS: Table[TenantLine] = Table(
    columns=(
        Column("Tenant", 10, grow=2, keep=9),
        Column("State", 20, grow=3, keep=8),
        Column("Live", 5, keep=6, right=True),
        Column("Runs", 6, keep=5, right=True),
        Column("Today", 10, keep=7, right=True),
    ),
    key=lambda line: (line.tenant.namespace, line.tenant.name),
    cells=_tenant_cells,
    text=lambda line: f"{line.tenant.name} {line.tenant.title} {_tenant_state(line).text}",
    values=(
        lambda line: line.tenant.name,
        lambda line: (object_mark(line.tenant).word == "Ready", object_mark(line.tenant).word, -line.troubled),
        lambda line: line.live,
        lambda line: line.cost.runs,
        lambda line: line.cost.cost_micros,
    ),
)


def sessions_table(now: datetime) -> Table[Session]:
    """The table of sessions; ``now`` for their ages."""

    def cells(session: Session) -> tuple[Cell, ...]:
        mark = session_mark(session)
        step = one_line(session.current_step)
        doing = Cell(step) if step else Cell(one_line(session.last_text) or "–", DIM)
        return (
            Cell(f"{mark.symbol} {mark.word}", mark.style),
            Cell(session.tenant, STRONG),
            Cell(session.user),
            doing,
            Cell(count(session.runs)),
            Cell(money(session.cost_micros)),
            Cell(session.revision or "–", DIM),
            Cell(age(session.last_event, now), DIM),
        )

    return Table(
        columns=(
            Column("State", 10, keep=9),
            Column("Tenant", 10, grow=1, keep=8),
            Column("User", 18, grow=2, keep=6),
            Column("Current step", 20, grow=5, keep=7),
            Column("Runs", 5, keep=2, right=True),
            Column("Cost", 9, keep=4, right=True),
            Column("Revision", 10, keep=1),
            Column("Age", 4, keep=5, right=True),
        ),
        key=lambda s: s.key,
        cells=cells,
        text=lambda s: (
            f"{session_mark(s).word} {s.tenant} {s.session_id} {s.user} {s.revision} {s.current_step or s.last_text}"
        ),
        values=(
            lambda s: (not (s.active or s.waiting_approvals), -_seconds(s.last_event)),
            lambda s: s.tenant,
            lambda s: s.user,
            lambda s: s.current_step or s.last_text,
            lambda s: s.runs,
            lambda s: s.cost_micros,
            lambda s: s.revision,
            lambda s: -_seconds(s.last_event),
        ),
    )


def _seconds(moment: datetime | None) -> float:
    return moment.timestamp() if moment is not None else _OLD


def breakers_table(now: datetime) -> Table[Breaker]:
    """The table of breakers; ``now`` for how long each has been in its state."""

    def cells(breaker: Breaker) -> tuple[Cell, ...]:
        mark = breaker_mark(breaker.state)
        why = one_line(breaker.reason) or "–"
        reason = Cell(f"{FALLBACK} passed over · {why}", WARN) if falls_back(breaker) else Cell(why, DIM)
        return (
            Cell(f"{mark.symbol} {mark.word}", mark.style),
            Cell(breaker.tenant, STRONG),
            Cell(breaker.name),
            Cell(f"{breaker.failure_rate_percent:.0f}%"),
            Cell(f"{breaker.slow_rate_percent:.0f}%"),
            Cell(age(breaker.since, now), DIM),
            reason,
        )

    return Table(
        columns=(
            Column("State", 11, keep=9),
            Column("Tenant", 8, grow=1, keep=7),
            Column("Breaker", 20, grow=1, keep=8),
            Column("Fail", 4, keep=5, right=True),
            Column("Slow", 4, keep=4, right=True),
            Column("For", 4, keep=4, right=True),
            Column("Reason", 12, grow=2, keep=3),
        ),
        key=lambda b: b.key,
        cells=cells,
        text=lambda b: f"{breaker_mark(b.state).word} {b.tenant} {b.name} {b.reason}",
        values=(
            lambda b: _BREAKER_RANK[b.state],
            lambda b: b.tenant,
            lambda b: b.name,
            lambda b: b.failure_rate_percent,
            lambda b: b.slow_rate_percent,
            lambda b: -_seconds(b.since),
            lambda b: b.reason,
        ),
    )


def tenant_rows(fleet: Fleet, sort: Sort, words: str = "") -> list[Row]:
    """Rows of the tenants' table."""
    return TENANTS.rows(tenant_lines(fleet), sort, words)


def session_rows(fleet: Fleet, now: datetime, sort: Sort, words: str = "", *, live_only: bool = False) -> list[Row]:
    """Rows of the sessions' table."""
    chosen = [s for s in fleet.sessions.values() if s.active or s.waiting_approvals or not live_only]
    return sessions_table(now).rows(chosen, sort, words)


def breaker_rows(fleet: Fleet, now: datetime, sort: Sort, words: str = "") -> list[Row]:
    """Rows of the breakers' table."""
    return breakers_table(now).rows(fleet.breakers.values(), sort, words)


def total_cost(fleet: Fleet) -> str:
    """Cost of all tenants, and its tokens and runs."""
    costs = fleet.costs.values()
    tokens = sum(c.input_tokens + c.output_tokens for c in costs)
    spent = money(sum(c.cost_micros for c in costs))
    return f"{spent} today · {count(sum(c.runs for c in costs))} runs · {count(tokens)} tokens"
