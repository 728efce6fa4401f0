"""Runs between real gRPC channels and fake workers in this process; no store, no WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pilothouse_dataplane.gateway.approvals import Approvals
from pilothouse_dataplane.gateway.channels import ChannelPool
from pilothouse_dataplane.gateway.dispatch import Dispatcher
from pilothouse_dataplane.gateway.metrics import Metrics
from pilothouse_dataplane.gateway.runs import Run
from pilothouse_dataplane.gateway.settings import Settings
from pilothouse_dataplane.gateway.workers import Directory, TenantRef, Worker
from pilothouse_proto.agent.v1 import agent_pb2 as pb
from pilothouse_testing.gateway_fakes import FakeAgent, FakeLedger, MemorySessions

ANA = pb.User(subject="ana", email="ana@acme.example")


@dataclass
class Asked:
    """A run under way, and what its client has got."""

    run: Run
    events: list[dict[str, Any]]
    ending: asyncio.Task[dict[str, Any]]
    _grown: asyncio.Event

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]

    async def until(self, kind: str) -> None:
        async with asyncio.timeout(5):
            while kind not in self.kinds():
                self._grown.clear()
                await self._grown.wait()

    async def end(self, seconds: float = 5) -> dict[str, Any]:
        async with asyncio.timeout(seconds):
            last = await self.ending
        self.events.append(last)
        return last


@dataclass
class Bench:
    settings: Settings
    directory: Directory
    pool: ChannelPool
    dispatcher: Dispatcher
    approvals: Approvals
    metrics: Metrics
    ledger: FakeLedger = field(default_factory=FakeLedger)
    agents: dict[str, FakeAgent] = field(default_factory=dict)
    _number: int = 0

    async def worker(self, name: str, *, revision: str = "r1", ready: bool = True) -> FakeAgent:
        agent = self.agents[name] = FakeAgent(name, self.ledger)
        self.show(name, await agent.start(), revision=revision, ready=ready)
        return agent

    def show(self, name: str, port: int, *, revision: str = "r1", ready: bool = True) -> None:
        worker = Worker("acme", "acme", name, f"uid-{name}", "127.0.0.1", revision, ready, port)
        self.directory.table.put_worker(("acme", name), worker)
        self.directory.announce()

    def ask(self, text: str, session: str = "s1") -> Asked:
        self._number += 1
        events: list[dict[str, Any]] = []
        grown = asyncio.Event()

        async def emit(body: dict[str, Any]) -> None:
            events.append(body)
            grown.set()

        run = Run(
            pb.Ask(tenant="acme", session_id=session, run_id=f"run{self._number}", user=ANA, text=text),
            dispatcher=self.dispatcher,
            settings=self.settings,
            metrics=self.metrics,
            emit=emit,
        )
        return Asked(run, events, asyncio.create_task(run.execute()), grown)


@pytest.fixture
async def bench() -> AsyncIterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def build(**changes: Any) -> Bench:
        plain = Settings(pod_ip="127.0.0.1", redis_url="", dev_token_key_file=Path())
        settings = replace(plain, **{"no_worker_wait": 2.0, "takeover_wait": 2.0, "action_wait": 0.3, **changes})
        directory, metrics = Directory(), Metrics()
        directory.table.put_tenant(TenantRef("acme", "acme", "acme", "2026"))
        pool = ChannelPool(probe_interval=settings.probe_interval, silence=settings.worker_silence)
        dispatcher = Dispatcher(directory, MemorySessions(), pool, wait=settings.no_worker_wait)
        approvals = Approvals(dispatcher=dispatcher, settings=settings, metrics=metrics)
        made.append(Bench(settings, directory, pool, dispatcher, approvals, metrics))
        return made[-1]

    yield build
    for one in made:
        await one.approvals.close()
        for agent in one.agents.values():
            await agent.stop()
        await one.pool.close()
