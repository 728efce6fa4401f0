"""The loop against an API server in memory: what is created once, and what is asked of workers when nothing happens."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable

import pytest

from pilothouse_api.workerconfig import digest
from pilothouse_operator.core.readiness import ConnectorReport, Worker, WorkerReport
from pilothouse_operator.core.resources import BY_KIND, Json, Resource
from pilothouse_operator.io import controller as module
from pilothouse_operator.io.controller import Controller
from pilothouse_operator.io.kube import Kube, KubeError
from pilothouse_operator.manifests.vault import VaultAccess
from pilothouse_operator.settings import Settings
from pilothouse_testing.builders import Scene, secret, tenant, with_connector, with_vault
from pilothouse_testing.operator_world import PLATFORM

Place = tuple[str, str]


class Cluster(Kube):
    """The API, the Deployment's controller and the workers of one namespace."""

    def __init__(self, scene: Scene) -> None:
        self.objects: dict[Place, Json] = {}
        self.writes: list[str] = []
        self.reachable: bool | None = True
        self.asked = 0
        self._version = 0
        for raw in scene.objects():
            self.put(raw)

    def put(self, raw: Json) -> Json:
        self._version += 1
        stored = {**raw, "metadata": {**raw["metadata"], "resourceVersion": str(self._version)}}
        self.objects[raw["kind"], raw["metadata"]["name"]] = stored
        return stored

    async def list(self, resource: Resource, *, labels: str = "", fields: str = "") -> list[Json]:
        assert resource.kind in BY_KIND
        return [raw for (kind, _), raw in self.objects.items() if kind == resource.kind]

    async def get(self, resource: Resource, namespace: str, name: str) -> Json | None:
        return self.objects.get((resource.kind, name))

    async def create(self, body: Json) -> Json:
        place = (body["kind"], body["metadata"]["name"])
        if place in self.objects:
            raise KubeError("already there", 409, "AlreadyExists")
        self.writes.append(f"create {place[1]}")
        return self.put(body)

    async def apply(self, body: Json) -> Json:
        self.writes.append(f"apply {body['kind']}")
        stored = self.put({**body, "metadata": {**body["metadata"], "generation": 1}})
        if body["kind"] == "Deployment":
            stored["status"] = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1}
            labels = body["spec"]["template"]["metadata"]["labels"]
            status = {"podIP": "127.0.0.9", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            meta = {"name": "w0", "namespace": body["metadata"]["namespace"], "labels": labels}
            self.put({"kind": "Pod", "metadata": meta, "status": status})
        return stored

    async def apply_status(self, body: Json) -> Json:
        place = (body["kind"], body["metadata"]["name"])
        self.writes.append(f"status {place[0]}")
        return self.put({**self.objects[place], "status": body["status"]})

    async def ask(self, workers: Iterable[Worker]) -> dict[str, WorkerReport]:
        """Each worker runs what is in its Secret."""
        found = list(workers)
        if not found:
            return {}
        self.asked += 1
        said = WorkerReport(digest(self.files()), "acme", connectors=(ConnectorReport("jira", 7, self.reachable),))
        return {worker.name: said for worker in found}

    def files(self) -> dict[str, bytes]:
        return {name: base64.b64decode(value) for name, value in self.objects["Secret", "acme-worker"]["data"].items()}

    def condition(self, kind: str, name: str, type_: str) -> str:
        conditions = (self.objects[kind, name].get("status") or {}).get("conditions") or []
        return next((c["status"] for c in conditions if c["type"] == type_), "")


class Vault:
    """Remembers what it holds."""

    def __init__(self) -> None:
        self.holds: dict[str, VaultAccess] = {}

    async def ensure(self, access: VaultAccess) -> bool:
        self.holds[access.policy_name] = access
        return True

    async def remove(self, access: VaultAccess) -> None:
        self.holds.pop(access.policy_name, None)

    async def close(self) -> None: ...


@contextlib.asynccontextmanager
async def operating(cluster: Cluster, vault: Vault | None = None) -> AsyncIterator[Controller]:
    controller = Controller(Settings(PLATFORM), cluster, cluster.ask, vault or Vault(), random_bytes=lambda n: b"k" * n)
    await controller.start()
    try:
        yield controller
    finally:
        await controller.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what it waits for is many things
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_SECONDS", 0.05)


def served(cluster: Cluster, controller: Controller) -> bool:
    """Ready, once the Pod's event has come."""
    pod = cluster.objects.get(("Pod", "w0"))
    if pod is not None:
        controller.observe(pod, deleted=False)
    return cluster.condition("Tenant", "acme", "Ready") == "True"


async def test_keys_are_created_before_anything_uses_them_and_never_again() -> None:
    cluster = Cluster(tenant("acme", with_connector("jira")))
    async with operating(cluster) as controller:
        await until(lambda: served(cluster, controller))
    assert cluster.writes[0] == "create acme-account-keys"
    assert cluster.files()["secret.acme-account-keys.key.1"] == base64.b64encode(b"k" * 32)

    cluster.writes.clear()
    async with operating(cluster) as controller:
        await until(lambda: cluster.asked > 5)
        await asyncio.sleep(0.2)
    assert cluster.writes == []


async def test_keys_that_are_there_and_were_not_seen_are_taken_and_not_written_over() -> None:
    cluster = Cluster(tenant("acme", with_connector("jira")))
    mine = base64.b64encode(b"m" * 32)
    cluster.put(secret("acme-account-keys", "acme", {"key.1": mine}))
    everything = cluster.list

    async def earlier(resource: Resource, *, labels: str = "", fields: str = "") -> list[Json]:
        """As before somebody restored the keys."""
        found = await everything(resource, labels=labels, fields=fields)
        return [raw for raw in found if raw["metadata"]["name"] != "acme-account-keys"]

    cluster.list = earlier  # type: ignore[method-assign]
    async with operating(cluster) as controller:
        await until(lambda: served(cluster, controller))
    assert "create acme-account-keys" not in cluster.writes
    assert cluster.files()["secret.acme-account-keys.key.1"] == mine


async def test_workers_are_asked_now_and_then_and_only_news_is_written() -> None:
    cluster = Cluster(tenant("acme", with_connector("jira")))
    async with operating(cluster) as controller:
        await until(lambda: served(cluster, controller))
        await until(lambda: cluster.condition("Connector", "jira", "Reachable") == "True")
        await asyncio.sleep(0.1)  # statuses that follow from one another
        cluster.writes.clear()
        asked = cluster.asked
        await until(lambda: cluster.asked > asked + 5)
        assert cluster.writes == []

        cluster.reachable = False
        await until(lambda: cluster.condition("Connector", "jira", "Reachable") == "False")
        assert cluster.writes == ["status Connector"]
        cluster.reachable = True
        await until(lambda: cluster.condition("Connector", "jira", "Reachable") == "True")


async def test_rights_in_vault_follow_the_tenant() -> None:
    scene = tenant("acme", with_vault())
    cluster, vault = Cluster(scene), Vault()
    async with operating(cluster, vault) as controller:
        await until(lambda: "pilothouse-acme.acme" in vault.holds)
        assert ("Secret", "acme-account-keys") not in cluster.objects
        gone = cluster.objects.pop(("Tenant", "acme"))
        controller.observe(gone, deleted=True)
        await until(lambda: not vault.holds)


async def test_a_vault_server_that_is_not_the_operators_is_never_asked() -> None:
    cluster, vault = Cluster(tenant("acme", with_vault("https://attacker.example"))), Vault()
    async with operating(cluster, vault) as controller:
        await until(lambda: served(cluster, controller))
        await asyncio.sleep(0.1)
    assert vault.holds == {}
