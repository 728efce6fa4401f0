"""Run events folded into what an SRE sees: sessions with runs and steps, breakers, costs. Pure; time is an argument.

Bounds: a session is kept for 24 h after its last event; a tenant has at most 2,000 of them (the longest silent goes
first) and all tenants together 5,000 (the tenant with the most gives one up); a session has at most 50 runs, a run 100
steps. Costs are in micro-dollars, summed over the events that the stream still held when this gateway started, and all
since.

A run is in flight from ``run_started`` to ``run_finished``. A worker that dies writes no ``run_finished``: its runs are
ended by :meth:`Projection.expire` once its Pod is gone, or after an hour without any event.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from pilothouse_api import names
from pilothouse_proto.agent.v1.agent_pb2 import Usage
from pilothouse_proto.events.v1 import events_pb2 as ev
from pilothouse_proto.fleet.v1 import fleet_pb2 as pb

KEEP = timedelta(hours=24)
MAX_SESSIONS = 2_000
MAX_TOTAL = 5_000
"""Sessions of all tenants together, about 4 KB each: with hundreds of tenants a bound per tenant bounds nothing."""
MAX_RUNS = 50
MAX_STEPS = 100
MAX_BREAKERS = 500
SILENT_RUN = timedelta(hours=1)
WORKER_GRACE = timedelta(seconds=5)
"""Between a Pod's end and the end of its runs: its last events may still be on their way."""

Kind = Literal["session", "breaker", "cost"]


class Key(NamedTuple):
    """One thing that can change: what, whose, and its id or name (empty for a cost)."""

    kind: Kind
    tenant: str
    name: str


@dataclass(slots=True)
class _SessionState:
    session: pb.Session
    runs: OrderedDict[str, pb.RunRecord] = field(default_factory=OrderedDict)


@dataclass(slots=True)
class _TenantState:
    sessions: OrderedDict[str, _SessionState] = field(default_factory=OrderedDict)
    breakers: dict[str, pb.Breaker] = field(default_factory=dict)
    cost: pb.TenantCost = field(default_factory=pb.TenantCost)


class Projection:
    """The whole picture; :meth:`apply` returns the keys of what changed."""

    def __init__(self) -> None:
        self._tenants: dict[str, _TenantState] = {}

    def apply(self, tenant: str, event: ev.RunEvent) -> list[Key]:
        """Fold one event of the tenant's stream. Raises ValueError for one that claims to be another tenant's."""
        if event.tenant != tenant:
            raise ValueError(f"an event in the stream of {tenant} claims to be of {event.tenant!r}")
        kind = event.WhichOneof("event")
        state = self._tenants.setdefault(tenant, _TenantState(cost=pb.TenantCost(tenant=tenant)))
        if kind == "breaker_changed":
            return self._breaker(state, event)
        if kind is None or not event.session_id:
            return []
        return self._run(state, kind, event)

    def _breaker(self, state: _TenantState, event: ev.RunEvent) -> list[Key]:
        change = event.breaker_changed
        if change.name not in state.breakers and len(state.breakers) >= MAX_BREAKERS:
            state.breakers.pop(next(iter(state.breakers)))
        known = state.breakers.get(change.name)
        since = known.since if known is not None and known.state == change.state else event.time
        state.breakers[change.name] = pb.Breaker(
            tenant=event.tenant,
            name=change.name,
            state=change.state,
            failure_rate_percent=change.failure_rate_percent,
            reason=change.reason,
            since=since,
        )
        return [Key("breaker", event.tenant, change.name)]

    def _run(self, state: _TenantState, kind: str, event: ev.RunEvent) -> list[Key]:
        held = state.sessions.get(event.session_id)
        if held is None:
            held = _SessionState(
                pb.Session(tenant=event.tenant, session_id=event.session_id, user=event.user, started=event.time)
            )
            state.sessions[event.session_id] = held
            self._make_room(state)
        state.sessions.move_to_end(event.session_id)
        session, changed = held.session, [Key("session", event.tenant, event.session_id)]
        session.last_event.CopyFrom(event.time)
        session.user = event.user or session.user
        session.revision = event.revision or session.revision
        session.worker = event.worker or session.worker
        run = held.runs.get(event.run_id)
        if run is None:
            run = self._begin(held, event)
            state.cost.runs += 1
            changed.append(Key("cost", event.tenant, ""))
        if kind == "run_started":
            run.text = event.run_started.text
            session.last_text = event.run_started.text
        elif kind == "step_started":
            self._step_started(session, run, event)
        elif kind == "step_finished":
            self._step_finished(session, run, event)
        elif kind == "model_called":
            self._spend(state, session, run, _add(run.usage, event.model_called.usage))
            changed.append(Key("cost", event.tenant, ""))
        elif kind == "run_finished":
            done = event.run_finished
            # The summary corrects the running sum, and never lowers it: a crash can lose the summary, not the spending.
            self._spend(state, session, run, _highest(run.usage, done.usage))
            run.duration_ms = done.duration_ms
            _end(held, run, done.outcome, done.error)
            changed.append(Key("cost", event.tenant, ""))
        return changed

    def _make_room(self, state: _TenantState) -> None:
        if len(state.sessions) > MAX_SESSIONS:
            state.sessions.popitem(last=False)
        if sum(len(t.sessions) for t in self._tenants.values()) > MAX_TOTAL:
            max(self._tenants.values(), key=lambda t: len(t.sessions)).sessions.popitem(last=False)

    def _begin(self, held: _SessionState, event: ev.RunEvent) -> pb.RunRecord:
        for older in held.runs.values():
            if older.running:  # one run at a time: a newer one proves that the older has ended unheard
                _end(held, older, ev.RUN_OUTCOME_FAILED, "The worker ended without telling how the run went.")
        run = pb.RunRecord(run_id=event.run_id, started=event.time, running=True)
        held.runs[event.run_id] = run
        held.session.runs += 1
        held.session.active = True
        if len(held.runs) > MAX_RUNS:
            held.runs.popitem(last=False)
        return run

    def _step_started(self, session: pb.Session, run: pb.RunRecord, event: ev.RunEvent) -> None:
        step = event.step_started
        session.current_step = step.summary or step.tool
        if len(run.steps) < MAX_STEPS:
            run.steps.add(
                run_id=run.run_id,
                step_id=step.step_id,
                tool=step.tool,
                summary=step.summary,
                running=True,
                started=event.time,
            )

    def _step_finished(self, session: pb.Session, run: pb.RunRecord, event: ev.RunEvent) -> None:
        done = event.step_finished
        for step in run.steps:
            if step.step_id == done.step_id:
                step.running = False
                step.outcome = done.outcome
                step.summary = done.summary or step.summary
                step.duration_ms = done.duration_ms
        still = [s.summary or s.tool for s in run.steps if s.running]
        session.current_step = still[-1] if still else ""

    def _spend(self, state: _TenantState, session: pb.Session, run: pb.RunRecord, total: tuple[int, int, int]) -> None:
        """Set the run's usage to ``total`` (tokens in, tokens out, micro-dollars) and add the rise to the sums."""
        rise_in, rise_out = total[0] - run.usage.input_tokens, total[1] - run.usage.output_tokens
        rise_cost = total[2] - run.usage.cost_micros
        run.usage.input_tokens, run.usage.output_tokens, run.usage.cost_micros = total
        session.cost_micros += rise_cost
        state.cost.cost_micros += rise_cost
        state.cost.input_tokens += rise_in
        state.cost.output_tokens += rise_out

    def expire(self, now: datetime, live_workers: Collection[tuple[str, str]] | None) -> list[Key]:
        """Forget old sessions and end the runs of workers that are gone; returns the sessions that changed.

        ``live_workers``: (tenant, Pod name) of every trusted worker; None while that is not known.
        """
        changed: list[Key] = []
        for tenant, state in self._tenants.items():
            while state.sessions:
                oldest = next(iter(state.sessions.values())).session
                if now - oldest.last_event.ToDatetime(now.tzinfo) <= KEEP:
                    break
                state.sessions.popitem(last=False)
            for session_id, held in state.sessions.items():
                if held.session.active and self._is_over(held.session, now, live_workers):
                    for run in held.runs.values():
                        if run.running:
                            _end(held, run, ev.RUN_OUTCOME_FAILED, "The worker went away in mid-run.")
                    held.session.active = False
                    changed.append(Key("session", tenant, session_id))
        return changed

    def _is_over(self, session: pb.Session, now: datetime, live: Collection[tuple[str, str]] | None) -> bool:
        silent = now - session.last_event.ToDatetime(now.tzinfo)
        if silent > SILENT_RUN:
            return True
        is_pod = session.worker.startswith(names.worker_name(session.tenant) + "-")
        return live is not None and is_pod and (session.tenant, session.worker) not in live and silent > WORKER_GRACE

    def forget(self, tenant: str) -> None:
        """A Tenant was deleted: nothing of it is shown any more."""
        self._tenants.pop(tenant, None)

    def tenants(self) -> list[str]:
        """Tenants with any event."""
        return list(self._tenants)

    def keys(self, tenant: str) -> Iterator[Key]:
        """Everything of one tenant, the sessions newest first."""
        state = self._tenants.get(tenant)
        if state is None:
            return
        yield Key("cost", tenant, "")
        for name in state.breakers:
            yield Key("breaker", tenant, name)
        for session_id in reversed(state.sessions):
            yield Key("session", tenant, session_id)

    def change(self, key: Key) -> pb.WatchResponse | None:
        """The newest state of what ``key`` names; None where it was forgotten meanwhile."""
        state = self._tenants.get(key.tenant)
        if state is None:
            return None
        if key.kind == "cost":
            return pb.WatchResponse(cost=state.cost)
        if key.kind == "breaker":
            breaker = state.breakers.get(key.name)
            return None if breaker is None else pb.WatchResponse(breaker=breaker)
        held = state.sessions.get(key.name)
        return None if held is None else pb.WatchResponse(session=held.session)

    def session(self, tenant: str, session_id: str) -> pb.WatchSessionResponse | None:
        """One session with its runs, oldest first; None for an unknown one."""
        state = self._tenants.get(tenant)
        held = state.sessions.get(session_id) if state is not None else None
        if held is None:
            return None
        return pb.WatchSessionResponse(session=held.session, runs=list(held.runs.values()))


def _end(held: _SessionState, run: pb.RunRecord, outcome: ev.RunOutcome.ValueType, error: str) -> None:
    run.running = False
    run.outcome = outcome
    run.error = error
    for step in run.steps:
        if step.running:
            step.running = False
    held.session.last_outcome = outcome
    held.session.current_step = ""
    held.session.active = any(r.running for r in held.runs.values())


def _add(have: Usage, more: Usage) -> tuple[int, int, int]:
    return (
        have.input_tokens + more.input_tokens,
        have.output_tokens + more.output_tokens,
        have.cost_micros + more.cost_micros,
    )


def _highest(have: Usage, summed: Usage) -> tuple[int, int, int]:
    return (
        max(have.input_tokens, summed.input_tokens),
        max(have.output_tokens, summed.output_tokens),
        max(have.cost_micros, summed.cost_micros),
    )
