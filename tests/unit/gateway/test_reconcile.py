"""The gateway's costs follow the ledger's, and all that it tells of them is one number."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import generate_latest

from pilothouse_dataplane.gateway.calls import WorkerCalls
from pilothouse_dataplane.gateway.fleet import reconcile
from pilothouse_dataplane.gateway.fleet.hub import Hub, Subscription
from pilothouse_dataplane.gateway.fleet.projection import Key, Projection
from pilothouse_dataplane.gateway.fleet.reconcile import Reconciler
from pilothouse_dataplane.gateway.metrics import Metrics, ModelCosts
from pilothouse_dataplane.gateway.problems import Problem
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_proto.events.v1 import events_pb2 as ev


def booked(cost: int) -> agent.CostSum:
    return agent.CostSum(tier="mid", provider="p", model="m", calls=3, cost_micros=cost, input_tokens=9, runs=2)


def event(at: datetime, cost: int) -> ev.RunEvent:
    usage = agent.Usage(input_tokens=1, output_tokens=1, cost_micros=cost)
    call = ev.ModelCalled(id="r9/1.1", tier="mid", provider="p", model="m", usage=usage)
    made = ev.RunEvent(tenant="acme", session_id="s", run_id="r9", model_called=call)
    made.time.FromDatetime(at)
    return made


def shown(projection: Projection) -> int:
    change = projection.change(Key("cost", "acme", ""))
    return change.cost.cost_micros if change is not None else 0


async def asked(worker: Any, times: int) -> None:
    for _ in range(500):
        if worker.reconciled >= times:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"the worker was asked {worker.reconciled} times")


async def test_the_ledger_s_sum_and_what_was_heard_since_are_one_number(bench: Any) -> None:
    here = bench()
    worker = await here.worker("w1")
    worker.costs = [booked(100)]
    projection, hub, metrics = Projection(), Hub(), Metrics()
    metrics.registry.register(ModelCosts(projection.costs))
    client = Subscription(None)
    hub.add(client)
    noon = datetime(2026, 11, 22, 12, tzinfo=UTC)
    projection.apply("acme", event(noon, 7))

    await Reconciler(WorkerCalls(here.dispatcher), here.directory, projection, hub).reconcile("acme", noon)

    assert shown(projection) == 107
    assert await client.take(1) == [Key("cost", "acme", "")]
    labels = '{model="m",provider="p",tenant="acme",tier="mid"}'
    told = generate_latest(metrics.registry).decode()
    assert f"pilothouse_model_cost_micros_total{labels} 107.0" in told
    assert f"pilothouse_model_calls_total{labels} 4.0" in told
    (cost,) = projection.costs()
    assert (cost.runs, cost.input_tokens, cost.day) == (2, 10, "2026-11-22")


async def test_every_tenant_is_asked_at_the_start_after_a_gap_and_without_a_worker_nothing_breaks(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "_LOOK", 0.02)
    here = bench()
    worker = await here.worker("w1")
    worker.costs = [booked(5)]
    projection = Projection()
    keeper = Reconciler(WorkerCalls(here.dispatcher), here.directory, projection, Hub())
    started = asyncio.Event()
    started.set()
    task = asyncio.create_task(keeper.run(started))
    try:
        await asked(worker, 1)
        await asyncio.sleep(0.1)
        assert worker.reconciled == 1
        keeper.gap()
        await asked(worker, 2)
        await asyncio.sleep(0.05)
        assert shown(projection) == 5
        await worker.stop()
        keeper.gap()
        await asyncio.sleep(0.5)
        assert not task.done()
        assert shown(projection) == 5
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_without_a_worker_it_says_so(bench: Any) -> None:
    here = bench()
    keeper = Reconciler(WorkerCalls(here.dispatcher), here.directory, Projection(), Hub())
    with pytest.raises(Problem):
        await keeper.reconcile("acme", datetime.now(UTC) + timedelta(0))
