"""A worker that uses model answers again: real Redis, PostgreSQL, gateway and worker; what an SRE is told of it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from pilothouse_api import names
from pilothouse_proto.fleet.v1 import fleet_pb2, fleet_pb2_grpc
from pilothouse_testing.estate import CARL, ERIN, Estate, estate
from pilothouse_testing.gateway_fakes import FLEET_TOKEN, Chat

pytestmark = pytest.mark.timeout(120)


async def ask(here: Estate, user: str, text: str) -> tuple[str, dict[str, Any]]:
    """Session and last event of a question in a new session."""
    async with Chat.open(here.gateway) as chat:
        ready = await chat.hello(here.sign_in(user))
        await chat.send(type="ask", text=text)
        got = await chat.until("final", "error", seconds=20)
        return ready["session_id"], got[-1]


async def calls_of(here: Estate, session: str) -> list[Any]:
    """The model calls of a session, as an SRE's terminal is told."""
    async with grpc.aio.insecure_channel(f"{here.gateway_ip}:{names.GATEWAY_FLEET_PORT}") as channel:
        stub: Any = fleet_pb2_grpc.FleetStub(channel)
        request = fleet_pb2.WatchSessionRequest(tenant="acme", session_id=session)
        who = (("authorization", f"Bearer {FLEET_TOKEN}"),)
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):  # the events have not come yet
                    first = await stub.WatchSession(request, metadata=who).read()
                    if found := [call for run in first.runs for call in run.model_calls]:
                        return found
                await asyncio.sleep(0.1)


async def test_an_equal_question_costs_nothing_and_another_persons_is_asked_anew(tmp_path: Path) -> None:
    async with estate(tmp_path, vault=False) as here:
        config = here.config(backend="Kubernetes")
        config["route"] = {
            **config["route"],
            "tiers": {"mid": [{"provider": "local", "model": "parrot", "input_price_per_1k": "0.01"}]},
            "cache_seconds": 60,
        }
        await here.start_worker("worker-1", config, here.files("Kubernetes"))
        session, first = await ask(here, ERIN, "Hello there")
        (paid,) = await calls_of(here, session)
        assert not paid.cached
        assert paid.usage.cost_micros > 0

        session, second = await ask(here, ERIN, "Hello there")
        (again,) = await calls_of(here, session)
        assert second["text"] == first["text"]
        assert (again.cached, again.usage.cost_micros) == (True, 0)
        assert again.saved_micros == paid.usage.cost_micros
        assert len(here.model.requests) == 1

        session, _ = await ask(here, CARL, "Hello there")
        assert not (await calls_of(here, session))[0].cached
        # linking an account changes what she may do, and so nothing is used again
        assert (await here.link("jira"))[0] == 200
        session, _ = await ask(here, ERIN, "Hello there")
        assert not (await calls_of(here, session))[0].cached
        assert len(here.model.requests) == 3
