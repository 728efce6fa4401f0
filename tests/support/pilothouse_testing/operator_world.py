"""A scene with its children and workers, decided on as the operator does: for tests of the pure decisions."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pilothouse_api.egress import EgressRule
from pilothouse_api.workerconfig import WorkerConfig
from pilothouse_operator.core.config import Platform, Stores
from pilothouse_operator.core.credentials import VaultState
from pilothouse_operator.core.readiness import ConnectorReport, Worker, WorkerReport
from pilothouse_operator.core.resources import Key
from pilothouse_operator.core.tenant import Decision, TenantView, decide
from pilothouse_testing.builders import Modifier, Scene, tenant, with_replicas

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
STORES = Stores(
    redis_url="redis://127.0.0.1:6390/0",
    database_url="postgresql://pilothouse_worker:p@primary.stores.svc:5433,standby.stores.svc/pilothouse",
)
PLATFORM = Platform(
    image="pilothouse:test",
    pull_policy="Never",
    stores=STORES,
    egress=EgressRule(allow_hosts=("*.pilothouse-sim.svc",)),
    public_url="https://pilothouse.example",
    vault_addresses=("https://vault.example:8200",),
)
Json = dict[str, Any]


class World:
    """Applies decisions to a scene as the API server would, so that a test can decide again."""

    def __init__(self, scene: Scene, platform: Platform = PLATFORM) -> None:
        self.scene = scene
        self.exists = True
        self.children: dict[str, Json] = {}
        self.workers: tuple[Worker, ...] = ()
        self.reports: dict[str, WorkerReport] = {}
        self.now = NOW
        self.platform = platform
        self.vault: VaultState | None = None

    def decide(self) -> Decision:
        """What is decided now, without applying it."""
        view = TenantView(
            key=Key("Tenant", self.scene.namespace, self.scene.name),
            platform=self.platform,
            tenant=self.scene.tenant if self.exists else None,
            connectors=tuple(self.scene.connectors),
            route=self.scene.route,
            secrets=self.scene.secrets,
            config_maps=self.scene.config_maps,
            children=self.children,
            workers=self.workers,
            reports=self.reports,
            vault=self.vault,
        )
        return decide(view, self.now, self.random_bytes)

    def random_bytes(self, count: int) -> bytes:
        """The same each time, so that a test sees where it went."""
        return b"k" * count

    def step(self) -> Decision:
        """Decide and apply; what must be created first is there afterwards."""
        decision = self.decide()
        for created in decision.creates:
            content = {key: base64.b64decode(value) for key, value in created["data"].items()}
            self.scene.secrets[created["metadata"]["name"]] = content
        if decision.creates:
            decision = self.decide()
        for child in decision.children:
            before = self.children.get(child["kind"])
            generation = 1 if before is None else before["metadata"].get("generation", 1) + 1
            meta = {**child["metadata"], "generation": generation}
            self.children[child["kind"]] = {**child, "metadata": meta}
        for status in decision.statuses:
            for raw in (self.scene.tenant, *self.scene.connectors):
                if (raw["kind"], raw["metadata"]["name"]) == (status["kind"], status["metadata"]["name"]):
                    raw["status"] = status["status"]
        return decision

    def run_workers(
        self,
        count: int,
        config_hash: str | None = None,
        connectors: tuple[ConnectorReport, ...] = (),
        credentials_error: str = "",
    ) -> None:
        """The Deployment is rolled out; each worker reports ``config_hash`` (default: the one wanted)."""
        deployment = self.children["Deployment"]
        deployment["status"] = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": count,
            "updatedReplicas": count,
        }
        status = self.scene.tenant["status"]
        self.workers = tuple(Worker(f"w{i}", f"127.0.0.{i + 1}", True, False, status["revision"]) for i in range(count))
        config = config_hash or status["configHash"]
        report = WorkerReport(config, self.scene.name, connectors=connectors, credentials_error=credentials_error)
        self.reports = {worker.name: report for worker in self.workers}

    def say(self, *connectors: ConnectorReport, **said: Any) -> None:
        """Every worker says this of its connectors and credentials from now on."""
        self.reports = {name: replace(report, connectors=connectors, **said) for name, report in self.reports.items()}

    def condition(self, type_: str, raw: Json | None = None) -> Json:
        """A condition of the Tenant, or of the object given."""
        conditions = (raw or self.scene.tenant)["status"]["conditions"]
        return next(c for c in conditions if c["type"] == type_)

    def config(self) -> WorkerConfig:
        """What the workers shall load."""
        return WorkerConfig.model_validate_json(self.files()["config.json"])

    def files(self) -> dict[str, bytes]:
        """The files of the workers' Secret."""
        return {key: base64.b64decode(value) for key, value in self.children["Secret"]["data"].items()}


def ready_world(*modifiers: Modifier, workers: int = 1, platform: Platform = PLATFORM) -> World:
    """A Tenant ``acme`` whose workers have confirmed its configuration."""
    world = World(tenant("acme", with_replicas(workers), *modifiers), platform)
    world.step()
    world.run_workers(workers)
    world.step()
    return world
