"""The gateway's runs on real workers over gRPC, which share a ledger in memory: loss, draining, parking, deciding."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilothouse_dataplane.core.guard import GuardRegistry
from pilothouse_dataplane.gateway.approvals import Approvals
from pilothouse_dataplane.gateway.channels import ChannelPool
from pilothouse_dataplane.gateway.dispatch import Dispatcher
from pilothouse_dataplane.gateway.metrics import Metrics
from pilothouse_dataplane.gateway.runs import Run
from pilothouse_dataplane.gateway.settings import Settings
from pilothouse_dataplane.gateway.workers import Directory, TenantRef
from pilothouse_dataplane.gateway.workers import Worker as Pod
from pilothouse_dataplane.worker.config import LoadedConfig
from pilothouse_dataplane.worker.runtime import Runtime, StoreKeeper
from pilothouse_dataplane.worker.server import Worker
from pilothouse_proto.agent.v1 import agent_pb2 as pb
from pilothouse_proto.events.v1 import events_pb2 as ev
from pilothouse_testing.fakes import FakeConnector, FakeModel, asks_for, text
from pilothouse_testing.gateway_fakes import MemorySessions
from pilothouse_testing.runs import FakeTenant, fake_connector, worker_config

EMPLOYEE = pb.User(subject="1", email="employee@acme.example", manager_email="boss@acme.example")
BOSS = pb.User(subject="2", email="boss@acme.example")
ASKS_MANAGER = worker_config(
    connectors=[fake_connector(approvals=[{"match": "thing.write", "by": "Manager"}], timeout_seconds=5)]
)


@dataclass
class Bench:
    tenant: FakeTenant
    folder: Path
    settings: Settings
    directory: Directory
    dispatcher: Dispatcher
    approvals: Approvals
    metrics: Metrics
    workers: dict[str, Worker] = field(default_factory=dict)
    read: list[dict[str, Any]] = field(default_factory=list)
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    async def worker(self, name: str, config: dict[str, Any]) -> None:
        def factory(loaded: LoadedConfig, guards: GuardRegistry, keeper: StoreKeeper) -> Runtime:
            return self.tenant.build(loaded.config, loaded.hash, name, guards)

        mount = self.folder / name
        mount.mkdir()
        (mount / "config.json").write_text(json.dumps(config))
        (mount / "redis-url").write_text("redis://127.0.0.1:9/0")
        (mount / "database-url").write_text("postgresql://nobody:x@127.0.0.1:9/none")
        self.workers[name] = Worker(mount, name, factory)
        port = await self.workers[name].start("127.0.0.1:0")
        self.directory.table.put_worker(
            ("acme", name), Pod("acme", "acme", name, f"uid-{name}", "127.0.0.1", "r1", True, port)
        )
        self.directory.announce()

    async def emit(self, body: dict[str, Any]) -> None:
        self.read.append(body)
        self.grown.set()

    def ask(self) -> tuple[Run, asyncio.Task[dict[str, Any]]]:
        run = Run(
            pb.Ask(tenant="acme", session_id="s", run_id="r1", user=EMPLOYEE, text="write x"),
            dispatcher=self.dispatcher,
            settings=self.settings,
            metrics=self.metrics,
            emit=self.emit,
        )
        return run, asyncio.create_task(run.execute())

    async def until(self, kind: str) -> dict[str, Any]:
        async with asyncio.timeout(8):
            while True:
                for body in self.read:
                    if body["type"] == kind:
                        return body
                self.grown.clear()
                await self.grown.wait()


@asynccontextmanager
async def bench(
    tmp_path: Path, model: FakeModel, connector: FakeConnector, config: dict[str, Any] | None = None
) -> AsyncIterator[Bench]:
    settings = Settings(pod_ip="127.0.0.1", redis_url="", dev_token_key_file=tmp_path)
    directory, metrics = Directory(), Metrics()
    directory.table.put_tenant(TenantRef("acme", "acme", "acme", "2026"))
    pool = ChannelPool(probe_interval=settings.probe_interval, silence=settings.worker_silence)
    dispatcher = Dispatcher(directory, MemorySessions(), pool, wait=2.0)
    approvals = Approvals(dispatcher=dispatcher, settings=settings, metrics=metrics)
    tenant = FakeTenant(model, connector)
    made = Bench(tenant, tmp_path, settings, directory, dispatcher, approvals, metrics)
    approvals.join("acme", "s", made.emit)
    try:
        await made.worker("w1", config or worker_config())
        yield made
    finally:
        await approvals.close()
        for worker in made.workers.values():
            await worker.stop(grace_seconds=0)
        await pool.close()


async def test_a_draining_worker_hands_its_run_over_and_nothing_is_written_twice(tmp_path: Path) -> None:
    connector = FakeConnector(delay=0.4)
    model = FakeModel([asks_for("fake.thing.write", name="x")], [text("one two "), 0.5, text("three")])
    async with bench(tmp_path, model, connector, worker_config(connectors=[fake_connector(timeout_seconds=5)])) as here:
        _, ending = here.ask()
        await here.until("step_started")
        await here.worker("w2", worker_config(connectors=[fake_connector(timeout_seconds=5)]))
        await here.workers["w1"].stop(grace_seconds=0)
        last = await asyncio.wait_for(ending, 8)
        assert (last["type"], last["text"]) == ("final", "one two three")
        resumed = await here.until("resumed")
        assert (resumed["worker"], [s["outcome"] for s in resumed["steps"]]) == ("w2", ["STEP_OUTCOME_SUCCEEDED"])
        sequence = [body["sequence"] for body in here.read] + [last["sequence"]]
        assert sequence == sorted(set(sequence))
        assert connector.writes() == ["r1/s1"]


async def test_a_manager_decides_a_parked_run_which_goes_on_on_another_worker(tmp_path: Path) -> None:
    connector = FakeConnector()
    model = FakeModel([asks_for("fake.thing.write", name="x")], [text("done")])
    async with bench(tmp_path, model, connector, ASKS_MANAGER) as here:
        run, ending = here.ask()
        last = await asyncio.wait_for(ending, 8)
        assert last["type"] == "parked"
        here.approvals.parked(run)
        (approval_id,) = last["approval_ids"]
        asked = await here.until("approval_required")
        assert (asked["by"], asked["approver"]) == ("APPROVER_MANAGER", "boss@acme.example")
        await here.worker("w2", ASKS_MANAGER)
        await here.workers["w1"].stop(grace_seconds=0)
        assert [a.request.approval_id for a in await here.approvals.waiting("acme", BOSS)] == [approval_id]
        assert await here.approvals.waiting("acme", EMPLOYEE) == []
        forged = await here.approvals.decide("acme", approval_id, approved=True, decider=EMPLOYEE)
        assert (forged.outcome, forged.resume) == (pb.DECIDE_OUTCOME_NOT_ALLOWED, False)
        assert connector.writes() == []
        decided = await here.approvals.decide("acme", approval_id, approved=True, decider=BOSS)
        assert (decided.outcome, decided.resume) == (pb.DECIDE_OUTCOME_DECIDED, True)
        here.approvals.resume("acme", decided)
        assert (await here.until("final"))["text"] == "done"
        assert (await here.until("resumed"))["worker"] == "w2"
        assert connector.writes() == ["r1/s1"]


async def test_the_answer_of_a_run_that_another_gateway_resumed_is_told_here_too(tmp_path: Path) -> None:
    model = FakeModel([asks_for("fake.thing.write", name="x")], [text("done")])
    async with bench(tmp_path, model, FakeConnector(), ASKS_MANAGER) as here:
        run, ending = here.ask()
        (approval_id,) = (await asyncio.wait_for(ending, 8))["approval_ids"]
        here.approvals.parked(run)
        other = Approvals(dispatcher=here.dispatcher, settings=here.settings, metrics=here.metrics)
        other.resume("acme", await other.decide("acme", approval_id, approved=True, decider=BOSS))
        async with asyncio.timeout(8):
            while other.live("acme", "s"):  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.02)
        assert "final" not in [body["type"] for body in here.read]
        here.approvals.heard(ev.RunEvent(tenant="acme", session_id="s", run_id="r1", run_finished=ev.RunFinished()))
        assert (await here.until("final"))["text"] == "done"
        await other.close()
