"""The queue's and the cache's promises."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime
from typing import Any

from pilothouse_operator.core.readiness import ConnectorReport, WorkerReport
from pilothouse_operator.core.resources import Key
from pilothouse_operator.io.cache import Cache
from pilothouse_operator.io.gather import Gatherer
from pilothouse_operator.io.kube import Kube
from pilothouse_operator.io.queue import DirtyQueue
from pilothouse_operator.io.workers import report_of
from pilothouse_proto.agent.v1 import agent_pb2
from pilothouse_testing.builders import config_map, connector, secret, tenant, with_system
from pilothouse_testing.operator_world import PLATFORM

ACME, GLOBEX = Key("Tenant", "acme", "acme"), Key("Tenant", "globex", "globex")


def at(raw: dict[str, Any], version: int) -> dict[str, Any]:
    return {**raw, "metadata": {**raw["metadata"], "resourceVersion": str(version)}}


async def test_a_key_is_queued_once_and_never_worked_on_twice_at_a_time() -> None:
    queue = DirtyQueue()
    queue.add(ACME)
    queue.add(ACME)
    queue.add(GLOBEX)
    assert [await queue.get(), await queue.get()] == [ACME, GLOBEX]
    queue.add(ACME)  # changed while it is worked on
    assert queue.depth() == 2
    queue.done(GLOBEX)
    queue.done(ACME)
    assert await asyncio.wait_for(queue.get(), 1) == ACME


async def test_an_earlier_timer_wins_and_a_change_beats_both() -> None:
    queue = DirtyQueue()
    queue.add_after(ACME, 30)
    queue.add_after(ACME, 0.01)
    assert await asyncio.wait_for(queue.get(), 1) == ACME
    queue.done(ACME)
    queue.add_after(ACME, 30)
    queue.add(ACME)
    assert await asyncio.wait_for(queue.get(), 1) == ACME
    queue.close()


def test_an_older_version_never_replaces_a_newer_one() -> None:
    cache, jira = Cache(), connector("jira", "acme", "acme")
    assert cache.put(at(jira, 7))
    assert not cache.put(at(jira, 6))
    assert not cache.put(at(jira, 7))
    assert cache.put(at(jira, 8))
    assert [c["metadata"]["name"] for c in cache.grouped("Connector", "acme", "acme")] == ["jira"]


def test_a_list_mends_a_missed_deletion_but_not_what_came_after_it_began() -> None:
    cache = Cache()
    cache.put(connector("gone", "acme", "acme"))
    cache.put(connector("kept", "acme", "acme"))
    mark = cache.mark()
    cache.put(connector("new", "acme", "acme"))
    cache.drop("Connector", "acme", "kept")
    cache.replace("Connector", [connector("kept", "acme", "acme")], mark)
    assert [c["metadata"]["name"] for c in cache.all("Connector")] == ["new"]
    assert [c["metadata"]["name"] for c in cache.grouped("Connector", "acme", "acme")] == ["new"]


def test_peoples_secrets_are_kept_only_when_something_refers_to_them() -> None:
    cache = Cache()
    assert not cache.put(secret("other", "acme", {"password": b"x"}))
    cache.wanted.add(("Secret", "acme", "wanted"))
    assert cache.put(secret("wanted", "acme", {"token": b"x"}))
    assert [s["metadata"]["name"] for s in cache.all("Secret")] == ["wanted"]


def test_config_maps_are_kept_only_when_something_refers_to_them_whoever_made_them() -> None:
    cache = Cache()
    ours = config_map("ours", "acme", {"a": b"x"})
    ours["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "pilothouse-operator"}
    assert not cache.put(ours)
    cache.wanted.add(("Secret", "acme", "docs"))  # a Secret of that name is another object
    assert not cache.put(config_map("docs", "acme", {"a": b"x"}))
    cache.wanted.add(("ConfigMap", "acme", "docs"))
    assert cache.put(config_map("docs", "acme", {"a": b"x"}))


class FakeKube(Kube):
    """Gives what it holds, and counts."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.objects = {(raw["kind"], raw["metadata"]["name"]): raw for raw in objects}
        self.read: list[str] = []

    async def get(self, resource: Any, namespace: str, name: str) -> dict[str, Any] | None:
        self.read.append(name)
        return self.objects.get((resource.kind, name))


async def test_a_view_holds_what_the_objects_refer_to_read_once_and_then_kept_current() -> None:
    api = {"document": {"configMapKeyRef": {"name": "docs", "key": "api.json"}}}
    auth = {"mode": "ServiceAccount", "serviceAccount": {"tokenSecretRef": {"name": "kb"}}}
    scene = tenant("acme", with_system("kb", type="openapi", url="https://kb.example", auth=auth, openapi=api))
    docs = config_map("docs", "acme", {"api.json": b"{}"})
    docs["binaryData"] = {"raw": base64.b64encode(b"\xff").decode()}
    kube, cache = FakeKube(docs, secret("kb", "acme", {"token": b"t"})), Cache()
    for raw in (scene.tenant, *scene.connectors):
        cache.put(raw)

    async def nobody(_: object) -> dict[str, WorkerReport]:
        return {}

    gatherer = Gatherer(cache, kube, PLATFORM, nobody, lambda _: None)
    view = await gatherer.tenant(ACME)
    assert view.config_maps == {"docs": {"api.json": b"{}", "raw": b"\xff"}}
    assert view.secrets == {"kb": {"token": b"t"}}
    assert sorted(kube.read) == ["acme-account-keys", "docs", "kb"]

    changed = at(config_map("docs", "acme", {"api.json": b"new"}), 9)
    cache.put(changed)
    assert ACME in gatherer.affected(changed)
    view = await gatherer.tenant(ACME)
    assert view.config_maps["docs"]["api.json"] == b"new"
    assert len(kube.read) == 3


def test_a_workers_report_leaves_out_what_changes_while_nothing_does() -> None:
    said = agent_pb2.GetStatusResponse(config_hash="h", tenant="acme")
    reached = said.connectors.add(name="okta", tools=3, reachable=agent_pb2.REACHABILITY_REACHABLE, message="in 12 ms")
    reached.probed.FromDatetime(datetime(2026, 11, 23, tzinfo=UTC))
    said.connectors.add(name="jira", reachable=agent_pb2.REACHABILITY_UNREACHABLE, message="No answer.", problem="p")
    said.connectors.add(name="new", reachable=agent_pb2.REACHABILITY_UNKNOWN)
    said.credentials_error = "Vault is sealed."
    said.credentials_until.FromDatetime(datetime(2026, 11, 23, 12, 0, 0, 5, tzinfo=UTC))

    assert report_of(said) == WorkerReport(
        "h",
        "acme",
        None,
        (
            ConnectorReport("jira", 0, False, "No answer.", "p"),
            ConnectorReport("new"),
            ConnectorReport("okta", 3, True),
        ),
        "Vault is sealed.",
        datetime(2026, 11, 23, 12, tzinfo=UTC),
    )
    assert report_of(agent_pb2.GetStatusResponse()).credentials_until is None
