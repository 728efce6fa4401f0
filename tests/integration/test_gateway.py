"""The real gateway process between a real Valkey, a fake API server and fake workers at their real port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from redis.asyncio import Redis

from pilothouse_api import names
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_proto.events.v1 import events_pb2 as ev
from pilothouse_proto.fleet.v1 import fleet_pb2, fleet_pb2_grpc
from pilothouse_testing.gateway_fakes import (
    FLEET_TOKEN,
    SIGNING_KEY,
    Chat,
    FakeAgent,
    FakeKube,
    loopback,
    pod,
    tenant_object,
    token,
)
from pilothouse_testing.servers import valkey

MAX_RSS_MB = 110


@dataclass
class Stack:
    kube: FakeKube
    agent: FakeAgent
    process: asyncio.subprocess.Process
    redis_url: str
    ip: str

    @property
    def http(self) -> str:
        return f"http://{self.ip}:{names.GATEWAY_HTTP_PORT}"

    @property
    def fleet(self) -> str:
        return f"{self.ip}:{names.GATEWAY_FLEET_PORT}"

    def rss_mb(self) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    key, ip, worker_ip = tmp_path / "key", loopback(), loopback()
    key.write_bytes(SIGNING_KEY)
    kube, worker = FakeKube(), FakeAgent("acme-worker-1")
    await worker.start(worker_ip, names.WORKER_GRPC_PORT)
    kube.put("tenants", tenant_object("acme"))
    kube.put("pods", pod("acme", "acme-worker-1", worker_ip))
    url = await kube.start()
    with valkey(tmp_path) as redis_url:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "pilothouse_dataplane.gateway",
            env={
                "PATH": os.environ["PATH"],
                "POD_IP": ip,
                "PILOTHOUSE_REDIS_URL": redis_url,
                "PILOTHOUSE_DEV_TOKEN_KEY_FILE": str(key),
                "KUBECONFIG": str(kube.kubeconfig(url, tmp_path / "kubeconfig")),
            },
        )
        made = Stack(kube, worker, process, redis_url, ip)
        try:
            await _until_ready(made)
            yield made
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
            await worker.stop()
            await kube.stop()


async def _until_ready(stack: Stack) -> None:
    async with asyncio.timeout(15), aiohttp.ClientSession() as http:
        while True:
            assert stack.process.returncode is None, "the gateway ended"
            try:
                async with http.get(f"{stack.http}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)


def _event(number: int, **kind: object) -> ev.RunEvent:
    stamp = Timestamp()
    stamp.FromMilliseconds(int(time.time() * 1000))
    return ev.RunEvent(
        tenant="acme", session_id=f"s{number}", run_id=f"r{number}", user="ana@acme.example",
        worker="acme-worker-1", revision="r1", time=stamp, **kind,  # type: ignore[arg-type]
    )  # fmt: skip


async def test_a_question_is_answered_and_sigterm_lets_a_run_end(stack: Stack) -> None:
    async with Chat.open(stack.http) as chat:
        assert (await chat.hello())["type"] == "ready"
        assert (await chat.ask("hello"))[-1]["text"] == "You said hello"
        await chat.send(type="ask", text="approve")
        await chat.until("approval_required")
        stack.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        await chat.send(type="decision", approval_id="a1", approved=True)
        assert (await chat.until("final", "error"))[-1]["text"] == "approved"
        assert await chat.next() == {"type": "closed", "code": 1012}
    async with asyncio.timeout(5):
        assert await stack.process.wait() == 0


async def test_page_health_metrics_and_headers(stack: Stack) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{stack.http}/") as page:
            assert page.status == 200
            assert "script-src 'sha256-" in page.headers["content-security-policy"]
        async with http.get(f"{stack.http}/healthz") as health:
            assert health.status == 200
            assert health.headers["x-content-type-options"] == "nosniff"
        async with http.get(f"{stack.http}/metrics") as metrics:
            assert "pilothouse_gateway_connections 0.0" in await metrics.text()
        async with http.post(f"{stack.http}/healthz", data=b"x" * 100_000) as large:
            assert large.status == 413


async def test_a_run_of_a_lost_pod_goes_to_another_and_never_to_a_pod_in_a_foreign_namespace(stack: Stack) -> None:
    stack.kube.put("pods", pod("acme", "evil", "127.0.0.1", namespace="evil"))
    other, ip = FakeAgent("acme-worker-2"), loopback()
    await other.start(ip, names.WORKER_GRPC_PORT)
    async with Chat.open(stack.http) as chat:
        await chat.hello()
        await chat.send(type="ask", text="wait")
        await chat.until("accepted")
        began = time.monotonic()
        stack.kube.delete("pods", "acme", "acme-worker-1")
        await asyncio.sleep(0.3)
        stack.kube.put("pods", pod("acme", "acme-worker-2", ip))
        resumed = await chat.next()
        assert (resumed["type"], resumed["worker"]) == ("resumed", "acme-worker-2")
        assert time.monotonic() - began < 4
        await chat.send(type="stop")
        assert (await chat.next())["partial"] is True
        stack.kube.delete("pods", "acme", "acme-worker-2")
        assert (await chat.ask("again", seconds=15))[-1]["code"] == "ERROR_CODE_NO_WORKER"
    await other.stop()


async def test_a_killed_worker_process_is_noticed_at_once_and_used_again_when_it_is_back(stack: Stack) -> None:
    ip, times = loopback(), []
    stack.kube.put("pods", pod("acme", "acme-worker-2", ip))
    stack.kube.delete("pods", "acme", "acme-worker-1")
    process = await _worker_process(ip)
    try:
        async with Chat.open(stack.http) as chat:
            await chat.hello()
            for _ in range(5):
                await chat.send(type="ask", text="sleep")
                await chat.until("accepted")
                process.kill()
                await process.wait()
                killed = time.monotonic()
                await asyncio.sleep(0.5)
                process = await _worker_process(ip)
                back = time.monotonic()
                resumed = await chat.next()
                assert resumed["type"] == "resumed"
                times.append((time.monotonic() - back, time.monotonic() - killed))
                assert (await chat.until("final", "error"))[-1]["type"] == "final"
    finally:
        process.kill()
        await process.wait()
    print("seconds from listening again to the first event:", ", ".join(f"{late:.2f}" for late, _ in times))
    assert max(late for late, _ in times) < 0.6


async def _worker_process(ip: str) -> asyncio.subprocess.Process:
    """A fake worker of its own process; returns once it listens."""
    code = (
        "import asyncio, sys\n"
        "from pilothouse_testing.gateway_fakes import FakeAgent\n"
        "async def main():\n"
        "    await FakeAgent('acme-worker-2').start(sys.argv[1], int(sys.argv[2]))\n"
        "    print('up', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, ip, str(names.WORKER_GRPC_PORT), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    return process


async def test_fleet_shows_old_and_new_events_to_those_who_may(stack: Stack) -> None:
    redis: Redis = Redis.from_url(stack.redis_url)
    usage = agent.Usage(input_tokens=1, output_tokens=2, cost_micros=30)
    for number in range(10_000):
        event = _event(number % 2_000, run_started=ev.RunStarted(text=f"question {number}"))
        if number % 2:
            event = _event(number % 2_000, run_finished=ev.RunFinished(outcome=ev.RUN_OUTCOME_ANSWERED, usage=usage))
        await redis.xadd(names.events_key("acme"), {"e": event.SerializeToString()})
    for number in range(1_000):
        called = ev.ModelCalled(id=f"run-{number}/1", tier="mid", usage=usage)
        await redis.xadd(names.events_key("acme"), {"e": _event(number, model_called=called).SerializeToString()})
    credentials = (("authorization", f"Bearer {FLEET_TOKEN}"),)
    async with grpc.aio.insecure_channel(stack.fleet) as channel:
        stub = fleet_pb2_grpc.FleetStub(channel)
        await asyncio.sleep(2)
        watch = stub.Watch(fleet_pb2.WatchRequest(tenant="acme"), metadata=credentials)
        first = await watch.read()
        assert isinstance(first, fleet_pb2.WatchResponse)
        assert len(first.snapshot.sessions) == 2_000
        assert first.snapshot.costs[0].cost_micros == 1_000 * 30
        began = time.monotonic()
        await redis.xadd(
            names.events_key("acme"),
            {"e": _event(5000, run_started=ev.RunStarted(text="new")).SerializeToString()},
        )
        async with asyncio.timeout(2):
            while True:
                change = await watch.read()
                if isinstance(change, fleet_pb2.WatchResponse) and change.session.session_id == "s5000":
                    break
        assert change.session.active
        assert time.monotonic() - began < 4
        for bad, code in ((None, "UNAUTHENTICATED"), ((("authorization", "Bearer x"),), "UNAUTHENTICATED")):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Watch(fleet_pb2.WatchRequest(), metadata=bad).read()
            assert refused.value.code().name == code
    await redis.aclose()
    print(f"gateway RSS with 10,000 events in 2,000 sessions: {stack.rss_mb():.1f} MB")
    assert stack.rss_mb() < MAX_RSS_MB


async def test_memory_stays_small_with_hundreds_of_conversations(stack: Stack) -> None:
    async def converse(chats: contextlib.AsyncExitStack, number: int) -> None:
        chat = await chats.enter_async_context(Chat.open(stack.http))
        assert (await chat.hello(token(user=f"user{number}")))["type"] == "ready"
        for _ in range(3):
            assert (await chat.ask("hello", seconds=20))[-1]["type"] == "final"

    async with contextlib.AsyncExitStack() as chats:
        began = time.monotonic()
        for _ in range(4):
            await asyncio.gather(*(converse(chats, number) for number in range(50)))
        print(f"600 runs in {time.monotonic() - began:.1f} s, 200 connections, RSS {stack.rss_mb():.1f} MB")
        assert stack.rss_mb() < MAX_RSS_MB


async def test_memory_stays_small(stack: Stack) -> None:
    print(f"gateway RSS after start: {stack.rss_mb():.1f} MB")
    assert stack.rss_mb() < MAX_RSS_MB
