"""The fast provider is killed in mid-answer, between real processes: gateway, worker, two model servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from pilothouse_api import names
from pilothouse_proto.events.v1 import events_pb2 as events
from pilothouse_proto.fleet.v1 import fleet_pb2, fleet_pb2_grpc
from pilothouse_testing.estate import ERIN, Estate, estate
from pilothouse_testing.gateway_fakes import FLEET_TOKEN, Chat
from pilothouse_testing.servers import free_port

pytestmark = pytest.mark.timeout(120)
Json = dict[str, Any]
_SLOW = {"ttft_ms": [50, 50], "tokens_per_second": 15}
_QUICK = {"ttft_ms": [5, 5], "tokens_per_second": 2000}


class ModelServer:
    """The model stand-in as a process of its own, which can be killed and started again on its port."""

    def __init__(self, log: Path, pace: Json) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.pace = pace
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        env = {**os.environ, "PILOTHOUSE_SIM_FAULTS": json.dumps(self.pace)}
        command = [sys.executable, "-m", "pilothouse_sim", "models", "--listen", f"127.0.0.1:{self.port}"]
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(*command, env=env, stdout=log, stderr=log)
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()
            self._process = None


@contextlib.asynccontextmanager
async def two_providers(folder: Path) -> AsyncIterator[tuple[Estate, ModelServer, ModelServer]]:
    """A worker whose tier ``fast`` is served by the first model server, ``mid`` by the second."""
    first, second = ModelServer(folder / "first.log", _SLOW), ModelServer(folder / "second.log", _QUICK)
    async with estate(folder, vault=False) as here:
        try:
            await asyncio.gather(first.start(), second.start())
            config = here.config(backend="Kubernetes")
            breaker = {"window": 20, "minimum_calls": 3, "open_seconds": 2}
            config["route"] = {
                "providers": [
                    {"name": name, "type": "OpenAI", "base_url": each.url, "breaker": breaker}
                    for name, each in (("first", first), ("second", second))
                ],
                "tiers": {
                    "fast": [{"provider": "first", "model": "quick", "input_price_per_1k": "0.001"}],
                    "mid": [{"provider": "second", "model": "able", "input_price_per_1k": "0.005"}],
                },
                "default_tier": "fast",
                "strategy": "Fixed",
                "fallback": ["mid"],
            }
            await here.start_worker("worker-1", config, here.files("Kubernetes"))
            yield here, first, second
        finally:
            await asyncio.gather(first.kill(), second.kill())


@contextlib.asynccontextmanager
async def fleet(here: Estate) -> AsyncIterator[tuple[Any, Any]]:
    """The gateway's Fleet service, and who asks."""
    async with grpc.aio.insecure_channel(f"{here.gateway_ip}:{names.GATEWAY_FLEET_PORT}") as channel:
        yield fleet_pb2_grpc.FleetStub(channel), (("authorization", f"Bearer {FLEET_TOKEN}"),)


async def breakers(here: Estate) -> dict[str, Any]:
    """By name, as an SRE's terminal is told."""
    async with fleet(here) as (stub, who):
        snapshot = (await stub.Watch(fleet_pb2.WatchRequest(), metadata=who).read()).snapshot
        return {breaker.name: breaker for breaker in snapshot.breakers}


async def model_calls(here: Estate, session: str) -> list[Any]:
    """Of a session's runs, as an SRE's terminal is told."""
    async with fleet(here) as (stub, who):
        request = fleet_pb2.WatchSessionRequest(tenant="acme", session_id=session)
        watch = stub.WatchSession(request, metadata=who)
        first = await watch.read()
        return [call for run in first.runs for call in run.model_calls]


async def until(condition: Any, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - other processes have no event
            await asyncio.sleep(0.1)


async def test_the_answer_still_comes_and_the_terminal_sees_breaker_and_fallback(tmp_path: Path) -> None:
    async with two_providers(tmp_path) as (here, first, _):
        async with Chat.open(here.gateway) as chat:
            ready = await chat.hello(here.sign_in(ERIN))
            session = ready["session_id"]
            # given: an answer that is half written before the user's eyes
            await chat.send(type="ask", text="What can you do for me?")
            got = await chat.until("text_delta", seconds=15)
            # when: its provider dies
            await first.kill()
            got += await chat.until("final", "error", seconds=15)
        # then: the whole answer comes from the other one, and she is told that it begins anew
        final = got[-1]
        assert final["type"] == "final", final
        assert not final.get("partial")
        deltas = "".join(event["text"] for event in got if event["type"] == "text_delta")
        half, note, whole = deltas.partition("(That answer broke off. Here it begins anew:)")
        assert note
        assert whole.strip() == final["text"].strip()
        assert half.strip()
        assert final["text"].startswith(half.strip()), "both stand-ins say the same"

        async def told() -> bool:
            return len(await model_calls(here, session)) == 2

        await until(told)
        cut, answered = await model_calls(here, session)
        assert (cut.provider, cut.aborted) == ("first", True)
        assert (answered.provider, answered.tier, answered.aborted) == ("second", "mid", False)
        assert answered.fallback.startswith("first/quick: ")
        assert int(final["usage"]["cost_micros"]) == cut.usage.cost_micros + answered.usage.cost_micros

        # and: after some more requests the breaker is open, and none of them fails
        for _ in range(3):
            assert (await here.ask("What can you do for me?"))[-1]["type"] == "final"

        async def opened() -> bool:
            seen = (await breakers(here)).get("provider/first")
            return seen is not None and seen.state == events.BREAKER_STATE_OPEN

        await until(opened)
        # and: it recovers by itself
        first.pace = _QUICK
        await first.start()

        async def closed() -> bool:
            assert (await here.ask("What can you do for me?"))[-1]["type"] == "final"
            return bool((await breakers(here))["provider/first"].state == events.BREAKER_STATE_CLOSED)

        await until(closed, 30)
