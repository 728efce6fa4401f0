"""One run on one worker: what is told, recorded and published; stop, deadline, approvals, dead letters, bad days."""

from __future__ import annotations

import asyncio
import time

from pilothouse_dataplane.connectors.base import Refused, SystemUnavailable
from pilothouse_dataplane.core.messages import Effect, Tool, ToolResult
from pilothouse_dataplane.ledger.base import RunStatus, Verdict
from pilothouse_dataplane.memory.short_term import MemoryUnavailable
from pilothouse_dataplane.models.base import ModelUnavailable
from pilothouse_dataplane.worker.stream import ClientStream
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_proto.events.v1 import events_pb2 as events
from pilothouse_testing.fakes import WRITE, FakeConnector, FakeModel, asks_for, text
from pilothouse_testing.runs import EMPLOYEE, QUESTION, FakeTenant, Told, fake_connector, worker_config


async def until(condition: object, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not become so in time"
        await asyncio.sleep(0.005)


async def test_a_run_is_told_recorded_remembered_and_published() -> None:
    model = FakeModel(
        [asks_for("fake.thing.read", "a", name="x"), asks_for("fake.thing.write", "b", name="y")],
        [text("All "), text("done.")],
    )
    tenant = FakeTenant(model)
    told = await tenant.ask().end()
    assert told.kinds[0] == "accepted"
    assert told.kinds[-1] == "final"
    # a person sees at once that it works; a step that starts at once is told once
    assert told.kinds[1:5] == ["step_started", "step_finished", "step_started", "plan"]
    assert told.text == "All done."
    assert [event.sequence for event in told.events] == list(range(1, len(told.events) + 1))
    assert len(told.of("step_finished")) == 2
    run = tenant.store.runs["r1"]
    assert (run.status, run.outcome) == (RunStatus.DONE, "answered")
    assert agent.ConverseEvent.FromString(run.final).final.text == "All done."
    assert [m.content for m in tenant.memory.sessions["s"]] == [QUESTION, "All done."]
    (write,) = tenant.store.writes.values()
    assert write.intent.key == "r1/s2"
    assert write.result is not None
    (finished,) = tenant.published("run_finished")
    assert finished.outcome == events.RUN_OUTCOME_ANSWERED
    split = finished.time
    assert abs(split.model_ms + split.tools_ms + split.approval_ms + split.pilothouse_ms - finished.duration_ms) <= 2


async def test_a_finished_run_asked_again_tells_its_end_again() -> None:
    tenant = FakeTenant(FakeModel([text("Hi.")]))
    await tenant.ask().end()
    again = await tenant.ask(worker="w2", lost="w1").end()
    assert again.kinds == ["final"]
    assert again.text == "Hi."
    assert len(tenant.model.requests) == 1


async def test_a_read_starts_before_the_plan_is_complete_and_a_write_after() -> None:
    model = FakeModel(
        [asks_for("fake.thing.read", "a", name="x"), asks_for("fake.thing.write", "b", name="y"), 0.1],
        [text("ok")],
    )
    tenant = FakeTenant(model)
    told = tenant.ask()
    await until(lambda: tenant.connector.calls)
    assert [name for name, _, _ in tenant.connector.calls] == ["fake.thing.read"]
    assert tenant.store.writes == {}
    await told.end()
    assert tenant.connector.writes() == ["r1/s2"]


async def test_the_answer_that_the_plan_brought_along_spares_the_second_model_call() -> None:
    model = FakeModel([asks_for("fake.thing.write", "a", name="y"), asks_for("reply", "b", text="Wrote {{s1.name}}.")])
    told = await FakeTenant(model).ask().end()
    assert told.text == "Wrote y."
    assert len(model.requests) == 1


async def test_stop_ends_calls_at_once_and_keeps_the_cut_write_as_in_doubt() -> None:
    tenant = FakeTenant(FakeModel([asks_for("fake.thing.write", name="x")]), FakeConnector(delay=30))
    told = tenant.ask()
    await until(lambda: tenant.connector.calls)
    began = time.monotonic()
    told.driver.stop("You stopped this")
    await told.reader
    assert time.monotonic() - began < 5
    assert tenant.connector.cancelled == 1
    assert told.last.final.partial
    assert told.text.startswith("You stopped this, so this answer is not complete.")
    await told.end()
    (letter,) = tenant.store.letters
    assert letter.in_doubt
    assert letter.id[:8] in told.text
    assert tenant.store.runs["r1"].outcome == "stopped"


async def test_the_deadline_ends_a_run_with_what_there_is() -> None:
    config = worker_config(agent={"instructions": "Help.", "deadline_seconds": 0.1})
    told = await FakeTenant(FakeModel([text("I think"), 30.0]), config=config).ask().end()
    assert told.text.startswith("I think\n\nI ran out of time")


async def test_a_stream_that_breaks_does_not_stop_the_run_and_a_new_one_attaches() -> None:
    tenant = FakeTenant(
        FakeModel([asks_for("fake.thing.read", "a", name="x")], [text("All "), 0.1, text("done."), 0.05])
    )
    told = tenant.ask()
    await until(lambda: told.of("step_finished"))
    told.driver.detach(told.stream)
    told.reader.cancel()
    await until(lambda: len(tenant.model.requests) == 2)
    await asyncio.sleep(0.05)
    again = Told(ClientStream("r1"), told.driver, told.task).listen()
    told.driver.attach(again.stream)
    await again.end()
    assert again.kinds[0] == "resumed"
    assert [step.step_id for step in again.of("resumed")[0].steps] == ["s1"]
    assert "".join(piece.text for piece in again.of("text_delta")) == "All done."
    assert again.text == "All done."


async def test_a_run_that_nobody_listens_to_keeps_its_end() -> None:
    tenant = FakeTenant(FakeModel([0.05, text("Hi.")]))
    told = tenant.ask()
    await until(lambda: told.events)
    told.driver.detach(told.stream)
    told.reader.cancel()
    await told.task
    assert agent.ConverseEvent.FromString(tenant.store.runs["r1"].final).final.text == "Hi."
    assert tenant.memory.sessions["s"][-1].content == "Hi."


async def test_a_slow_client_gets_text_in_one_piece_and_all_events() -> None:
    stream = ClientStream("r")
    for number in range(1000):
        stream.text(f"{number} ")
    stream.push(agent.ConverseEvent(final=agent.Final(text="end")))
    stream.close()
    got = [event async for event in stream]
    assert [event.WhichOneof("event") for event in got] == ["text_delta", "final"]
    assert got[0].text_delta.text.endswith("999 ")
    assert [event.sequence for event in got] == [1, 2]


async def test_a_write_that_failed_for_good_is_kept_and_said_to_be() -> None:
    connector = FakeConnector(lambda *_: SystemUnavailable("fake is down.", may_have_acted=False))
    tenant = FakeTenant(FakeModel([asks_for("fake.thing.write", name="x")], [text("Sorry.")]), connector)
    told = await tenant.ask().end()
    (letter,) = tenant.store.letters
    assert (letter.key, letter.in_doubt, letter.attempts, letter.asker) == ("r1/s1", False, 1, EMPLOYEE)
    assert f"reference {letter.id[:8]}" in told.of("step_finished")[0].summary
    assert letter.id[:8] in tenant.model.requests[1].messages[-1].content
    assert [event.id for event in tenant.published("dead_lettered")] == [letter.id]
    assert tenant.store.runs["r1"].status is RunStatus.DONE


async def test_reads_that_fail_and_writes_that_are_refused_are_no_dead_letters() -> None:
    answers = {"fake.thing.read": SystemUnavailable("down", may_have_acted=False), "fake.thing.write": Refused("No.")}
    tenant = FakeTenant(
        FakeModel(
            [asks_for("fake.thing.read", "a", name="x"), asks_for("fake.thing.write", "b", name="x")], [text("")]
        ),
        FakeConnector(lambda tool, _: answers[tool.name]),
    )
    await tenant.ask().end()
    assert tenant.store.letters == []


async def test_a_dead_letter_that_can_t_be_kept_at_once_is_kept_before_the_run_is_finished() -> None:
    connector = FakeConnector(lambda *_: SystemUnavailable("fake is down.", may_have_acted=False))
    tenant = FakeTenant(FakeModel([asks_for("fake.thing.write", name="x")], [0.05, text("Sorry.")]), connector)
    told = tenant.ask()
    await until(lambda: tenant.connector.calls)
    tenant.store.available = False
    await told.reader  # the answer does not wait
    assert told.text == "Sorry."
    assert tenant.store.runs["r1"].status is RunStatus.ACTIVE
    tenant.store.available = True
    await told.end()
    assert len(tenant.store.letters) == 1
    assert tenant.store.runs["r1"].status is RunStatus.DONE


async def test_no_write_leaves_without_its_intent() -> None:
    tenant = FakeTenant(FakeModel([asks_for("fake.thing.write", name="x"), 0.1], [text("ok")]))
    told = tenant.ask()
    await until(lambda: tenant.model.requests)
    tenant.store.available = False
    await told.end()
    assert tenant.connector.calls == []
    (step,) = told.of("step_finished")
    assert step.outcome == agent.STEP_OUTCOME_FAILED
    assert "could not be recorded" in step.summary
    assert told.of("step_started") == []


async def test_without_ledger_or_memory_nothing_begins() -> None:
    tenant = FakeTenant(FakeModel([text("never")]))
    tenant.store.available = False
    told = await tenant.ask().end()
    assert told.kinds == ["error"]
    assert told.last.error.retryable
    tenant.store.available = True
    tenant.memory.failing = MemoryUnavailable("gone")
    told = await tenant.ask(run_id="r2").end()
    assert told.kinds == ["error"]
    assert tenant.store.runs["r2"].status is RunStatus.DONE
    assert tenant.model.requests == []


async def test_an_answer_that_can_t_be_saved_says_so() -> None:
    tenant = FakeTenant(FakeModel([0.05, text("Hi.")]))
    told = tenant.ask()
    await until(lambda: tenant.model.requests)
    tenant.memory.failing = MemoryUnavailable("gone")
    await told.end()
    assert "could not be saved" in told.text


async def test_a_model_that_is_down_is_an_error_where_nothing_was_done() -> None:
    tenant = FakeTenant(FakeModel([ModelUnavailable("The model provider local is down")]))
    told = await tenant.ask().end()
    assert told.last.error.code == agent.ERROR_CODE_MODEL_UNAVAILABLE
    assert tenant.store.runs["r1"].outcome == "failed"


async def test_a_defect_of_ours_ends_the_run_with_an_error_and_keeps_what_was_sent() -> None:
    tenant = FakeTenant(
        FakeModel([asks_for("fake.thing.write", "a", name="x"), asks_for("fake.thing.read", "b", name="y"), 0.01]),
        FakeConnector(delay=30),
    )
    told = tenant.ask()
    await until(lambda: tenant.connector.writes())

    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    told.driver.runtime.ledger.record = broken  # type: ignore[method-assign, assignment]
    told.driver.stop("x")
    await told.end()
    assert told.last.error.code == agent.ERROR_CODE_INTERNAL
    assert [letter.in_doubt for letter in tenant.store.letters] == [True]
    assert tenant.store.runs["r1"].status is RunStatus.DONE


# --- approvals --------------------------------------------------------------------------------------------------------
def asking(seconds: float = 60.0, by: str = "User", **agent_config: object) -> dict[str, object]:
    rules = [{"match": "thing.write", "by": by}]
    return worker_config(
        agent={"instructions": "Help.", "deadline_seconds": 10, "approval_seconds": seconds, **agent_config},
        connectors=[fake_connector(approvals=rules)],
    )


async def test_a_run_that_only_waits_for_a_person_is_parked_and_goes_on_anywhere() -> None:
    model = FakeModel([asks_for("fake.thing.write", name="x")], [text("Done.")])
    tenant = FakeTenant(model, config=asking(3600))
    told = await tenant.ask().end()
    assert told.kinds[-2:] == ["approval_required", "parked"]
    (required,) = told.of("approval_required")
    assert told.last.parked.approval_ids == [required.approval_id]
    assert required.approver == EMPLOYEE.email
    assert tenant.store.runs["r1"].status is RunStatus.PARKED
    assert tenant.connector.calls == []
    tenant.store.advance(600)  # the deadline stands still while it is parked
    decision = await tenant.runtime("w3").ledger.decide(required.approval_id, approved=True, decider=EMPLOYEE)
    assert decision.verdict is Verdict.DECIDED
    assert decision.resume
    resumed = await tenant.resume(worker="w2").end()
    assert resumed.kinds[0] == "resumed"
    assert resumed.text == "Done."
    assert tenant.connector.writes() == ["r1/s1"]
    assert len(model.requests) == 2
    assert tenant.store.approvals[required.approval_id].used_by == "r1/s1"
    (finished,) = tenant.published("run_finished")
    assert finished.time.approval_ms == 600_000


async def test_a_refusal_is_told_to_the_model_and_nothing_is_sent() -> None:
    tenant = FakeTenant(FakeModel([asks_for("fake.thing.write", name="x")], [text("Not done.")]), config=asking())
    told = await tenant.ask().end()
    approval_id = told.last.parked.approval_ids[0]
    await tenant.runtime().ledger.decide(approval_id, approved=False, decider=EMPLOYEE)
    resumed = await tenant.resume().end()
    assert resumed.text == "Not done."
    assert "employee@acme.example refused it" in tenant.model.requests[1].messages[-1].content
    assert tenant.connector.calls == []


async def test_a_lapsed_approval_counts_as_refused() -> None:
    tenant = FakeTenant(FakeModel([asks_for("fake.thing.write", name="x")], [text("Not done.")]), config=asking(60))
    await tenant.ask().end()
    tenant.store.advance(61)
    assert await tenant.runtime("w2").ledger.abandoned(5) == ["r1"]
    resumed = await tenant.resume(worker="w2").end()
    assert resumed.text == "Not done."
    assert "nobody decided within 60 s" in tenant.model.requests[1].messages[-1].content
    assert tenant.connector.calls == []


async def test_decisions_while_other_steps_run_are_taken_live() -> None:
    slow = Tool("fake.thing.slow", "Slow.", WRITE.parameters, Effect.READ)
    plan = [asks_for("fake.thing.write", "a", name="x"), asks_for("fake.thing.slow", "b", name="y")]
    connector = FakeConnector()
    connector.tools = (*connector.tools, slow)
    held = asyncio.Event()
    plain = connector.call

    async def call(tool: Tool, arguments: object, context: object) -> ToolResult:
        if tool.name == slow.name:
            await held.wait()
        return await plain(tool, arguments, context)  # type: ignore[arg-type]

    connector.call = call  # type: ignore[method-assign, assignment]
    tenant = FakeTenant(FakeModel(plan, [text("Done.")]), connector, asking())
    told = tenant.ask()
    await until(lambda: told.of("approval_required"))
    approval_id = told.of("approval_required")[0].approval_id
    await told.driver.decide(approval_id, approved=True, decider=EMPLOYEE)
    await until(lambda: tenant.connector.writes())
    held.set()
    await told.end()
    assert told.text == "Done."
    assert "parked" not in told.kinds
    assert told.of("approval_decided")[0].decided_by == EMPLOYEE.email


async def test_a_lapse_while_other_steps_run_is_noticed() -> None:
    slow = Tool("fake.thing.read", "Slow.", WRITE.parameters, Effect.READ)
    connector = FakeConnector(delay=1.2)
    connector.tools = (slow, WRITE)
    plan = [asks_for("fake.thing.write", "a", name="x"), asks_for("fake.thing.read", "b", name="y")]
    tenant = FakeTenant(FakeModel(plan, [text("Not done.")]), connector, asking(0.2))
    told = tenant.ask()
    await until(lambda: told.of("approval_required"))
    tenant.store.advance(1)
    await until(lambda: told.of("approval_decided"))
    assert not told.of("step_finished") or told.of("step_finished")[0].step_id == "s1"
    await told.end()
    assert tenant.connector.writes() == []


async def test_a_run_that_can_t_be_parked_yet_is_parked_when_the_ledger_is_back() -> None:
    tenant = FakeTenant(FakeModel([asks_for("fake.thing.write", name="x"), 0.02], [text("Done.")]), config=asking())
    ledger = tenant.runtime().ledger
    park = ledger.park
    tries = []

    async def away_once(key: object) -> object:
        tries.append(key)
        tenant.store.available = len(tries) > 1
        return await park(key)  # type: ignore[arg-type]

    ledger.park = away_once  # type: ignore[method-assign, assignment]
    told = await tenant.ask().end()
    assert told.kinds[-1] == "parked"
    assert len(tries) == 2
