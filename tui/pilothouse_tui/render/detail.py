"""The two pages behind the overview: a session's runs and steps, a tenant's conditions. Lines of cells."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pilothouse_tui.model import Approval, Fleet, KubeObject, Run, SessionDetail, Step
from pilothouse_tui.render.approvals import who_decides
from pilothouse_tui.render.costs import call_line, cost_lines
from pilothouse_tui.render.lines import Line
from pilothouse_tui.render.style import (
    BAD,
    DIM,
    GOOD,
    PLAIN,
    STRONG,
    WAITING,
    WARN,
    condition_mark,
    object_mark,
    run_mark,
    session_mark,
    step_mark,
)
from pilothouse_tui.render.table import Cell
from pilothouse_tui.render.text import age, count, duration, money, one_line, time_split, until, visible

_KINDS = ("Tenant", "Connector", "ModelRoute")


def session_lines(detail: SessionDetail, now: datetime, approvals: Sequence[Approval] = ()) -> list[Line]:
    """A session's page, the newest run first: an SRE opens it to see what is going on.

    ``approvals`` are those that wait in this session.
    """
    session = detail.session
    mark = session_mark(session)
    lines: list[Line] = [
        [
            Cell(f"{mark.symbol} {mark.word}", mark.style),
            Cell(f"  {session.user}", STRONG),
            Cell(f" at {session.tenant}"),
        ],
        [
            Cell(
                f"session {session.session_id} · revision {session.revision or '–'} · worker {session.worker or '–'}"
                f" · started {age(session.started, now)} ago · {money(session.cost_micros)}",
                DIM,
            )
        ],
    ]
    if not detail.runs:
        return [*lines, [], [Cell("No runs are kept of this session.", DIM)]]
    for number, run in reversed(list(enumerate(detail.runs, 1))):
        lines += [[], *_run_lines(number, run, now, [a for a in approvals if a.run_id == run.run_id])]
    return lines


def _run_lines(number: int, run: Run, now: datetime, approvals: Sequence[Approval]) -> list[Line]:
    # Parked: it waits for somebody, and nothing of it goes on.
    parked = run.running and bool(approvals) and not any(step.running for step in run.steps)
    mark = WAITING if parked else run_mark(run.outcome, run.running)
    took = _elapsed(run.started, now) if run.running else duration(run.duration_ms)
    tokens = f"{count(run.input_tokens)} in, {count(run.output_tokens)} out"
    lines: list[Line] = [
        [Cell(f"{mark.symbol} Run {number} {mark.word}", mark.style), Cell(f"  {one_line(run.text)}", STRONG)],
        [Cell(f"  {age(run.started, now)} ago · {took} · {tokens} · {money(run.cost_micros)} · {run.run_id}", DIM)],
    ]
    if run.time.total_ms and not run.running:
        lines.append([Cell(f"  {time_split(run.time)}", DIM)])
    lines += [call_line(call) for call in run.calls]
    lines += [_step_line(step, now) for step in run.steps]
    lines += [_approval_line(approval, now) for approval in approvals]
    if not run.steps and not approvals and not run.calls:
        lines.append([Cell("    no steps" if not run.running else "    planning…", DIM)])
    if run.error:
        lines.append([Cell(f"    ✗ {one_line(run.error)}", BAD)])
    return lines


def _step_line(step: Step, now: datetime) -> Line:
    mark = step_mark(step.outcome, step.running)
    took = _elapsed(step.started, now) if step.running else duration(step.duration_ms) if step.duration_ms else ""
    word = "" if mark.word in ("done", "running", "planned") else f"  {mark.word}"
    return [
        Cell(f"    {mark.symbol} ", mark.style),
        Cell(f"{took:>9}  ", DIM),
        Cell(step.tool, STRONG if step.running else PLAIN),
        Cell(word, mark.style),
        Cell(f"  {one_line(step.summary)}", DIM),
    ]


def _approval_line(approval: Approval, now: datetime) -> Line:
    # The columns of a step's line: what is left stands where a step's duration does.
    foreign = f" · {len(approval.origins)} not from the user" if approval.origins else ""
    return [
        Cell(f"    {WAITING.symbol} ", WARN),
        Cell(f"{_left(approval, now):>9}  ", DIM),
        Cell(visible(approval.tool), STRONG),
        Cell(f"  waits for {who_decides(approval)}{foreign}", WARN),
        Cell(f"  {visible(approval.summary)}", DIM),
    ]


def _left(approval: Approval, now: datetime) -> str:
    return f"{until(approval.expires, now)} left" if approval.expires and approval.expires > now else "lapsed"


def _elapsed(started: datetime | None, now: datetime) -> str:
    if started is None:
        return "…"
    return duration(max(0, int((now - started).total_seconds())) * 1000) if now >= started else "0 ms"


def tenant_page(fleet: Fleet, namespace: str, name: str, now: datetime) -> list[Line]:
    """A tenant's page: its own conditions, then those of its connectors and of its namespace's model routes."""
    items = [i for i in fleet.objects.values() if i.namespace == namespace and _belongs(i, name)]
    items.sort(key=lambda i: (_KINDS.index(i.kind) if i.kind in _KINDS else len(_KINDS), i.name))
    if not items or items[0].kind != "Tenant":
        return [
            [Cell(name, STRONG)],
            [Cell("There is no Tenant object of this name now; it was deleted, or Kubernetes is not reached.", WARN)],
        ]
    cost = fleet.costs.get(name)
    lines: list[Line] = [[Cell(items[0].title or name, STRONG), Cell(f"  tenant {name} in namespace {namespace}", DIM)]]
    if cost is not None:
        tokens = f"{count(cost.input_tokens)} tokens in, {count(cost.output_tokens)} out"
        asked = "as heard; the ledger was not asked yet"
        if cost.reconciled:
            asked = f"the ledger's sum of {age(cost.reconciled, now)} ago, and all since"
        told = f"{money(cost.cost_micros)} today · {count(cost.runs)} runs · {tokens} · {asked}"
        lines += [[Cell(told, DIM)], *cost_lines(cost)]
    for item in items:
        lines += [[], *_object_lines(item, now)]
    return lines


def _belongs(item: KubeObject, tenant: str) -> bool:
    return item.tenant == tenant or (item.kind == "ModelRoute" and not item.tenant)


def _object_lines(item: KubeObject, now: datetime) -> list[Line]:
    mark = object_mark(item)
    lines: list[Line] = [
        [
            Cell(f"{mark.symbol} ", mark.style),
            Cell(f"{item.kind} {item.name}", STRONG),
            Cell(f"  {one_line(item.detail)}" if item.detail else "", DIM),
        ]
    ]
    if item.observed_generation < item.generation:
        seen, newest = item.observed_generation, item.generation
        lines.append([Cell(f"    … the operator has seen generation {seen} of {newest}", WARN)])
    if not item.conditions:
        lines.append([Cell("    no conditions yet: the operator has not looked at it", DIM)])
    width = max((len(c.type) for c in item.conditions), default=0)
    for condition in item.conditions:
        state = condition_mark(condition)
        lines.append(
            [
                Cell(f"    {state.symbol} ", state.style),
                Cell(condition.type.ljust(width)),
                Cell(f"  {state.word:<7}", state.style),
                Cell(f"  {condition.reason}", PLAIN if state.style == GOOD else STRONG),
                Cell(f"  {age(condition.since, now)}", DIM),
            ]
        )
        if condition.message:
            lines.append([Cell(f"        {one_line(condition.message)}", DIM if state.style == GOOD else PLAIN)])
    return lines
