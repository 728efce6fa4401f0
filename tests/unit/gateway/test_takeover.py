"""A run outlives its workers: who goes on, how fast, how often, and what is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from pilothouse_proto.agent.v1 import agent_pb2 as pb

Make = Callable[..., Any]
ANA = pb.User(subject="ana", email="ana@acme.example")


@pytest.mark.parametrize("text", ["die", "hand over", "end", "hang"])
async def test_another_worker_goes_on_and_the_client_reads_one_stream(bench: Make, text: str) -> None:
    here = bench(worker_silence=0.6)
    first = await here.worker("w1")
    assert (await here.ask("hi").end())["type"] == "final"
    second = await here.worker("w2")
    asked = here.ask(text)
    await asked.until("accepted" if text == "hang" else "step_started")
    began = time.monotonic()
    await asked.until("resumed")
    assert time.monotonic() - began < 4  # it waits for no lease, and not until the dead one may be tried again
    assert (await asked.end())["text"] == f"You said {text}"
    sequence = [event["sequence"] for event in asked.events]
    assert sequence == list(range(1, len(sequence) + 1))
    assert "w1 was lost" in next(e["reason"] for e in asked.events if e["type"] == "resumed")
    (again,) = second.asks
    lost = first.asks[-1]
    assert (again.run_id, again.attempt, again.lost_worker, again.text) == (lost.run_id, 2, "w1", text)
    assert (lost.attempt, lost.lost_worker) == (1, "")
    assert (await here.ask("hi").end())["type"] == "final"
    assert len(second.asks) == 2  # the session stays where it went


async def test_the_only_worker_is_used_as_soon_as_it_answers_again(bench: Make) -> None:
    here = bench(takeover_wait=10.0)
    agent = await here.worker("w1")
    asked = here.ask("die")
    await asked.until("step_started")
    await asyncio.sleep(0.3)
    here.show("w1", agent.port, ready=False)  # the cluster has noticed, and will not notice its return before we do
    await asyncio.sleep(0.7)
    assert asked.kinds()[-1] == "step_started"
    await agent.start(port=agent.port)
    back = time.monotonic()
    await asked.until("resumed")
    assert time.monotonic() - back < 4
    assert (await asked.end())["type"] == "final"
    assert (await here.ask("hi").end())["type"] == "final"


async def test_a_draining_worker_that_still_listens_gets_nothing(bench: Make) -> None:
    here = bench(takeover_wait=0.8)
    agent = await here.worker("w1")
    last = await here.ask("hand over").end()
    assert last["code"] == "ERROR_CODE_WORKER_LOST"
    assert "Create an issue" in last["user_action"]
    assert len(agent.asks) == 1


async def test_a_pod_that_is_leaving_or_of_another_tenant_gets_no_run(bench: Make) -> None:
    here = bench(takeover_wait=0.6)
    await here.worker("w1")
    asked = here.ask("die")
    await asked.until("accepted")
    stranger = await here.worker("w2")
    table = here.directory.table
    worker = next(w for w in table.known() if w.name == "w2")
    table.put_worker(("acme", "w2"), type(worker)("globex", "acme", "w2", "u2", "127.0.0.1", "r1", True, worker.port))
    table.put_worker(
        ("acme", "w3"), type(worker)("acme", "acme", "w3", "u3", "127.0.0.1", "r1", False, worker.port, leaving=True)
    )
    here.directory.announce()
    assert (await asked.end())["code"] == "ERROR_CODE_WORKER_LOST"
    assert stranger.asks == []


async def test_a_run_that_kills_its_workers_ends_after_four_takeovers(bench: Make) -> None:
    here = bench(takeover_wait=10.0)
    agents = [await here.worker(f"w{n}") for n in range(3)]
    last = await here.ask("poison").end(10)
    assert (last["code"], last["retryable"]) == ("ERROR_CODE_WORKER_LOST", True)
    assert sorted(ask.attempt for agent in agents for ask in agent.asks) == [1, 2, 3, 4, 5]
    assert max(len(agent.asks) for agent in agents) <= 3


async def test_a_stop_reaches_the_worker_that_takes_over(bench: Make) -> None:
    here = bench()
    await here.worker("w1")
    asked = here.ask("wait and die")
    await asked.until("accepted")
    second = await here.worker("w2")
    await asked.run.stop("stopped by the user")
    last = await asked.end()
    assert (last["type"], last["partial"]) == ("final", True)
    assert second.stops == ["stopped by the user"]


async def test_a_stop_ends_the_wait_for_a_worker(bench: Make) -> None:
    here = bench(no_worker_wait=10.0, takeover_wait=10.0, stop_grace=0.3)
    asked = here.ask("hi")
    await asyncio.sleep(0.1)
    await asked.run.stop("stopped by the user")
    assert (await asked.end(1))["partial"] is True  # nobody had begun
    agent = await here.worker("w1")
    asked = here.ask("die")
    await asked.until("step_started")
    await asyncio.sleep(0.2)
    await asked.run.stop("stopped by the user")
    assert (await asked.end(1))["code"] == "ERROR_CODE_WORKER_LOST"
    assert agent.asks[0].run_id == "run2"


async def test_a_decision_that_the_lost_worker_may_not_have_noted_is_told_to_the_next(bench: Make) -> None:
    here = bench()
    first = await here.worker("w1")
    asked = here.ask("decide and die")
    await asked.until("approval_required")
    second = await here.worker("w2")
    assert await asked.run.decide("a1", approved=True, user=ANA)
    assert not await asked.run.decide("a1", approved=False, user=ANA)
    assert (await asked.end())["text"] == "approved"
    assert [d.approved for d in first.decisions] == [d.approved for d in second.decisions] == [True]
    assert second.decisions[0].decider.email == "ana@acme.example"
    assert asked.run.unconfirmed() == []


async def test_a_worker_without_room_is_asked_again_by_a_run_that_was_begun(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = bench()
    await here.worker("w1")
    asked = here.ask("die")
    await asked.until("step_started")
    second = await here.worker("w2")
    plain, refusals = second._run, iter(range(2))

    async def full(requests: Any, context: Any) -> Any:
        if next(refusals, None) is not None:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many runs")
        async for event in plain(requests, context):
            yield event

    monkeypatch.setattr(second, "_run", full)
    assert (await asked.end())["type"] == "final"
    assert (await here.ask("hi", "s2").end())["type"] == "final"


@pytest.mark.parametrize("code", [pb.ERROR_CODE_RATE_LIMITED, pb.ERROR_CODE_WORKER_LOST], ids=["full", "held"])
async def test_a_worker_that_cannot_have_the_run_does_not_end_it(bench: Make, code: pb.ErrorCode.ValueType) -> None:
    here = bench()
    await here.worker("w1")
    asked = here.ask("die")
    await asked.until("step_started")
    second, third = await here.worker("w2"), await here.worker("w3")
    second.refusals, third.refusals = [code], [code]
    assert (await asked.end())["type"] == "final"
    assert "error" not in asked.kinds()
    assert len(second.asks) + len(third.asks) >= 2
    first_try = here.ask("hi", "s9")
    second.refusals = third.refusals = [code]
    assert (await first_try.end())["code"] == pb.ErrorCode.Name(code)  # nothing was begun: the user is told at once


async def test_waiting_runs_ask_a_worker_for_its_health_one_at_a_time(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = bench(no_worker_wait=0.6)
    agent = await here.worker("w1", ready=False)
    agent.serving, checks, plain = False, 0, agent._check

    async def counted(request: object, context: object) -> Any:
        nonlocal checks
        checks += 1
        return await plain(request, context)

    monkeypatch.setattr(agent, "_check", counted)
    asked = [here.ask("hi", f"s{n}") for n in range(30)]
    for one in asked:
        assert (await one.end())["code"] == "ERROR_CODE_NO_WORKER"
    assert checks < 60  # not 30 times that
