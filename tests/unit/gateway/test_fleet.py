"""Projection (pure), fan-out, authorization, the event reader and the watches."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from pilothouse_api import names
from pilothouse_dataplane.gateway.discovery import Discovery
from pilothouse_dataplane.gateway.fleet.auth import Authorizer, Denied, Unauthenticated, Unavailable
from pilothouse_dataplane.gateway.fleet.consumer import Consumer
from pilothouse_dataplane.gateway.fleet.hub import MAX_PENDING, Hub, Subscription
from pilothouse_dataplane.gateway.fleet.projection import MAX_RUNS, MAX_SESSIONS, MAX_TOTAL, Key, Projection
from pilothouse_dataplane.gateway.kube import KubeClient, KubeConfig, KubeError, load_config
from pilothouse_dataplane.gateway.metrics import Metrics
from pilothouse_dataplane.gateway.workers import Directory, TenantRef
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_proto.events.v1 import events_pb2 as ev
from pilothouse_testing.gateway_fakes import FLEET_TOKEN, FakeKube, pod, tenant_object
from pilothouse_testing.servers import free_port, valkey

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
    p.apply("acme", event(2, model_called=ev.ModelCalled(usage=usage(30))))
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
    assert (cost.cost.cost_micros, cost.cost.input_tokens, cost.cost.runs) == (50, 50, 1)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 40), st.booleans()), max_size=60))
def test_costs_add_up_and_a_session_is_active_while_a_run_is(calls: list[tuple[int, int, int, bool]]) -> None:
    p = Projection()
    spent: dict[tuple[str, str], int] = {}
    for n, (session, run, cost, end) in enumerate(calls):
        key = (f"s{session}", f"s{session}-r{run}")
        if end:
            p.apply("acme", event(n, *key, **finished(cost)))
            spent[key] = max(spent.get(key, 0), cost)
        else:
            p.apply("acme", event(n, *key, model_called=ev.ModelCalled(usage=usage(cost))))
            spent[key] = spent.get(key, 0) + cost
    total = p.change(Key("cost", "acme", ""))
    assert (total.cost.cost_micros if total else 0) == sum(spent.values())
    for session_id in {s for s, _ in spent}:
        state = p.session("acme", session_id)
        assert state is not None
        assert state.session.active == any(r.running for r in state.runs)
        assert sum(r.running for r in state.runs) <= 1


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


async def test_the_reader_starts_at_the_beginning_and_survives_a_restart_of_the_store(tmp_path: Path) -> None:
    port, directory, projection = free_port(), Directory(), Projection()
    directory.table.put_tenant(TenantRef("acme", "acme", "u", ""))
    redis: Redis = Redis.from_url(f"redis://127.0.0.1:{port}/0", socket_timeout=5)
    ready = asyncio.Event()
    ready.set()
    reader = Consumer(redis, directory, projection, Hub(), Metrics())

    async def add(**kind: Any) -> None:
        await redis.xadd(names.events_key("acme"), {"e": event(**kind).SerializeToString()})

    async def seen(session: str) -> None:
        async with asyncio.timeout(10):
            while projection.session("acme", session) is None:  # noqa: ASYNC110 - no event, by design
                await asyncio.sleep(0.02)

    with valkey(tmp_path, port):
        await add(session="old", **started())
        await redis.xadd(names.events_key("acme"), {"e": b"\xff\xff broken"})
        await redis.xadd(names.events_key("acme"), {"x": b"no event"})
        await add(session="old2", **started())
        task = asyncio.create_task(reader.run(ready))
        await seen("old2")
        await asyncio.sleep(0.1)
        assert reader.synced
    with valkey(tmp_path, port):
        await add(session="after", **started())
        await seen("after")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await redis.aclose()


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
