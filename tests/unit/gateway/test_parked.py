"""Parked runs between the gateway's parts: what is read on, by whom, and what is asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pilothouse_proto.agent.v1 import agent_pb2 as pb
from pilothouse_proto.events.v1 import events_pb2 as ev

Make = Callable[..., Any]


class Reader:
    """A conversation that is open at this gateway."""

    def __init__(self) -> None:
        self.read: list[dict[str, Any]] = []
        self._over = asyncio.Event()

    async def emit(self, body: dict[str, Any]) -> None:
        self.read.append(body)
        if body["type"] in {"final", "error"}:
            self._over.set()

    async def end(self) -> list[tuple[str, int]]:
        async with asyncio.timeout(5):
            await self._over.wait()
        return [(body["type"], body["sequence"]) for body in self.read]


def finished(run_id: str, tenant: str = "acme") -> ev.RunEvent:
    return ev.RunEvent(tenant=tenant, session_id="s1", run_id=run_id, run_finished=ev.RunFinished())


async def test_a_run_that_was_decided_through_another_gateway_is_read_on_here(bench: Make) -> None:
    here = bench()
    worker, reader = await here.worker("w1"), Reader()
    asked = here.ask("park for boss")
    assert (await asked.end())["type"] == "parked"
    here.approvals.parked(asked.run)
    here.approvals.join("acme", "s1", reader.emit)
    here.approvals.heard(finished("run1", "globex"))
    here.approvals.heard(finished("run7"))  # one that never parked here
    await asyncio.sleep(0.1)
    assert worker.resumes == []
    here.ledger.approvals["boss-run1"] = True
    here.approvals.heard(finished("run1"))
    here.approvals.heard(finished("run1"))
    assert await reader.end() == [("resumed", 4), ("final", 5)]
    assert [resume.session_id for resume in worker.resumes] == ["s1"]


async def test_nobody_asks_for_a_run_whose_conversation_is_closed(bench: Make) -> None:
    here = bench()
    worker = await here.worker("w1")
    asked = here.ask("park for boss")
    await asked.end()
    here.approvals.parked(asked.run)
    here.approvals.heard(finished("run1"))
    await asyncio.sleep(0.1)
    assert worker.resumes == []


async def test_a_decision_that_the_parking_worker_did_hear_is_not_lost_to_the_client(bench: Make) -> None:
    here = bench()
    worker, reader = await here.worker("w1"), Reader()
    worker.drop_decisions = True
    here.approvals.join("acme", "s1", reader.emit)
    asked = here.ask("park")
    await asked.until("approval_required")
    here.ledger.approvals["mine-run1"] = True  # the worker notes it, and parks all the same
    assert await asked.run.decide("mine-run1", approved=True, user=pb.User(email="ana@acme.example"))
    assert (await asked.end())["type"] == "parked"
    here.approvals.parked(asked.run)
    assert [kind for kind, _ in await reader.end()] == ["resumed", "final"]


async def test_a_run_that_was_parked_with_nothing_left_to_decide_goes_on_at_once(bench: Make) -> None:
    here = bench()
    _, reader = await here.worker("w1"), Reader()
    here.approvals.join("acme", "s1", reader.emit)
    asked = here.ask("park")
    await asked.end()
    here.ledger.approvals["mine-run1"] = True  # and the worker has told so, right before it parked
    here.approvals.parked(asked.run, decided=True)
    assert await reader.end() == [("resumed", 4), ("final", 5)]


@pytest.mark.parametrize("code", [pb.ERROR_CODE_RATE_LIMITED, pb.ERROR_CODE_WORKER_LOST], ids=["full", "held"])
async def test_a_resumed_run_finds_the_worker_that_can_have_it(bench: Make, code: pb.ErrorCode.ValueType) -> None:
    here = bench()
    worker, reader = await here.worker("w1"), Reader()
    here.approvals.join("acme", "s1", reader.emit)
    asked = here.ask("park")
    await asked.end()
    here.approvals.parked(asked.run)
    worker.refusals = [code]
    response = await here.approvals.decide(
        "acme", "mine-run1", approved=False, decider=pb.User(email="ana@acme.example")
    )
    here.approvals.resume("acme", response)
    here.approvals.resume("acme", response)
    assert here.approvals.live("acme", "s1")
    assert here.approvals.live("acme", "s2") == here.approvals.live("globex", "s1") == []
    assert await reader.end() == [("resumed", 4), ("final", 5)]
    assert reader.read[-1]["text"] == "refused"
