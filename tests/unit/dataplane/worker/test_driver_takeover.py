"""A run whose worker dies, drains or is fenced goes on elsewhere: no write twice, no question to the model twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest

from pilothouse_api.workerconfig import TargetConfig
from pilothouse_dataplane.core.messages import Lookup, ModelRequest, Outcome, ToolResult
from pilothouse_dataplane.ledger.base import Finished, RunKey, RunStatus
from pilothouse_dataplane.models.base import ModelEvent
from pilothouse_dataplane.worker import problems
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_testing.fakes import WRITE, FakeConnector, FakeModel, asks_for, text
from pilothouse_testing.ledger import MemoryLedger
from pilothouse_testing.runs import EMPLOYEE, FakeTenant, fake_connector, worker_config


class WiseModel(FakeModel):
    """Plays the turn that follows from what it is shown, as a model would that is asked a second time."""

    async def stream(self, target: TargetConfig, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        played = sum(bool(message.tool_calls) for message in request.messages)
        turn = FakeModel(self._turns[min(played, len(self._turns) - 1)])
        self.requests.append(request)
        async for event in turn.stream(target, request):
            yield event


TURNS = (
    [asks_for("fake.thing.read", "a", name="x"), asks_for("fake.thing.write", "b", name="one")],
    [asks_for("fake.thing.write", "c", name="two {{s2.name}}"), asks_for("fake.thing.write", "d", name="three")],
    [text("All done.")],
)


class Crashing(MemoryLedger):
    """A ledger whose worker is killed at the ``at``-th record: before it is durable, or right after."""

    def __init__(self, *args: Any, at: int, after: bool) -> None:
        super().__init__(*args)
        self.left, self.after, self.dead = at, after, False
        self.victim: asyncio.Task[None] | None = None

    def _dies(self) -> bool:
        """Whether this record is still made."""
        if self.dead:
            return False
        self.left -= 1
        if self.left == 0:
            self.dead = True
            assert self.victim is not None
            self.victim.cancel()
            return self.after
        return True

    def open(self, key: RunKey, opening: bytes) -> None:
        if self._dies():
            super().open(key, opening)

    def record(self, key: RunKey, entry: bytes) -> None:
        if self._dies():
            super().record(key, entry)

    def outcome(self, key: RunKey, write_key: str, result: ToolResult) -> None:
        if self._dies():
            super().outcome(key, write_key, result)

    def finish(self, key: RunKey, outcome: str, final: bytes) -> None:
        if self._dies():
            super().finish(key, outcome, final)

    async def intend(self, key: RunKey, intent: Any) -> None:
        if self._dies():
            await super().intend(key, intent)
        if self.dead:
            await asyncio.sleep(30)  # the kill comes before the call leaves


RECORDS = 1 + 1 + 3 * 3 + 2 + 1
"""Opening; the read's result; each write's intent, outcome and result; two plans; the end."""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(1, RECORDS + 1))
async def test_killed_at_any_record_the_run_ends_elsewhere_and_no_write_is_sent_twice(at: int, after: bool) -> None:
    model = WiseModel(*TURNS)
    tenant = FakeTenant(model)
    ledger = Crashing(tenant.store, "w1", at=at, after=after)
    tenant.runtime("w1", ledger)
    told = tenant.ask()
    ledger.victim = told.task
    await asyncio.wait([told.task], timeout=10)
    assert ledger.dead, "there are fewer records than the test says"
    told.reader.cancel()
    recorded = sum(b'"k":"model"' in entry for entry in tenant.store.runs["r1"].journal)
    finished = tenant.store.runs["r1"].status is RunStatus.DONE
    asked = len(model.requests)
    taken = await tenant.ask(worker="w2", lost="w1").end()
    assert taken.text == "All done."
    assert not taken.last.final.partial
    assert sorted(tenant.connector.writes()) == ["r1/s2", "r1/s3", "r1/s4"]
    assert {arguments["name"] for _, arguments, _ in tenant.connector.calls} == {"x", "one", "two one", "three"}
    assert len(model.requests) - asked == (0 if finished else len(TURNS) - recorded)
    assert tenant.store.letters == []
    if not finished:
        assert taken.kinds[0] == "resumed"
    assert [m.role for m in tenant.memory.sessions["s"]].count("user") == 1


async def test_a_takeover_tells_what_has_ended_and_what_is_planned() -> None:
    tenant = FakeTenant(WiseModel(*TURNS))
    tenant.runtime("w1", ledger := Crashing(tenant.store, "w1", at=6, after=True))
    told = tenant.ask()
    ledger.victim = told.task
    await asyncio.wait([told.task], timeout=5)
    taken = await tenant.ask(worker="w2", lost="w1").end()
    assert [step.step_id for step in taken.of("resumed")[0].steps] == ["s1", "s2"]
    assert tenant.published("run_resumed")


async def test_a_write_in_doubt_that_can_t_be_looked_up_is_told_kept_and_never_sent_again() -> None:
    connector = FakeConnector()
    connector.tools = (replace(WRITE, lookup=Lookup.NONE),)
    model = WiseModel([asks_for("fake.thing.write", name="x")], [text("Please check.")])
    tenant = FakeTenant(model, connector)
    tenant.runtime("w1", ledger := Crashing(tenant.store, "w1", at=4, after=False))  # its outcome
    told = tenant.ask()
    ledger.victim = told.task
    await asyncio.wait([told.task], timeout=5)
    taken = await tenant.ask(worker="w2", lost="w1").end()
    assert connector.writes() == ["r1/s1"]
    (step,) = taken.of("step_finished")
    assert step.outcome == agent.STEP_OUTCOME_UNKNOWN
    (letter,) = tenant.store.letters
    assert letter.in_doubt
    assert letter.id[:8] in step.summary


async def test_a_dead_letter_that_died_with_its_worker_is_buried_by_the_next() -> None:
    failed = ToolResult(Outcome.FAILED, "fake is down.")
    model = WiseModel([asks_for("fake.thing.write", name="x")], [text("Sorry.")])
    tenant = FakeTenant(model, FakeConnector(lambda *_: failed))
    ledger = Crashing(tenant.store, "w1", at=5, after=True)  # the step's record

    async def never(letter: object) -> None:
        await asyncio.sleep(30)

    ledger.bury = never  # type: ignore[method-assign, assignment]
    tenant.runtime("w1", ledger)
    told = tenant.ask()
    ledger.victim = told.task
    await asyncio.wait([told.task], timeout=5)
    assert tenant.store.letters == []
    taken = await tenant.ask(worker="w2", lost="w1").end()
    assert taken.text == "Sorry."
    (letter,) = tenant.store.letters
    assert letter.key == "r1/s1"
    assert tenant.connector.writes() == ["r1/s1"]


async def until(condition: Any, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not become so in time"
        await asyncio.sleep(0.005)


async def test_a_fenced_worker_sends_nothing_and_says_nothing() -> None:
    model = WiseModel([asks_for("fake.thing.write", name="x"), 0.1], [text("Done.")])
    tenant = FakeTenant(model)
    first = tenant.ask()
    await until(lambda: model.requests)
    second = tenant.ask(worker="w2", lost="w1")
    await second.end()
    await first.end()
    assert second.text == "Done."
    assert tenant.connector.writes() == ["r1/s1"]
    assert "final" not in first.kinds
    assert "error" not in first.kinds
    assert first.stream.lost


async def test_a_run_that_a_living_worker_holds_is_refused_after_a_while_or_given_when_it_ends() -> None:
    tenant = FakeTenant(FakeModel([0.3, text("Hi.")]))
    first = tenant.ask()
    await until(lambda: tenant.model.requests)
    second = tenant.ask(worker="w2")
    await first.end()
    await second.end()
    assert second.text == "Hi."
    assert len(tenant.model.requests) == 1
    held = FakeTenant(FakeModel([5.0]))
    first = held.ask()
    await until(lambda: held.model.requests)
    refused = await held.ask(worker="w2").end()
    assert refused.last.error.retryable
    assert refused.last.error.message == problems.held().message
    first.driver.stop("x")
    await first.end()


async def test_draining_waits_for_writes_and_hands_the_rest_over() -> None:
    model = WiseModel(
        [asks_for("fake.thing.write", "a", name="x")],
        [asks_for("fake.thing.read", "b", name="y"), 5.0],
        [text("Done.")],
    )
    tenant = FakeTenant(model, FakeConnector(delay=0.1), worker_config(connectors=[fake_connector(timeout_seconds=2)]))
    first = tenant.ask()
    await until(lambda: tenant.connector.calls)
    first.driver.hand_over()
    await first.end()
    assert first.of("step_finished")[0].outcome == agent.STEP_OUTCOME_SUCCEEDED
    assert first.stream.lost.startswith("handing over")
    assert len(model.requests) == 1
    model._turns = ([], [text("Done.")])
    second = await tenant.ask(worker="w2").end()
    assert second.kinds[0] == "resumed"
    assert second.text == "Done."
    assert tenant.connector.writes() == ["r1/s1"]


async def test_a_run_that_its_own_worker_s_restart_left_is_found_by_the_sweep() -> None:
    tenant = FakeTenant(WiseModel(*TURNS))
    tenant.runtime("w1", ledger := Crashing(tenant.store, "w1", at=5, after=True))
    told = tenant.ask()
    ledger.victim = told.task
    await asyncio.wait([told.task], timeout=5)
    other = tenant.runtime("w2").ledger
    assert list(await other.abandoned(5)) == []
    tenant.store.advance(60)
    assert list(await other.abandoned(5)) == ["r1"]
    taken = await tenant.resume(worker="w2").end()
    assert taken.text == "All done."
    assert isinstance(await other.claim_known("r1"), Finished)


async def test_a_resumed_run_whose_worker_is_named_as_lost_goes_on_at_once() -> None:
    tenant = FakeTenant(WiseModel(*TURNS))
    tenant.runtime("w1", ledger := Crashing(tenant.store, "w1", at=5, after=True))
    told = tenant.ask()
    ledger.victim = told.task
    await asyncio.wait([told.task], timeout=5)
    # the lease still runs: without the name it would be waited for
    taken = await tenant.resume(worker="w2", lost="w1").end()
    assert taken.text == "All done."


async def test_a_takeover_while_the_ledger_is_away_promises_nothing() -> None:
    tenant = FakeTenant(FakeModel([text("x")]))
    tenant.store.available = False
    told = await tenant.ask(worker="w2", lost="w1").end()
    assert told.last.error.message == problems.not_resumed().message
    unknown = FakeTenant(FakeModel([text("x")]))
    assert (await unknown.resume("nobody").end()).last.error.message == problems.unknown_run().message


async def test_a_journal_of_a_later_release_is_not_guessed_at() -> None:
    tenant = FakeTenant(WiseModel(*TURNS))
    tenant.runtime("w1", ledger := Crashing(tenant.store, "w1", at=5, after=True))
    told = tenant.ask()
    ledger.victim = told.task
    await asyncio.wait([told.task], timeout=5)
    tenant.store.runs["r1"].journal[0] = b'{"v":99}'
    taken = await tenant.ask(worker="w2", lost="w1").end()
    assert taken.last.error.message == problems.unreadable().message
    assert tenant.store.runs["r1"].status is RunStatus.DONE


async def test_the_same_approval_is_asked_again_after_a_takeover_and_used_once() -> None:
    config = worker_config(connectors=[fake_connector(approvals=[{"match": "thing.write"}])])
    model = WiseModel([asks_for("fake.thing.write", name="x")], [text("Done.")])
    tenant = FakeTenant(model, config=config)
    told = await tenant.ask().end()
    approval_id = told.last.parked.approval_ids[0]
    resumed = await tenant.resume(worker="w2").end()  # nobody has decided: it is parked again
    assert resumed.last.parked.approval_ids == [approval_id]
    await tenant.runtime("w3").ledger.decide(approval_id, approved=True, decider=EMPLOYEE)
    ledger = Crashing(tenant.store, "w4", at=3, after=True)  # decided, intended, outcome: killed with it
    tenant.runtime("w4", ledger)
    told = tenant.resume(worker="w4")
    ledger.victim = told.task
    await asyncio.wait([told.task], timeout=5)
    assert ledger.dead
    tenant.store.advance(60)
    taken = await tenant.resume(worker="w5").end()
    assert taken.text == "Done."
    assert tenant.connector.writes() == ["r1/s1"]
    assert len(model.requests) == 2
