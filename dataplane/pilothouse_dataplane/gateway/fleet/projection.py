"""Run events folded into what an SRE sees: sessions with runs and steps, approvals, breakers, costs. Pure; time is an
argument.

Bounds: a session is kept for 24 h after its last event; a tenant has at most 2,000 of them (the longest silent goes
first) and all tenants together 5,000 (the tenant with the most gives one up); a session has at most 50 runs, a run 100
steps and 50 model calls. Costs are in micro-dollars; a tenant's are those of the day (UTC), see ``costs.py``.

A run is in flight from ``run_started`` to ``run_finished``. While it is parked no worker holds it: its session is not
active, and it outlives workers, silence and later runs. A worker that dies writes no ``run_finished``: its runs are
given up by :meth:`Projection.expire` once its Pod is gone, or after an hour without any event. Another worker may take
such a run over: its next event takes the giving up back.

Every worker tells of the breakers, so a state may come late: one whose time lies before the known state's is dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Literal, NamedTuple

from pilothouse_api import names
from pilothouse_dataplane.gateway.fleet.costs import DayCosts
from pilothouse_proto.agent.v1.agent_pb2 import STEP_OUTCOME_UNSPECIFIED, CostSum, PendingApproval, Usage
from pilothouse_proto.events.v1 import events_pb2 as ev
from pilothouse_proto.fleet.v1 import fleet_pb2 as pb

KEEP = timedelta(hours=24)
MAX_SESSIONS = 2_000
MAX_TOTAL = 5_000
"""Sessions of all tenants together, about 4 KB each: with hundreds of tenants a bound per tenant bounds nothing."""
MAX_RUNS = 50
MAX_STEPS = 100
MAX_CALLS = 50
"""Model calls a run, the newest."""
MAX_BREAKERS = 500
MAX_APPROVALS = 1_000
"""Waiting approvals a tenant, the oldest go first; with long arguments one has about 10 KB."""
MAX_ARGUMENTS = 16_384
"""Characters of an approval's arguments that are kept to be shown."""
STALE = timedelta(seconds=10)
"""A breaker's state that is older than the known one by less than this came late; by more: a clock is wrong."""
SILENT_RUN = timedelta(hours=1)
LAPSE_GRACE = timedelta(minutes=1)
"""Between an approval's expiry and the moment at which it is shown no more, told or not."""
WORKER_GRACE = timedelta(seconds=5)
"""Between a Pod's end and the end of its runs: its last events may still be on their way."""

Kind = Literal["session", "breaker", "cost", "approval"]


class Key(NamedTuple):
    """One thing that can change: what, whose, and its id or name (empty for a cost)."""

    kind: Kind
    tenant: str
    name: str


@dataclass(slots=True)
class _SessionState:
    session: pb.Session
    runs: OrderedDict[str, pb.RunRecord] = field(default_factory=OrderedDict)
    parked: set[str] = field(default_factory=set)
    given_up: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _TenantState:
    sessions: OrderedDict[str, _SessionState] = field(default_factory=OrderedDict)
    breakers: dict[str, pb.Breaker] = field(default_factory=dict)
    breaker_times: dict[str, datetime] = field(default_factory=dict)
    approvals: OrderedDict[str, PendingApproval] = field(default_factory=OrderedDict)
    costs: DayCosts = field(default_factory=DayCosts)


class Projection:
    """The whole picture; :meth:`apply` returns the keys of what changed."""

    def __init__(self) -> None:
        self._tenants: dict[str, _TenantState] = {}

    def apply(self, tenant: str, event: ev.RunEvent) -> list[Key]:
        """Fold one event of the tenant's stream. Raises ValueError for one that claims to be another tenant's."""
        if event.tenant != tenant:
            raise ValueError(f"an event in the stream of {tenant} claims to be of {event.tenant!r}")
        kind = event.WhichOneof("event")
        state = self._tenants.setdefault(tenant, _TenantState())
        if kind == "breaker_changed":
            return self._breaker(state, event)
        if kind is None or not event.session_id:
            return []
        return self._run(state, kind, event)

    def _breaker(self, state: _TenantState, event: ev.RunEvent) -> list[Key]:
        change, at = event.breaker_changed, event.time.ToDatetime(UTC)
        before = state.breaker_times.get(change.name)
        if before is not None and timedelta() < before - at < STALE:
            return []
        if change.name not in state.breakers and len(state.breakers) >= MAX_BREAKERS:
            oldest = next(iter(state.breakers))
            del state.breakers[oldest], state.breaker_times[oldest]
        state.breaker_times[change.name] = at
        known = state.breakers.get(change.name)
        since = known.since if known is not None and known.state == change.state else event.time
        state.breakers[change.name] = pb.Breaker(
            tenant=event.tenant,
            name=change.name,
            state=change.state,
            failure_rate_percent=change.failure_rate_percent,
            slow_rate_percent=change.slow_rate_percent,
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
        elif event.run_id in held.given_up and kind != "run_finished":
            held.given_up.discard(event.run_id)
            run.running, run.outcome, run.error = True, ev.RUN_OUTCOME_UNSPECIFIED, ""
        if kind == "run_started":
            run.text = event.run_started.text
            session.last_text = event.run_started.text
        elif kind == "step_started":
            self._step_started(session, run, event)
        elif kind == "step_finished":
            self._step_finished(session, run, event)
        elif kind == "model_called":
            called = event.model_called
            if state.costs.heard(event.run_id, event.time.ToDatetime(UTC), called):
                changed.append(Key("cost", event.tenant, ""))
            # An event may come twice; what is told of a run is summed once.
            if not called.id or all(known.id != called.id for known in run.model_calls):
                _spend(session, run, _add(run.usage, called.usage))
                run.model_calls.append(called)
                if len(run.model_calls) > MAX_CALLS:
                    del run.model_calls[0]
        elif kind == "run_finished":
            done = event.run_finished
            # The summary corrects the running sum, and never lowers it: a crash can lose the summary, not the spending.
            _spend(session, run, _highest(run.usage, done.usage))
            run.duration_ms = done.duration_ms
            run.time.CopyFrom(done.time)
            held.given_up.discard(run.run_id)
            _end(held, run, done.outcome, done.error)
            asked = [name for name, waiting in state.approvals.items() if waiting.run_id == run.run_id]
            changed += [self._gone(state, event.tenant, name) for name in asked]
        elif kind == "approval_required":
            changed += self._ask(state, event)
        elif kind == "approval_decided":
            changed.append(self._gone(state, event.tenant, event.approval_decided.approval_id))
        elif kind == "run_parked":
            held.parked.add(run.run_id)
            session.current_step = ""
        elif kind == "run_resumed":
            held.parked.discard(run.run_id)
        _activity(held)
        return changed

    def _ask(self, state: _TenantState, event: ev.RunEvent) -> list[Key]:
        asked = event.approval_required
        known = state.approvals.get(asked.approval_id)  # a worker that takes a run over asks again
        state.approvals[asked.approval_id] = waiting = PendingApproval(
            tenant=event.tenant,
            session_id=event.session_id,
            run_id=event.run_id,
            user=event.user,
            created=event.time if known is None else known.created,
            request=asked,
        )
        waiting.request.arguments_json = asked.arguments_json[:MAX_ARGUMENTS]
        _count(state, event.session_id)
        changed = [Key("approval", event.tenant, asked.approval_id)]
        if len(state.approvals) > MAX_APPROVALS:
            changed.append(self._gone(state, event.tenant, next(iter(state.approvals))))
        return changed

    def _gone(self, state: _TenantState, tenant: str, approval_id: str) -> Key:
        waiting = state.approvals.pop(approval_id, None)
        if waiting is not None:
            _count(state, waiting.session_id)
        return Key("approval", tenant, approval_id)

    def _make_room(self, state: _TenantState) -> None:
        if len(state.sessions) > MAX_SESSIONS:
            state.sessions.popitem(last=False)
        if sum(len(t.sessions) for t in self._tenants.values()) > MAX_TOTAL:
            max(self._tenants.values(), key=lambda t: len(t.sessions)).sessions.popitem(last=False)

    def _begin(self, held: _SessionState, event: ev.RunEvent) -> pb.RunRecord:
        for older in held.runs.values():
            # One run at a time: a newer one proves that the older has ended unheard, or waits.
            if older.running and older.run_id not in held.parked:
                held.given_up.add(older.run_id)
                _end(held, older, ev.RUN_OUTCOME_FAILED, "The worker ended without telling how the run went.")
        run = pb.RunRecord(run_id=event.run_id, started=event.time, running=True)
        held.runs[event.run_id] = run
        held.session.runs += 1
        held.session.active = True
        if len(held.runs) > MAX_RUNS:
            forgotten, _ = held.runs.popitem(last=False)
            held.parked.discard(forgotten)
            held.given_up.discard(forgotten)
        return run

    def _step_started(self, session: pb.Session, run: pb.RunRecord, event: ev.RunEvent) -> None:
        step = event.step_started
        session.current_step = step.summary or step.tool
        for known in run.steps:
            if known.step_id == step.step_id:  # begun again, by the worker that took the run over
                known.running, known.outcome = True, STEP_OUTCOME_UNSPECIFIED
                known.started.CopyFrom(event.time)
                return
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

    def expire(self, now: datetime, live_workers: Collection[tuple[str, str]] | None) -> list[Key]:
        """Forget old sessions and lapsed approvals, give up the runs of workers that are gone; returns what changed.

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
                        if run.running and run.run_id not in held.parked:
                            held.given_up.add(run.run_id)
                            _end(held, run, ev.RUN_OUTCOME_FAILED, "The worker went away in mid-run.")
                    changed.append(Key("session", tenant, session_id))
            changed += self._lapse(tenant, state, now)
            if state.costs.begin(now.astimezone(UTC).date()):
                changed.append(Key("cost", tenant, ""))
        return changed

    def _lapse(self, tenant: str, state: _TenantState, now: datetime) -> list[Key]:
        """Approvals whose time is over by more than a grace: the worker that should have told of it did not."""
        changed: list[Key] = []
        for name, waiting in list(state.approvals.items()):
            expires = waiting.request.expires
            end = expires.ToDatetime(UTC) if expires.seconds else waiting.created.ToDatetime(UTC) + KEEP
            if now > end + LAPSE_GRACE:
                changed += self._gone(state, tenant, name), Key("session", tenant, waiting.session_id)
        return changed

    def _is_over(self, session: pb.Session, now: datetime, live: Collection[tuple[str, str]] | None) -> bool:
        silent = now - session.last_event.ToDatetime(now.tzinfo)
        if silent > SILENT_RUN:
            return True
        is_pod = session.worker.startswith(names.worker_name(session.tenant) + "-")
        return live is not None and is_pod and (session.tenant, session.worker) not in live and silent > WORKER_GRACE

    def reconcile(self, tenant: str, day: date, until: datetime, sums: Iterable[CostSum], asked: datetime) -> list[Key]:
        """Take what the ledger says of a tenant's calls up to ``until``; ``asked`` is when it was asked."""
        state = self._tenants.setdefault(tenant, _TenantState())
        state.costs.reconcile(day, until, sums, asked)
        return [Key("cost", tenant, "")]

    def unsettled(self) -> set[str]:
        """Tenants of whose model calls something was heard since the ledger was last asked."""
        return {tenant for tenant, state in self._tenants.items() if state.costs.dirty}

    def costs(self) -> Iterator[pb.TenantCost]:
        """Of every tenant, the day's."""
        for tenant, state in self._tenants.items():
            yield state.costs.message(tenant)

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
        for approval_id in state.approvals:
            yield Key("approval", tenant, approval_id)
        for session_id in reversed(state.sessions):
            yield Key("session", tenant, session_id)

    def change(self, key: Key) -> pb.WatchResponse | None:
        """The newest state of what ``key`` names; None where it was forgotten meanwhile."""
        state = self._tenants.get(key.tenant)
        if state is None:
            return None
        if key.kind == "cost":
            return pb.WatchResponse(cost=state.costs.message(key.tenant))
        if key.kind == "breaker":
            breaker = state.breakers.get(key.name)
            return None if breaker is None else pb.WatchResponse(breaker=breaker)
        if key.kind == "approval":
            waiting = state.approvals.get(key.name)
            if waiting is None:
                return pb.WatchResponse(approval_gone=pb.ApprovalGone(tenant=key.tenant, approval_id=key.name))
            return pb.WatchResponse(approval=waiting)
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
    held.parked.discard(run.run_id)
    for step in run.steps:
        if step.running:
            step.running = False
    held.session.last_outcome = outcome
    held.session.current_step = ""
    _activity(held)


def _activity(held: _SessionState) -> None:
    held.session.active = any(r.running and r.run_id not in held.parked for r in held.runs.values())


def _count(state: _TenantState, session_id: str) -> None:
    held = state.sessions.get(session_id)
    if held is not None:
        held.session.waiting_approvals = sum(w.session_id == session_id for w in state.approvals.values())


def _spend(session: pb.Session, run: pb.RunRecord, total: Usage) -> None:
    """Set the run's usage to ``total`` and add the rise to the session's cost."""
    session.cost_micros += total.cost_micros - run.usage.cost_micros
    run.usage.CopyFrom(total)


def _add(have: Usage, more: Usage) -> Usage:
    return Usage(
        input_tokens=have.input_tokens + more.input_tokens,
        output_tokens=have.output_tokens + more.output_tokens,
        cost_micros=have.cost_micros + more.cost_micros,
        cached_input_tokens=have.cached_input_tokens + more.cached_input_tokens,
    )


def _highest(have: Usage, summed: Usage) -> Usage:
    return Usage(
        input_tokens=max(have.input_tokens, summed.input_tokens),
        output_tokens=max(have.output_tokens, summed.output_tokens),
        cost_micros=max(have.cost_micros, summed.cost_micros),
        cached_input_tokens=max(have.cached_input_tokens, summed.cached_input_tokens),
    )
