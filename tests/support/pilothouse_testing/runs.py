"""A tenant's workers without gRPC and without stores: drivers over fakes, a ledger in memory, and what a client reads.

Time in the ledger stands still unless a test moves it (``tenant.store.advance``); everything else runs in real time, so
scripts wait for hundredths of seconds only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pilothouse_api.names import PLAN_STEP
from pilothouse_api.workerconfig import WorkerConfig
from pilothouse_dataplane.connectors.toolset import Toolset
from pilothouse_dataplane.core.guard import GuardRegistry
from pilothouse_dataplane.credentials.base import CredentialSource
from pilothouse_dataplane.ledger.base import Asker, Ledger, NewRun
from pilothouse_dataplane.models.gateway import ModelGateway, Router
from pilothouse_dataplane.models.limits import Limits
from pilothouse_dataplane.models.response_cache import ResponseCache
from pilothouse_dataplane.worker.begin import Wanted
from pilothouse_dataplane.worker.driver import RunDriver
from pilothouse_dataplane.worker.runtime import Runtime, link_page
from pilothouse_dataplane.worker.stream import ClientStream
from pilothouse_dataplane.worker.tracing import NoTracing, Tracing
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_proto.events.v1 import events_pb2 as events
from pilothouse_testing.fakes import FakeBreakers, FakeConnector, FakeEvents, FakeLocks, FakeMemory, FakeModel
from pilothouse_testing.ledger import MemoryLedger, MemoryStore

Json = dict[str, Any]
QUESTION = "do x, y, one, two one and three"
"""Names the values of the tests' writes: what the user did not write waits for approval."""
EMPLOYEE = Asker("1", "employee@acme.example", "Em Ployee", "boss@acme.example", ("staff",))


def worker_config(**changes: Any) -> Json:
    """A worker's config.json: one provider, the connector ``fake``, ten seconds."""
    return {
        "tenant": "acme",
        "namespace": "acme",
        "display_name": "Acme",
        "revision": "r1",
        "agent": {"instructions": "Help.", "max_steps": 4, "deadline_seconds": 10},
        "route": {
            "providers": [{"name": "local", "type": "OpenAI", "base_url": "http://127.0.0.1:9/v1"}],
            "tiers": {"mid": [{"provider": "local", "model": "m", "input_price_per_1k": "0.01"}]},
            "default_tier": "mid",
        },
        "connectors": [fake_connector()],
        **changes,
    }


def fake_connector(**changes: Any) -> Json:
    """The connector ``fake``; its look-ups prove absence after a tenth of a second."""
    return {
        "name": "fake",
        "type": "openapi",
        "url": "http://127.0.0.1:9",
        "auth_mode": "UserOAuth",
        "timeout_seconds": 0.1,
        "attempts": 1,
        **changes,
    }


@dataclass
class Told:
    """What a client was sent."""

    stream: ClientStream
    driver: RunDriver
    task: asyncio.Task[None]
    events: list[agent.ConverseEvent] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        return [str(event.WhichOneof("event")) for event in self.events]

    @property
    def last(self) -> agent.ConverseEvent:
        return self.events[-1]

    def of(self, kind: str) -> list[Any]:
        """The events of one kind; of steps, those that call a tool."""
        found = [getattr(event, kind) for event in self.events if event.WhichOneof("event") == kind]
        return [event for event in found if getattr(event, "step_id", "") != PLAN_STEP]

    @property
    def text(self) -> str:
        """The answer."""
        return self.last.final.text

    async def end(self) -> Told:
        """Until the stream has ended and the driver, too."""
        async with asyncio.timeout(20):
            await self.reader
            await self.task
        return self

    def listen(self) -> Told:
        """Begin to read."""

        async def read() -> None:
            async for event in self.stream:
                self.events.append(event)

        self.reader = asyncio.create_task(read())
        return self


class FakeTenant:
    """Workers of one tenant that share a ledger, a model, a connector, a memory and an event sink."""

    def __init__(
        self,
        model: FakeModel,
        connector: FakeConnector | None = None,
        config: Json | None = None,
        tracing: Tracing | None = None,
        sources: Mapping[str, CredentialSource] | None = None,
        providers: Mapping[str, FakeModel] | None = None,
        router: Router | None = None,
        limits: Limits | None = None,
        cache: ResponseCache | None = None,
    ) -> None:
        """``providers``: those beside ``local``, which is ``model``."""
        self.sources = sources or {}
        self.providers = providers or {}
        self.router = router
        self.limits = limits
        self.cache = cache
        self.model = model
        self.connector = connector or FakeConnector()
        self.config = WorkerConfig.model_validate(config or worker_config())
        self.store = MemoryStore()
        self.memory = FakeMemory()
        self.sink = FakeEvents()
        self.locks = FakeLocks()
        self.breakers = FakeBreakers()
        self.tracing = tracing or NoTracing()
        self.runtimes: dict[str, Runtime] = {}

    def runtime(self, worker: str = "w1", ledger: Ledger | None = None) -> Runtime:
        """The runtime of one worker."""
        if worker not in self.runtimes:
            self.runtimes[worker] = self.build(self.config, "", worker, GuardRegistry(time.monotonic), ledger)
        return self.runtimes[worker]

    def build(
        self, config: WorkerConfig, hash: str, worker: str, guards: GuardRegistry, ledger: Ledger | None = None
    ) -> Runtime:
        """A runtime of that configuration over this tenant's fakes."""
        connectors = {each.name: (each, self.connector) for each in config.connectors}
        return Runtime(
            config=config,
            hash=hash,
            models=ModelGateway(
                config.route,
                {"local": self.model, **self.providers},
                guards,
                clock=time.monotonic,
                random=lambda: 0.5,
                router=self.router,
                limits=self.limits,
                cache=self.cache,
            ),
            toolset=Toolset(
                connectors,
                guards,
                clock=time.monotonic,
                random=lambda: 0.5,
                sources=self.sources,
                link_url=link_page(config.public_url, {c.name for c in config.connectors if c.oauth is not None}),
                tenant=config.tenant,
            ),
            memory=self.memory,
            events=self.sink,
            ledger=ledger or MemoryLedger(self.store, worker),
            breakers=self.breakers,
            locks=self.locks,
            limits=self.limits,
        )

    def ask(self, text: str = QUESTION, run_id: str = "r1", worker: str = "w1", lost: str = "") -> Told:
        """A client asks a worker."""
        new = NewRun(run_id, "s", EMPLOYEE, text, self.config.revision)
        return self._drive(Wanted(run_id, new, lost), worker)

    def resume(self, run_id: str = "r1", worker: str = "w1", lost: str = "") -> Told:
        """A front door sends Resume."""
        return self._drive(Wanted(run_id, lost_worker=lost), worker)

    def _drive(self, wanted: Wanted, worker: str) -> Told:
        stream = ClientStream(wanted.run_id)
        driver = RunDriver(self.runtime(worker), wanted, worker, self.tracing, stream)
        return Told(stream, driver, asyncio.create_task(driver.run())).listen()

    def published(self, kind: str) -> list[Any]:
        """The events of one kind."""
        found = [events.RunEvent.FromString(data) for data in self.sink.published]
        return [getattr(event, kind) for event in found if event.WhichOneof("event") == kind]
