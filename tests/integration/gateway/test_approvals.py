"""Parked runs through the WebSocket: who decides, from where, and who reads the rest of the run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from pilothouse_proto.agent.v1 import agent_pb2 as pb
from pilothouse_testing.gateway_fakes import Chat, token

Start = Callable[..., Awaitable[Any]]


async def test_the_user_asks_on_while_a_run_waits_and_then_approves_it(start: Start) -> None:
    gateway = await start()
    agent = await gateway.add_worker("w1")
    async with Chat.open(gateway.base) as chat:
        session = (await chat.hello())["session_id"]
        parked = await chat.ask("park")
        assert [e["type"] for e in parked] == ["accepted", "approval_required", "parked"]
        (approval_id,) = parked[-1]["approval_ids"]
        assert gateway.pool.in_flight() == {"uid-w1": 0}
        assert (await chat.ask("meanwhile"))[-1]["text"] == "You said meanwhile"
        await chat.send(type="decision", approval_id=approval_id, approved=True)
        assert await chat.next() == {
            "type": "decision_result",
            "approval_id": approval_id,
            "outcome": "DECIDE_OUTCOME_DECIDED",
            "message": "Noted.",
        }
        rest = await chat.until("final", "error")
        assert [e["type"] for e in rest] == ["resumed", "final"]
        assert {e["run_id"] for e in rest} == {parked[0]["run_id"]}
        assert [e["sequence"] for e in rest] == [4, 5]
        assert rest[-1]["text"] == "approved"
        await chat.send(type="decision", approval_id=approval_id, approved=False)
        assert (await chat.next())["outcome"] == "DECIDE_OUTCOME_ALREADY_DECIDED"
    (resume,) = agent.resumes
    assert (resume.tenant, resume.session_id, resume.run_id) == ("acme", session, parked[0]["run_id"])
    assert agent.stops == []


async def test_a_forged_approver_is_refused_and_the_manager_decides_from_her_own_conversation(start: Start) -> None:
    gateway = await start(no_worker_wait=0.5)
    agent = await gateway.add_worker("w1")
    boss = token(user="boss", manager="ceo@acme.example", groups=["it", "leads"])
    async with Chat.open(gateway.base) as chat, Chat.open(gateway.base) as hers, Chat.open(gateway.base) as other:
        await chat.hello()
        await hers.hello(boss)
        await other.hello(token("globex", "boss", email="boss@acme.example"))
        parked = await chat.ask("park for boss")
        (approval_id,) = parked[-1]["approval_ids"]
        await chat.send(type="decision", approval_id=approval_id, approved=True)
        refused = await chat.next()
        assert (refused["outcome"], refused["message"]) == (
            "DECIDE_OUTCOME_NOT_ALLOWED",
            "Only boss@acme.example may decide.",
        )
        await other.send(type="decision", approval_id=approval_id, approved=True)
        assert (await other.next())["code"] == "ERROR_CODE_NO_WORKER"  # her tenant has none, and gets no other's
        assert agent.resumes == []
        await hers.send(type="approvals")
        listed = await hers.next()
        assert [a["request"]["approval_id"] for a in listed["approvals"]] == [approval_id]
        await hers.send(type="decision", approval_id=approval_id, approved=False)
        assert (await hers.next())["outcome"] == "DECIDE_OUTCOME_DECIDED"
        rest = await chat.until("final", "error")  # the run's user reads on, the manager does not
        assert (rest[0]["type"], rest[-1]["text"]) == ("resumed", "refused")
        assert (await hers.ask("hi"))[0]["type"] == "accepted"
    decided = [call for call in agent.calls if isinstance(call, pb.DecideRequest)][-1]
    assert (decided.tenant, decided.override) == ("acme", False)
    assert (decided.decider.email, decided.decider.manager_email) == ("boss@acme.example", "ceo@acme.example")
    assert list(decided.decider.groups) == ["it", "leads"]
    asked = [call for call in agent.calls if isinstance(call, pb.ListApprovalsRequest)]
    assert [call.decider.email for call in asked] == ["boss@acme.example"]


async def test_a_client_that_goes_away_stops_no_parked_run_and_its_decision_stands(start: Start) -> None:
    gateway = await start()
    agent = await gateway.add_worker("w1")
    async with Chat.open(gateway.base) as chat:
        session = (await chat.hello())["session_id"]
        (approval_id,) = (await chat.ask("park"))[-1]["approval_ids"]
    async with Chat.open(gateway.base) as chat:
        await chat.hello(session_id=session)
        await chat.send(type="decision", approval_id=approval_id, approved=True)
    async with asyncio.timeout(3):
        while not agent.resumes:  # noqa: ASYNC110 - a fake has no event
            await asyncio.sleep(0.02)
    assert agent.stops == []


async def test_a_decision_that_crosses_the_parking_is_made_again(start: Start) -> None:
    gateway = await start()
    agent = await gateway.add_worker("w1")
    agent.drop_decisions = True
    async with Chat.open(gateway.base) as chat:
        await chat.hello()
        await chat.send(type="ask", text="park")
        asked = (await chat.until("approval_required"))[-1]
        await chat.send(type="decision", approval_id=asked["approval_id"], approved=True)
        events = await chat.until("final", "error")
        assert [e["type"] for e in events] == ["parked", "resumed", "final"]
        assert events[-1]["text"] == "approved"


async def test_a_decision_that_the_stream_does_not_confirm_is_asked_in_the_way_that_answers(start: Start) -> None:
    gateway = await start(confirm_after=0.2)
    agent = await gateway.add_worker("w1")
    agent.deaf = True
    agent.ledger.approvals["a1"] = None
    async with Chat.open(gateway.base) as chat:
        await chat.hello()
        await chat.send(type="ask", text="approve")
        await chat.until("approval_required")
        await chat.send(type="decision", approval_id="a1", approved=True)
        result = await chat.next()
        assert (result["type"], result["outcome"]) == ("decision_result", "DECIDE_OUTCOME_DECIDED")
    assert agent.ledger.approvals["a1"] is True


async def test_an_expired_token_decides_nothing(start: Start) -> None:
    gateway = await start()
    agent = await gateway.add_worker("w1")
    async with Chat.open(gateway.base) as chat:
        await chat.hello(token(exp=int(time.time()) - 8))  # within the leeway of clocks
        await chat.send(type="decision", approval_id="x", approved=True)
        assert (await chat.next())["code"] == "ERROR_CODE_UNAUTHENTICATED"
        assert (await chat.next())["code"] == 4401
    assert agent.calls == []
