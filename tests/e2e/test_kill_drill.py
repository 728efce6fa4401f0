"""Each part of the stack is killed under a conversation, which goes on; nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import redis

from pilothouse_api.names import SYSTEM_NAMESPACE, session_key
from pilothouse_testing.cluster import LocalCluster
from pilothouse_testing.stack import TENANT, Demonstrated, answer, chat, pod_processes
from pilothouse_tui.data.chat import ChatConnection
from pilothouse_tui.errors import ToolError

pytestmark = pytest.mark.timeout(600)
WHOLE_AGAIN_WITHIN = 30.0
"""Seconds from the kill to the next answer in the same conversation."""


def victims(cluster: LocalCluster, part: str) -> list[int]:
    """The process ids of one part of this instance."""
    if part == "valkey":
        identity = cluster.view().identity("valkey")
        return [] if identity is None else [identity.pid]
    namespace, module = {
        "worker": (TENANT, "pilothouse_dataplane.worker"),
        "gateway": (SYSTEM_NAMESPACE, "pilothouse_dataplane.gateway"),
        "operator": (SYSTEM_NAMESPACE, "pilothouse_operator"),
    }[part]
    return pod_processes(cluster, namespace, module)


def kept_messages(cluster: LocalCluster, session: str) -> list[bytes]:
    """What the store holds of a conversation."""
    with redis.Redis.from_url(cluster.settings().redis_url()) as store:
        kept: list[bytes] = store.lrange(session_key(TENANT, session, "short"), 0, -1)  # type: ignore[assignment]
        return kept


async def answered(connection: ChatConnection, text: str, until: float) -> Mapping[str, Any]:
    """Asks, and does what a person does who is told to try again: connects and asks again until ``until``."""
    last: Mapping[str, Any] = {}
    while time.monotonic() < until:
        try:
            if not connection.connected:
                await connection.connect()
            last = await answer(connection, text)
        except (ToolError, OSError) as error:
            last = {"type": "unreachable", "message": str(error)}
        if last.get("type") == "final":
            break
        await asyncio.sleep(0.5)
    return last


@pytest.fixture(autouse=True)
def evidence(demonstrated: Demonstrated) -> Iterator[None]:
    """Shown by pytest where a drill fails: what runs, and what the node said."""
    yield
    cluster, _ = demonstrated
    print(cluster.run("status").stdout)
    print("\n".join(cluster.instance.log("node").read_text(errors="replace").splitlines()[-60:]))


@pytest.mark.parametrize("part", ["worker", "operator", "gateway", "valkey"])
async def test_a_killed_part_comes_back_and_nothing_acknowledged_is_lost(demonstrated: Demonstrated, part: str) -> None:
    cluster, _ = demonstrated
    async with chat(cluster) as connection:
        # given a conversation with an answer
        before = await answered(connection, "show IT-1", time.monotonic() + WHOLE_AGAIN_WITHIN)
        assert before["type"] == "final", before
        session = connection.session_id
        assert session is not None
        kept = kept_messages(cluster, session)
        assert kept, "the answer was given before it was stored"
        # when a part is killed
        (process,) = victims(cluster, part)
        os.kill(process, signal.SIGKILL)
        killed_at = time.monotonic()
        # then the same conversation is answered again in time, by itself
        after = await answered(connection, "show IT-2", killed_at + WHOLE_AGAIN_WITHIN)
        assert after["type"] == "final", after
        assert "IT-2" in after["text"]
        assert connection.session_id == session
        # and what was acknowledged before is still there, in order
        assert kept_messages(cluster, session)[: len(kept)] == kept
        # and the part itself runs again
        while not (again := victims(cluster, part)) or process in again:
            assert time.monotonic() < killed_at + WHOLE_AGAIN_WITHIN, f"{part} did not come back"
            await asyncio.sleep(0.5)
