"""The reader of event streams against a real Valkey."""

from __future__ import annotations

import asyncio
from pathlib import Path

from redis.asyncio import Redis

from pilothouse_api import names
from pilothouse_dataplane.gateway.fleet.consumer import Consumer
from pilothouse_dataplane.gateway.fleet.hub import Hub
from pilothouse_dataplane.gateway.fleet.projection import Projection
from pilothouse_dataplane.gateway.metrics import Metrics
from pilothouse_dataplane.gateway.workers import Directory, TenantRef
from pilothouse_proto.events.v1 import events_pb2 as ev
from pilothouse_testing.servers import free_port, valkey


async def test_the_reader_starts_at_the_beginning_and_survives_a_restart_of_the_store(tmp_path: Path) -> None:
    port, directory, projection = free_port(), Directory(), Projection()
    directory.table.put_tenant(TenantRef("acme", "acme", "u", ""))
    redis: Redis = Redis.from_url(f"redis://127.0.0.1:{port}/0", socket_timeout=5)
    ready = asyncio.Event()
    ready.set()
    reader = Consumer(redis, directory, projection, Hub(), Metrics())

    async def add(session: str) -> None:
        event = ev.RunEvent(tenant="acme", session_id=session, run_id="r1", run_started=ev.RunStarted(text="hi"))
        await redis.xadd(names.events_key("acme"), {"e": event.SerializeToString()})

    async def seen(session: str) -> None:
        async with asyncio.timeout(10):
            while projection.session("acme", session) is None:  # noqa: ASYNC110 - no event, by design
                await asyncio.sleep(0.02)

    with valkey(tmp_path, port):
        await add("old")
        await redis.xadd(names.events_key("acme"), {"e": b"\xff\xff broken"})
        await redis.xadd(names.events_key("acme"), {"x": b"no event"})
        await add("old2")
        task = asyncio.create_task(reader.run(ready))
        await seen("old2")
        await asyncio.sleep(0.1)
        assert reader.synced
    with valkey(tmp_path, port):
        await add("after")
        await seen("after")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await redis.aclose()
