from __future__ import annotations

import asyncio
from typing import Any

from pilothouse_api.workerconfig import ApprovalRule
from pilothouse_dataplane.connectors.base import AccountNotLinked, CallContext, Refused, SystemUnavailable
from pilothouse_dataplane.worker.probing import Prober, Reached
from pilothouse_dataplane.worker.status import connector_statuses, list_tools
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_testing.fakes import FakeConnector, FakeModel, FakeSource, asks_for, text
from pilothouse_testing.runs import EMPLOYEE, FakeTenant, fake_connector, worker_config

AWAY = SystemUnavailable("It can't be reached.", may_have_acted=False)


class Probed(FakeConnector):
    def __init__(self, *answers: Exception | None) -> None:
        super().__init__()
        self.probes = 0
        self._plays = list(answers)

    async def probe(self) -> None:
        self.probes += 1
        answer = self._plays.pop(0) if len(self._plays) > 1 else self._plays[0]
        if answer is not None:
            raise answer


class World:
    """A clock that a test moves, with sleeps that end when it has been moved far enough."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.answered: float | None = None

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        until = self.now + seconds
        while self.now < until:  # noqa: ASYNC110 - the test moves the clock
            await asyncio.sleep(0)

    async def pass_by(self, seconds: float) -> None:
        for step in (0.0, seconds):
            self.now += step
            for _ in range(10):
                await asyncio.sleep(0)

    def prober(self, connector: Any, url: str = "http://x") -> Prober:
        return Prober(
            {"fake": connector},
            {"fake": url},
            lambda name: self.answered,
            clock=lambda: self.now,
            wall=lambda: 1000 + self.now,
            random=lambda: 0.5,
            sleep=self._sleep,
        )


async def test_a_system_that_fails_is_asked_ever_more_rarely_and_one_that_answers_each_half_minute() -> None:
    world, connector = World(), Probed(AWAY, AWAY, AWAY, AWAY, AWAY, AWAY, None)
    prober = world.prober(connector)
    assert prober.of("fake") == Reached()
    prober.start()
    for _ in range(9):
        await world.pass_by(300)
    assert world.slept[:9] == [0.25, 30, 60, 120, 240, 300, 300, 30, 30]
    assert prober.of("fake").reachable is True
    await prober.aclose()


async def test_what_a_probe_finds() -> None:
    for answer, reachable, words in (
        (None, True, "It answers."),
        (Refused("You may not."), True, "It answers."),
        (Refused("Not sent.", asked=False), False, "Not sent."),
        (AWAY, False, "It can't be reached."),
        (KeyError("x"), False, "can't be read"),
    ):
        world = World()
        prober = world.prober(Probed(answer))
        prober.start()
        await world.pass_by(0.3)
        found = prober.of("fake")
        assert (found.reachable, found.at) == (reachable, 1000.3)
        assert words in found.message
        await prober.aclose()


async def test_the_answer_of_a_call_counts_at_once_and_spares_a_probe() -> None:
    world, connector = World(), Probed(AWAY)
    prober = world.prober(connector)
    prober.start()
    await world.pass_by(1)
    assert prober.of("fake").reachable is False
    world.now, world.answered = 5.0, 4.0
    assert prober.of("fake") == Reached(True, "It answers.", 1004.0)
    world.answered = 30.0
    await world.pass_by(30)
    assert connector.probes == 1
    assert prober.of("fake").reachable is True
    await prober.aclose()


async def test_a_reload_keeps_what_was_found_of_the_same_address() -> None:
    world = World()
    before = world.prober(Probed(None))
    before.start()
    await world.pass_by(1)
    same, other = world.prober(Probed(None)), world.prober(Probed(None), "http://y")
    for each in (same, other):
        each.start(before)
    assert (same.of("fake").reachable, other.of("fake").reachable) == (True, None)
    for each in (before, same, other):
        await each.aclose()


async def test_a_worker_tells_of_its_connectors_and_tools() -> None:
    rule = ApprovalRule(match="*", by="Group", group="it").model_dump()
    tenant = FakeTenant(FakeModel([]), config=worker_config(connectors=[fake_connector(approvals=[rule])]))
    runtime = tenant.runtime()
    (status,) = connector_statuses(runtime)
    assert (status.name, status.tools, status.reachable) == ("fake", 2, agent.REACHABILITY_UNKNOWN)
    assert not status.HasField("probed")
    runtime.prober = Prober(
        runtime.toolset.connectors,
        {"fake": "x"},
        lambda name: 5.0,
        clock=lambda: 7.0,
        wall=lambda: 1007.0,
        random=lambda: 0,
    )
    (status,) = connector_statuses(runtime)
    assert (status.reachable, status.probed.seconds) == (agent.REACHABILITY_REACHABLE, 1005)
    read, write = list_tools(runtime).tools
    assert (read.name, read.connector, read.effect) == ("fake.thing.read", "fake", agent.EFFECT_READ)
    assert (read.approver, read.group) == (agent.APPROVER_UNSPECIFIED, ""), "a read waits for nobody"
    assert (write.effect, write.approver, write.group) == (agent.EFFECT_WRITE, agent.APPROVER_GROUP, "it")
    assert '"required":["name"]' in write.parameters_json


class Discovered(FakeConnector):
    """Tells its tools to whoever has an account."""

    def __init__(self) -> None:
        super().__init__()
        self.tools, self._later = (), self.tools

    async def discover(self, context: CallContext | None) -> bool:
        if context is None:
            raise AccountNotLinked("Sign in.")
        self.tools = self._later
        return context.token.reveal() == "t"


async def test_a_run_begins_with_the_tools_that_its_user_can_discover() -> None:
    model = FakeModel([asks_for("fake.thing.read", "a", name="x")], [text("Done.")])
    source = FakeSource({EMPLOYEE.email: "t"})
    tenant = FakeTenant(model, Discovered(), sources={"fake": source})
    runtime = tenant.runtime()
    await runtime.start(None)
    assert runtime.toolset.tools == ()
    told = await tenant.ask().end()
    assert [step.outcome for step in told.of("step_finished")] == [agent.STEP_OUTCOME_SUCCEEDED]
    assert (await tenant.ask(run_id="r2").end()).text == "Done."
    assert source.asked.count(EMPLOYEE.email) == 2, "once to discover, once to call; the second run needs neither"
    await runtime.toolset.aclose()
