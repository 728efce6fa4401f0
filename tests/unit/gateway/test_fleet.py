"""Projection (pure), fan-out, authorization and the watches."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse_dataplane.gateway.discovery import Discovery
from pilothouse_dataplane.gateway.fleet.auth import Authorizer, Denied, Unauthenticated, Unavailable
from pilothouse_dataplane.gateway.fleet.hub import MAX_PENDING, Hub, Subscription
from pilothouse_dataplane.gateway.fleet.projection import (
    MAX_APPROVALS,
    MAX_RUNS,
    MAX_SESSIONS,
    MAX_TOTAL,
    Key,
    Projection,
)
from pilothouse_dataplane.gateway.kube import KubeClient, KubeConfig, KubeError, load_config
from pilothouse_dataplane.gateway.workers import Directory
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_proto.events.v1 import events_pb2 as ev
from pilothouse_testing.gateway_fakes import FLEET_TOKEN, FakeKube, pod, tenant_object

T0 = datetime(2026, 11, 22, 12, tzinfo=UTC)


def event(seconds: float = 0, session: str = "s1", run: str = "r1", tenant: str = "acme", **kind: Any) -> ev.RunEvent:
    made = ev.RunEvent(
        tenant=tenant, session_id=session, run_id=run, user="ana@x", worker="acme-worker-1", revision="v1", **kind
    )
    made.time.FromDatetime(T0 + timedelta(seconds=seconds))
    return made


def usage(cost: int) -> agent.Usage:
    return agent.Usage(input_tokens=cost, output_tokens=2 * cost, cost_micros=cost)


def started(text: str = "hi") -> dict[str, Any]:
    return {"run_started": ev.RunStarted(text=text)}


def finished(cost: int = 0) -> dict[str, Any]:
    return {"run_finished": ev.RunFinished(outcome=ev.RUN_OUTCOME_ANSWERED, usage=usage(cost), duration_ms=7)}


def test_a_run_from_start_to_end() -> None:
    p = Projection()
    p.apply("acme", event(0, **started("what is up")))
    p.apply("acme", event(1, step_started=agent.StepStarted(step_id="a", tool="jira.x", summary="Look")))
    state = p.session("acme", "s1")
    assert state is not None
    assert (state.session.active, state.session.current_step, state.session.last_text) == (True, "Look", "what is up")
    assert state.runs[0].steps[0].running
    call = ev.ModelCalled(id="r1/1.1", tier="mid", provider="p", model="m", usage=usage(30))
    p.apply("acme", event(2, model_called=call))
    p.apply("acme", event(2, model_called=call))  # a batch that was sent again
    done = agent.StepFinished(step_id="a", outcome=agent.STEP_OUTCOME_SUCCEEDED, summary="Looked", duration_ms=4)
    p.apply("acme", event(3, step_finished=done))
    p.apply("acme", event(4, **finished(50)))
    state = p.session("acme", "s1")
    assert state is not None
    assert (state.session.active, state.session.current_step, state.session.cost_micros) == (False, "", 50)
    assert state.session.last_outcome == ev.RUN_OUTCOME_ANSWERED
    assert (state.runs[0].steps[0].outcome, state.runs[0].duration_ms) == (agent.STEP_OUTCOME_SUCCEEDED, 7)
    cost = p.change(Key("cost", "acme", ""))
    assert cost is not None
    assert (cost.cost.cost_micros, cost.cost.input_tokens, cost.cost.runs) == (30, 30, 1)
    assert [(one.tier, one.calls) for one in cost.cost.sums] == [("mid", 1)]
    assert [known.id for known in state.runs[0].model_calls] == ["r1/1.1"]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 40), st.booleans()), max_size=60))
def test_costs_add_up_and_a_session_is_active_while_a_run_is(calls: list[tuple[int, int, int, bool]]) -> None:
    p = Projection()
    spent: dict[tuple[str, str], int] = {}
    called = 0
    for n, (session, run, cost, end) in enumerate(calls):
        key = (f"s{session}", f"s{session}-r{run}")
        if end:
            p.apply("acme", event(n, *key, **finished(cost)))
            spent[key] = max(spent.get(key, 0), cost)
        else:
            p.apply("acme", event(n, *key, model_called=ev.ModelCalled(usage=usage(cost))))
            spent[key] = spent.get(key, 0) + cost
            called += cost
    total = p.change(Key("cost", "acme", ""))
    assert (total.cost.cost_micros if total else 0) == called  # a run's summary may tell more: it is no call
    states = [p.session("acme", session_id) for session_id in {s for s, _ in spent}]
    assert sum(state.session.cost_micros for state in states if state is not None) == sum(spent.values())
    for session_id in {s for s, _ in spent}:
        state = p.session("acme", session_id)
        assert state is not None
        assert state.session.active == any(r.running for r in state.runs)


def test_memory_is_bounded() -> None:
    p = Projection()
    for n in range(MAX_SESSIONS + 10):
        p.apply("acme", event(n, f"s{n}", **started()))
    for n in range(MAX_RUNS + 10):
        p.apply("acme", event(n + 5_000, "s100", f"r{n}", **started()))
    assert sum(k.kind == "session" for k in p.keys("acme")) == MAX_SESSIONS
    assert p.session("acme", "s0") is None
    state = p.session("acme", "s100")
    assert state is not None
    assert (len(state.runs), state.session.runs) == (MAX_RUNS, MAX_RUNS + 10)
    p.expire(T0 + timedelta(days=2), set())
    assert [k.kind for k in p.keys("acme")] == ["cost"]


def test_all_tenants_together_are_bounded_and_the_largest_gives_way() -> None:
    p = Projection()
    p.apply("small", event(0, "only", tenant="small", **started()))
    for tenant in ("a", "b", "c"):
        for n in range(MAX_SESSIONS):
            p.apply(tenant, event(n, f"s{n}", tenant=tenant, **started()))
    assert sum(k.kind == "session" for t in p.tenants() for k in p.keys(t)) == MAX_TOTAL
    assert p.session("small", "only") is not None


def test_runs_of_a_dead_worker_end() -> None:
    p = Projection()
    p.apply("acme", event(0, **started()))
    assert p.expire(T0 + timedelta(seconds=10), {("acme", "acme-worker-1")}) == []
    assert p.expire(T0 + timedelta(seconds=10), None) == []
    assert p.expire(T0 + timedelta(seconds=10), {("globex", "acme-worker-1")}) == [Key("session", "acme", "s1")]
    state = p.session("acme", "s1")
    assert state is not None
    assert (state.session.active, state.runs[0].outcome) == (False, ev.RUN_OUTCOME_FAILED)


def test_breakers_and_foreign_events() -> None:
    p = Projection()
    change = ev.BreakerChanged(name="connector/jira", state=ev.BREAKER_STATE_OPEN, failure_rate_percent=60)
    assert p.apply("acme", event(5, "", breaker_changed=change)) == [Key("breaker", "acme", "connector/jira")]
    p.apply("acme", event(9, "", breaker_changed=change))
    breaker = p.change(Key("breaker", "acme", "connector/jira"))
    assert breaker is not None
    assert breaker.breaker.since.ToDatetime(UTC) == T0 + timedelta(seconds=5)
    with pytest.raises(ValueError, match="globex"):
        p.apply("acme", event(tenant="globex", **started()))


def test_each_worker_tells_of_a_breaker_and_the_newest_state_is_shown() -> None:
    p = Projection()

    def tell(seconds: float, state: ev.BreakerState.ValueType, slow: float = 0) -> list[Key]:
        change = ev.BreakerChanged(name="connector/jira", state=state, slow_rate_percent=slow)
        return p.apply("acme", event(seconds, "", breaker_changed=change))

    def shown() -> tuple[int, float, datetime]:
        change = p.change(Key("breaker", "acme", "connector/jira"))
        assert change is not None
        breaker = change.breaker
        return breaker.state, breaker.slow_rate_percent, breaker.since.ToDatetime(UTC)

    tell(1, ev.BREAKER_STATE_OPEN, 40)
    tell(31, ev.BREAKER_STATE_HALF_OPEN, 50)
    assert tell(30.5, ev.BREAKER_STATE_OPEN) == []  # another worker's, late
    tell(31.2, ev.BREAKER_STATE_HALF_OPEN, 60)
    assert shown() == (ev.BREAKER_STATE_HALF_OPEN, 60, T0 + timedelta(seconds=31))
    tell(5_000, ev.BREAKER_STATE_DISABLED)  # a clock that is an hour fast must not freeze what is shown
    tell(40, ev.BREAKER_STATE_FORCED_OPEN)
    assert shown()[0] == ev.BREAKER_STATE_FORCED_OPEN


def waits(approval_id: str, seconds: float = 3600) -> dict[str, Any]:
    asked = agent.ApprovalRequired(approval_id=approval_id, tool="jira.issue.create", summary="Create?")
    asked.expires.FromDatetime(T0 + timedelta(seconds=seconds))
    return {"approval_required": asked}


def test_an_approval_waits_until_it_is_decided_lapses_or_its_run_ends() -> None:
    p = Projection()
    p.apply("acme", event(0, **started()))
    assert Key("approval", "acme", "a1") in p.apply("acme", event(1, **waits("a1")))
    p.apply("acme", event(1, **waits("a2", seconds=100)))
    p.apply("acme", event(2, run_parked=ev.RunParked(approval_ids=["a1", "a2"])))
    p.apply("acme", event(2, **waits("a1")))  # a worker that took the run over asks again

    def session() -> Any:
        state = p.session("acme", "s1")
        assert state is not None
        return state

    assert (session().session.waiting_approvals, session().session.active) == (2, False)
    assert session().runs[0].running
    assert [k.name for k in p.keys("acme") if k.kind == "approval"] == ["a1", "a2"]
    waiting = p.change(Key("approval", "acme", "a1"))
    assert waiting is not None
    assert (waiting.approval.run_id, waiting.approval.user) == ("r1", "ana@x")
    assert waiting.approval.created.ToDatetime(UTC) == T0 + timedelta(seconds=1)
    # No worker holds a parked run: neither a worker's end, nor silence, nor another question ends it.
    p.apply("acme", event(3, run="r2", **started()))
    p.apply("acme", event(4, run="r2", **finished()))
    changed = p.expire(T0 + timedelta(seconds=1_000), set())
    assert Key("approval", "acme", "a2") in changed
    gone = p.change(Key("approval", "acme", "a2"))
    assert gone is not None
    assert gone.approval_gone.approval_id == "a2"
    assert (session().session.waiting_approvals, session().runs[0].running) == (1, True)
    p.apply("acme", event(1_001, approval_decided=agent.ApprovalDecided(approval_id="a1", approved=True)))
    p.apply("acme", event(1_002, run_resumed=ev.RunResumed(reason="decided")))
    assert (session().session.waiting_approvals, session().session.active) == (0, True)
    p.apply("acme", event(1_003, **waits("a3")))
    spent = ev.RunFinished(outcome=ev.RUN_OUTCOME_ANSWERED, time=agent.TimeSplit(model_ms=5, approval_ms=9))
    assert Key("approval", "acme", "a3") in p.apply("acme", event(1_004, run_finished=spent))
    assert (session().session.waiting_approvals, session().session.active) == (0, False)
    assert (session().runs[0].time.model_ms, session().runs[0].time.approval_ms) == (5, 9)


def test_a_run_that_was_given_up_comes_back_with_the_worker_that_takes_it_over() -> None:
    p = Projection()
    p.apply("acme", event(0, **started()))
    begun = agent.StepStarted(step_id="s1", tool="jira.x", summary="Look")
    p.apply("acme", event(1, step_started=begun))
    p.expire(T0 + timedelta(seconds=10), set())
    taken = event(11, run_resumed=ev.RunResumed(reason="lost"))
    taken.worker = "acme-worker-2"
    p.apply("acme", taken)
    p.apply("acme", event(12, step_started=begun))
    state = p.session("acme", "s1")
    assert state is not None
    assert (state.session.active, state.runs[0].running, state.runs[0].error) == (True, True, "")
    assert [(s.step_id, s.running) for s in state.runs[0].steps] == [("s1", True)]
    assert state.session.runs == 1


def test_waiting_approvals_are_bounded() -> None:
    p = Projection()
    for n in range(MAX_APPROVALS + 1):
        p.apply("acme", event(0, f"s{n % 3}", **waits(f"a{n}")))
    assert sum(k.kind == "approval" for k in p.keys("acme")) == MAX_APPROVALS
    counts = [state.session.waiting_approvals for n in range(3) if (state := p.session("acme", f"s{n}"))]
    assert sum(counts) == MAX_APPROVALS


async def test_a_slow_client_gets_the_newest_state_once() -> None:
    hub, mine = Hub(), Subscription(frozenset({"acme"}))
    hub.add(mine)
    for _ in range(1_000):
        hub.publish([Key("session", "acme", "s1"), Key("session", "globex", "s2")])
    assert await mine.take(1) == [Key("session", "acme", "s1")]
    hub.publish(Key("session", "acme", str(n)) for n in range(MAX_PENDING + 1))
    assert mine.overflown


async def test_authorization() -> None:
    kube = FakeKube()
    url = await kube.start()
    tenants = {"acme": "acme", "globex": "globex"}
    async with KubeClient(KubeConfig(url, None)) as client:
        auth = Authorizer(client)
        assert await auth.visible(FLEET_TOKEN, "", tenants) is None
        reviews = kube.reviews
        assert await auth.visible(FLEET_TOKEN, "", tenants) is None
        assert kube.reviews == reviews  # cached
        kube.allowed = lambda user, namespace: namespace == "acme"
        auth = Authorizer(client)
        assert await auth.visible(FLEET_TOKEN, "", tenants) == {"acme"}
        assert await auth.visible(FLEET_TOKEN, "acme", tenants) == {"acme"}
        for asked in ("globex", "unknown"):
            with pytest.raises(Denied, match=r"get fleets\.pilothouse\.dev"):
                await auth.visible(FLEET_TOKEN, asked, tenants)
        for bad in (None, "", "stolen"):
            with pytest.raises(Unauthenticated, match="pilothouse-fleet"):
                await auth.visible(bad, "", tenants)
        await kube.stop()
        with pytest.raises(Unavailable):
            await Authorizer(client).visible(FLEET_TOKEN, "", tenants)


async def test_watches_follow_changes_and_list_again_after_410(tmp_path: Path) -> None:
    kube, directory = FakeKube(), Directory()
    kube.put("tenants", tenant_object("acme"))
    kube.put("pods", pod("acme", "w1", "10.0.0.1"))
    url = await kube.start()
    config = load_config({"KUBECONFIG": str(kube.kubeconfig(url, tmp_path / "config"))})
    async with KubeClient(config) as client, asyncio.timeout(10):
        discovery = Discovery(client, directory)
        task = asyncio.create_task(discovery.run())

        async def expect(*wanted: str) -> None:
            while sorted(w.name for w in directory.table.ready("acme")) != sorted(wanted):
                await directory.wait_change(0.05)

        await expect("w1")
        assert discovery.synced
        await asyncio.sleep(0.1)
        kube.put("pods", pod("acme", "w2", "10.0.0.2"))
        await expect("w1", "w2")
        kube.put("pods", pod("acme", "w1", "10.0.0.1", ready=False))
        await expect("w2")
        lists = kube.lists
        kube.cut_watches()
        while kube.lists < lists + 2:  # noqa: ASYNC110 - a fake has no event
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        kube.delete("pods", "acme", "w2")
        await expect()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await kube.stop()
    with pytest.raises(KubeError, match="KUBECONFIG"):
        load_config({})
