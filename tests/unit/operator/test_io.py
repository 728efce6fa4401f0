"""The queue's and the cache's promises."""

from __future__ import annotations

import asyncio
from typing import Any

from pilothouse_operator.core.resources import Key
from pilothouse_operator.io.cache import Cache
from pilothouse_operator.io.queue import DirtyQueue
from pilothouse_testing.builders import connector, secret

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
